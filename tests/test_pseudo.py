"""Pseudo labels: both readings of the paper's threshold, the edges in float16, and when to warn."""

import os

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from l4s import rundir
from l4s.data.fitting import Fitting
from l4s.data.probs import ONE, open_probs, write_probs
from l4s.errors import DataError
from l4s.pseudo import changed, open_pseudo, pseudo, warnings
from l4s.recipe import Pseudo

IDS = ("5", "7")


def make(path, values, kind="probability"):
    values = np.asarray(values, np.float16)
    about = {"member": "ensemble", "fingerprint": "f", "domain": "away", "tta": "d4", "kind": kind}
    with write_probs(path, ids=IDS[: len(values)], shape=values.shape, **about) as writer:
        writer.put(0, values)
    return open_probs(path)


def label(tmp_path, values, **config):
    return pseudo(make(tmp_path / "probs.h5", values), Pseudo(**config), tmp_path / "out.h5", fingerprint="key")


VALUES = [[[0.0, 0.25, 0.5], [0.75, 0.875, 1.0]], [[0.25, 0.26, 0.74], [0.75, 0.0, 0.0]]]


def test_between_the_thresholds_is_ignored(tmp_path):
    labels = label(tmp_path, VALUES, upper=0.75, lower=0.25)
    assert labels.target.tolist() == [[[0, 0, 0], [1, 1, 1]], [[0, 0, 0], [1, 0, 0]]]
    assert labels.weight.tolist() == [[[1, 1, 0], [1, 1, 1]], [[1, 0, 0], [1, 1, 1]]]
    assert labels.target.dtype == labels.weight.dtype == np.uint8
    assert labels.ids == IDS and labels.fingerprint == "key"


def test_the_other_reading_ignores_nothing(tmp_path):
    labels = label(tmp_path, VALUES, upper=0.75, under_threshold="background")
    assert labels.target.tolist() == [[[0, 0, 0], [1, 1, 1]], [[0, 0, 0], [1, 0, 0]]]
    assert (labels.weight == 1).all()


def test_labels_of_one_patch_are_what_training_wants(tmp_path):
    target, weight = label(tmp_path, VALUES, upper=0.75, lower=0.25).labels(1)
    assert target.dtype == weight.dtype == np.float32
    assert target.tolist() == [[0, 0, 0], [1, 0, 0]] and weight.tolist() == [[1, 0, 0], [1, 1, 1]]


def test_shares(tmp_path):
    shares = label(tmp_path, VALUES, upper=0.75, lower=0.25).shares()
    assert shares == pytest.approx({"kept": 9 / 12, "ignored": 3 / 12, "positive": 4 / 9})
    empty = label(tmp_path, np.full((1, 2, 2), 0.5), upper=0.75, lower=0.25).shares()
    assert empty == {"kept": 0.0, "ignored": 1.0, "positive": 0.0}


SIZES = ((2, 3), (4, 1))


def padded(tmp_path, *planes, name="out"):
    """Labels of patches of these probabilities, each constant, padded to 4 x 4; of 32 pixels 22 are padding."""
    about = {"member": "ensemble", "fingerprint": "f", "domain": "away", "tta": "d4", "kind": "probability"}
    with write_probs(tmp_path / "ragged.h5", ids=IDS, shape=SIZES, **about) as writer:
        writer.put(0, [np.full(shape, value, np.float32) for shape, value in zip(SIZES, planes, strict=True)])
    probs, config = open_probs(tmp_path / "ragged.h5"), Pseudo(upper=0.75, lower=0.25)
    return pseudo(probs, config, tmp_path / f"{name}.h5", fingerprint="key", fitting=Fitting("pad", 4))


def test_padding_is_no_part_of_the_shares(tmp_path):
    before, labels = padded(tmp_path, 0.0, 0.5, name="before"), padded(tmp_path, 1.0, 0.5)
    assert labels.padding == 22 and labels.target.shape == (2, 4, 4)
    assert labels.shares() == pytest.approx({"kept": 6 / 10, "ignored": 4 / 10, "positive": 1.0})
    again, first = open_pseudo(tmp_path / "out.h5"), open_pseudo(tmp_path / "before.h5")
    assert changed(labels, before) == changed(again, first) == pytest.approx(6 / 10)
    assert changed(labels, labels) == 0.0


def test_labels_without_padding_say_nothing_of_it(tmp_path):
    """Their files are what they were before any could be padded, and those that do not tell count every pixel."""
    assert label(tmp_path, VALUES).padding == 0
    with h5py.File(tmp_path / "out.h5") as file:
        assert set(file.attrs) == {"fingerprint"}
    padded(tmp_path, 1.0, 0.5)
    with h5py.File(tmp_path / "out.h5", "a") as file:
        del file.attrs["padding"]
    assert open_pseudo(tmp_path / "out.h5").shares()["kept"] == pytest.approx(6 / 32)


