"""Thresholds without labels against slow loops, and the scores there against scikit-learn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.filters import threshold_otsu
from sklearn.metrics import accuracy_score, f1_score, jaccard_score, precision_score, recall_score

from l4s.metrics import CODE_VALUES, code_counts
from l4s.thresholds import cuts, expected_f1, label_free, otsu, plain, quantile


def counts_of(values):
    values = np.asarray(values, np.float16)
    return code_counts(values, np.zeros(values.shape, np.uint8), np.ones(values.shape, bool))[0]


SOME = st.lists(st.integers(0, 30).map(lambda n: n / 32), min_size=1, max_size=40)


@given(SOME)
def test_no_other_set_of_pixels_has_a_higher_expected_f1(values):
    """Against every choice of how many of the highest to mark."""
    v = np.sort(np.array(values))[::-1]
    found = expected_f1(counts_of(values))
    if not v.any():
        assert found == 0.5
        return
    expected = 2 * np.cumsum(v) / (np.arange(1, len(v) + 1) + v.sum())
    marked = int((v >= found).sum())
    assert expected[marked - 1] == pytest.approx(expected.max(), abs=1e-12)
    assert found == pytest.approx(expected.max() / 2) and found <= 0.5


def test_where_probabilities_are_true_the_expected_f1_finds_the_best_threshold():
    rng = np.random.default_rng(0)
    probs = rng.beta(0.1, 1.0, 200_000).astype(np.float16)
    target = (rng.random(probs.shape) < probs).astype(np.uint8)
    counts = code_counts(probs, target, np.ones(probs.shape, bool))
    found = plain(cuts(counts, label_free([probs])))
    half = f1_score(target, probs >= 0.5)
    assert found["oracle"]["f1"] - found["expected_f1"]["f1"] < 0.003 < 0.01 < found["oracle"]["f1"] - half
    assert found["expected_f1"]["threshold"] == pytest.approx(found["expected_f1"]["f1"] / 2, abs=0.005)


def test_sure_networks_are_cut_in_the_middle():
    assert expected_f1(counts_of([0.0, 1.0, 0.0])) == 0.5


@given(SOME, st.sampled_from([0.05, 0.3, 0.5, 0.99]))
def test_the_quantile_is_the_lowest_threshold_that_few_pixels_reach(values, share):
    found, v = quantile(counts_of(values), share), np.array(values)
    limit = share * len(v)
    assert (v >= found).sum() <= limit  # no value is 1, where the promise ends
    code = int(np.searchsorted(CODE_VALUES, found))
    assert code == 0 or (v >= CODE_VALUES[code - 1]).sum() > limit


def test_a_quantile_that_nothing_can_keep():
    assert quantile(counts_of([1.0, 1.0]), 0.05) == 1.0


@given(SOME)
def test_otsu_parts_two_classes_as_far_as_can_be(values):
    v = np.array(values, np.float16).astype(np.float64)
    found = otsu(counts_of(values))
    choices = sorted(set(v))[1:]
    if not choices:
        assert found == 1.0
        return

    def between(t):
        low, high = v[v < t], v[v >= t]
        return len(low) * len(high) * (low.mean() - high.mean()) ** 2

    assert found in choices
    assert between(found) == pytest.approx(max(map(between, choices)), rel=1e-9)


def test_otsu_is_about_scikit_image_s():
    rng = np.random.default_rng(0)
    values = np.clip(np.concatenate([rng.normal(0.3, 0.05, 900), rng.normal(0.7, 0.05, 100)]), 0, 1)
    values = values.astype(np.float16)
    theirs = values.astype(np.float64) > threshold_otsu(values.astype(np.float64))  # out of 256 bins
    assert ((values.astype(np.float64) >= otsu(counts_of(values))) != theirs).mean() < 0.01


def test_cuts_against_scikit_learn():
    rng = np.random.default_rng(1)
    target = (rng.random((3, 10, 10)) < 0.2).astype(np.uint8)
    values = np.clip(rng.normal(0.4 + 0.15 * target, 0.1), 0, 1).astype(np.float16)
    valid = rng.random(target.shape) < 0.9
    chosen = label_free(values, 0.1)
    assert chosen == {"quantile": quantile(counts_of(values), 0.1), "otsu": otsu(counts_of(values))}
    found = plain(cuts(code_counts(values, target, valid), chosen))
    assert list(found) == ["quantile", "otsu", "oracle", "oracle_mean_iou"]
    t, v = target[valid], values[valid].astype(np.float64)
    for row in found.values():
        p = v >= row["threshold"]
        assert row["mean_iou"] == pytest.approx((jaccard_score(t, p) + jaccard_score(1 - t, ~p)) / 2)
        assert row["accuracy"] == pytest.approx(accuracy_score(t, p))
        assert row["predicted_share"] == pytest.approx(p.mean())
        for key, scorer in {"f1": f1_score, "iou": jaccard_score, "precision": precision_score}.items():
            assert row[key] == pytest.approx(scorer(t, p))
        assert row["recall"] == pytest.approx(recall_score(t, p))
    assert found["oracle"]["f1"] >= max(row["f1"] for row in found.values())
    assert found["oracle"]["f1"] == pytest.approx(max(f1_score(t, v >= at) for at in set(v.tolist())))
    both = [(jaccard_score(t, v >= at) + jaccard_score(1 - t, v < at)) / 2 for at in set(v.tolist())]
    assert found["oracle_mean_iou"]["mean_iou"] == pytest.approx(max(both))
    assert found["oracle_mean_iou"]["mean_iou"] >= found["oracle"]["mean_iou"]
