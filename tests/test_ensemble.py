"""Ensembles: plain and weighted means, and files that do not belong together."""

import numpy as np
import pytest

from l4s.data.probs import open_probs, write_probs
from l4s.ensemble import ensemble
from l4s.errors import DataError, RecipeError

IDS = ("3", "10", "2")


def make(path, values, ids=IDS, **about):
    values = np.asarray(values, np.float32)
    about = {"member": path.stem, "fingerprint": "f", "domain": "away", "tta": "d4", "kind": "probability"} | about
    with write_probs(path, ids=ids, shape=values.shape, **about) as writer:
        writer.put(0, values)
    return open_probs(path)


def random(seed, shape=(3, 4, 5)):
    return np.random.default_rng(seed).random(shape).astype(np.float16).astype(np.float32)


def run(tmp_path, *inputs, **settings):
    ensemble(inputs, tmp_path / "out.h5", fingerprint="abc", **settings)
    return open_probs(tmp_path / "out.h5")


def test_the_plain_mean(tmp_path):
    parts = [make(tmp_path / f"{name}.h5", random(seed)) for seed, name in enumerate("abc")]
    out = run(tmp_path, *parts)
    expected = np.mean([random(seed).astype(np.float64) for seed in range(3)], axis=0)
    np.testing.assert_allclose(out.read().astype(np.float64), expected, atol=2**-11)
    assert (out.ids, out.member, out.fingerprint, out.domain, out.tta, out.kind) == (
        IDS,
        "ensemble",
        "abc",
        "away",
        "d4",
        "probability",
    )


def test_the_weighted_mean_by_member_and_not_by_place(tmp_path):
    a, b = make(tmp_path / "a.h5", random(0)), make(tmp_path / "b.h5", random(1))
    weights = {"b": 30, "a": 10}
    first = run(tmp_path, a, b, weights=weights).read()
    np.testing.assert_allclose(first.astype(np.float64), 0.25 * random(0) + 0.75 * random(1), atol=2**-11)
    np.testing.assert_array_equal(run(tmp_path, b, a, weights=weights).read(), first)


def test_equal_weights_are_the_plain_mean(tmp_path):
    parts = [make(tmp_path / f"{name}.h5", random(seed)) for seed, name in enumerate("abcd")]
    plain = run(tmp_path, *parts).read()
    np.testing.assert_array_equal(run(tmp_path, *parts, weights=dict.fromkeys("abcd", 7.5)).read(), plain)


def test_one_member_is_itself(tmp_path):
    np.testing.assert_array_equal(run(tmp_path, make(tmp_path / "a.h5", random(0))).read(), random(0))


def test_ones_stay_ones(tmp_path):
    """Three thirds of float32 may add up to a little more than 1."""
    parts = [make(tmp_path / f"{name}.h5", np.ones((3, 2, 2))) for name in "abcdefg"]
    assert (run(tmp_path, *parts).read() == 1).all()
    assert (run(tmp_path, *parts, weights={name: 0.1 * k for k, name in enumerate("abcdefg", 1)}).read() == 1).all()


def test_values_of_one_number_a_patch(tmp_path):
    a, b = make(tmp_path / "a.h5", [0.0, 0.5, 1.0], kind="score"), make(tmp_path / "b.h5", [1, 0.5, 0.5], kind="score")
    out = run(tmp_path, a, b)
    assert out.read().tolist() == [0.5, 0.5, 0.75] and out.kind == "score"


@pytest.mark.parametrize(
    ("values", "about", "message"),
    [
        (random(1), {"kind": "score"}, "kind 'probability' is not 'score'"),
        (random(1), {"extra": {"positive_share": 0.1}}, "extra {} is not {'positive_share': 0.1}"),
        (random(1), {"domain": "home"}, "domain 'away' is not 'home'"),
        (random(1), {"tta": "none"}, "tta 'd4' is not 'none'"),
        (random(1, (3, 5, 4)), {}, r"shape \(3, 4, 5\) is not \(3, 5, 4\)"),
        (random(1), {"ids": ("3", "11", "2")}, "only one of them holds 10, 11"),
        (random(1), {"ids": ("10", "3", "2")}, "their patches stand in another order"),
    ],
)
def test_files_that_do_not_belong_together(tmp_path, values, about, message):
    a, b = make(tmp_path / "a.h5", random(0)), make(tmp_path / "b.h5", values, **about)
    with pytest.raises(DataError, match=f"a.h5 and .*b.h5: {message}"):
        run(tmp_path, a, b)
    assert not (tmp_path / "out.h5").exists()


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"a": 1, "b": 1, "bb": 1}, "ensemble.weights names 'bb', did you mean 'b'"),
        ({"a": 1}, "no positive weight for 'b'"),
        ({"a": 1, "b": 0}, "no positive weight for 'b'"),
        ({"a": -1, "b": 2}, "no positive weight for 'a'"),
    ],
)
def test_weights_that_do_not_fit(tmp_path, weights, message):
    a, b = make(tmp_path / "a.h5", random(0)), make(tmp_path / "b.h5", random(1))
    with pytest.raises(RecipeError, match=message):
        run(tmp_path, a, b, weights=weights)


def test_what_scoring_must_know_is_handed_on(tmp_path):
    rule = {"positive_share": 0.1}
    a, b = (make(tmp_path / f"{name}.h5", [0.0, 0.5, 1.0], extra=rule) for name in "ab")
    assert run(tmp_path, a, b).extra == rule