EVERY = np.arange(ONE + 1, dtype=np.uint16).view(np.float16)
"""All float16 values in [0, 1]."""


@given(st.floats(0.001, 0.999), st.floats(0.0, 0.999))
def test_thresholds_mean_what_they_say_for_every_value(tmp_path_factory, upper, lower):
    if lower >= upper:
        upper, lower = max(lower, 0.001), min(upper, lower) / 2
    labels = label(tmp_path_factory.mktemp("p"), EVERY[None, None], upper=upper, lower=lower)
    exact = EVERY.astype(np.float64)
    np.testing.assert_array_equal(labels.target[0, 0], exact >= upper)
    np.testing.assert_array_equal(labels.weight[0, 0], (exact >= upper) | (exact <= lower))


@pytest.mark.parametrize("name", ["0.7", "0.3", "0.1", "0.9", "0.5"])
def test_the_nearest_float16_of_a_threshold_is_on_its_true_side(tmp_path, name):
    """0.7 is stored as 0.7002, above it; 0.3 as 0.30005, above it; 0.1 as 0.09998, below it."""
    threshold, near = float(name), np.float16(name)
    as_upper = label(tmp_path, [[[near]]], upper=threshold, lower=0.05)
    assert as_upper.target.item() == (float(near) >= threshold)
    as_lower = label(tmp_path, [[[near]]], upper=0.95, lower=threshold)
    assert as_lower.weight.item() == (float(near) <= threshold)


def test_a_file_comes_back_and_equal_labels_are_equal_bytes(tmp_path):
    labels = label(tmp_path, VALUES, upper=0.75, lower=0.25)
    first = (tmp_path / "out.h5").read_bytes()
    again = open_pseudo(tmp_path / "out.h5")
    np.testing.assert_array_equal(again.target, labels.target)
    np.testing.assert_array_equal(again.weight, labels.weight)
    assert (again.ids, again.fingerprint) == (IDS, "key")
    label(tmp_path, VALUES, upper=0.75, lower=0.25)
    assert (tmp_path / "out.h5").read_bytes() == first


def test_labels_are_on_the_disk_before_they_have_their_name(tmp_path, monkeypatch):
    """A file of labels is finished once it has its name."""
    synced, sync = [], os.fsync

    def watch(handle):
        synced.append((os.fstat(handle).st_ino, (tmp_path / "out.h5").exists()))
        sync(handle)

    probs = make(tmp_path / "probs.h5", VALUES)
    monkeypatch.setattr(os, "fsync", watch)
    pseudo(probs, Pseudo(), tmp_path / "out.h5", fingerprint="key")
    assert synced == [((tmp_path / "out.h5").stat().st_ino, False), (tmp_path.stat().st_ino, True)]


def test_labels_that_stop_half_way_leave_the_older_file(tmp_path, monkeypatch):
    label(tmp_path, VALUES, upper=0.75)
    first = (tmp_path / "out.h5").read_bytes()

    def stop(point):
        raise KeyboardInterrupt(point)

    monkeypatch.setattr(rundir, "reached", stop)
    with pytest.raises(KeyboardInterrupt, match="pseudo.written"):
        label(tmp_path, VALUES, upper=0.5)
    assert (tmp_path / "out.h5").read_bytes() == first


def test_scores_are_no_probabilities(tmp_path):
    with pytest.raises(DataError, match="probs.h5 holds scores, not probabilities"):
        pseudo(make(tmp_path / "probs.h5", VALUES, kind="score"), Pseudo(), tmp_path / "out.h5", fingerprint="key")


def test_what_is_no_file_of_labels(tmp_path):
    with pytest.raises(DataError, match="none.h5.*delete it and run `l4s pseudolabel`"):
        open_pseudo(tmp_path / "none.h5")
    with h5py.File(tmp_path / "odd.h5", "w") as file:
        file["target"] = [1]
    with pytest.raises(DataError, match="odd.h5"):
        open_pseudo(tmp_path / "odd.h5")


@pytest.mark.parametrize(
    ("positive", "source", "word"),
    [
        (0.02, 0.02, None),
        (0.005, 0.02, None),  # a quarter
        (0.0049, 0.02, "collapse"),
        (0.0, 0.02, "collapse"),
        (0.08, 0.02, None),  # four times
        (0.0801, 0.02, "explosion"),
        (0.0, 0.0, None),
        (0.01, 0.0, "explosion"),
    ],
)
def test_a_collapse_and_an_explosion_are_told(positive, source, word):
    told = warnings({"kept": 0.9, "ignored": 0.1, "positive": positive}, source)
    assert [word in line for line in told] == ([True] if word else [])
    assert not told or f"{positive:.2%}" in told[0] and f"{source:.2%}" in told[0]
