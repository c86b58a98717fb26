"""Counting errors beside loops over pixels, and error bars beside their formulas."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from l4s.counts import count_errors, paired_mean, sd_over_n, split_patches, standard_error, summary
from l4s.errors import DataError


def slow(value, mask, threshold):
    total = 0.0
    for probability, label in zip(value.ravel().tolist(), mask.ravel().tolist(), strict=True):
        if label != 255:
            total += (probability if threshold is None else probability >= threshold) - (label == 1)
    return total


@given(st.integers(0, 1000), st.sampled_from([None, 0.5, 0.25]))
def test_errors_are_sums_over_valid_pixels(seed, threshold):
    rng = np.random.default_rng(seed)
    values = [rng.random((3, 4)).astype(np.float16).round(1) for _ in range(3)]
    masks = [rng.choice(np.array([0, 1, 255], np.uint8), (3, 4)) for _ in range(3)]
    wanted = [slow(value, mask, threshold) for value, mask in zip(values, masks, strict=True)]
    np.testing.assert_allclose(count_errors(values, masks, threshold), wanted, atol=1e-9)


def test_sizes_that_differ():
    with pytest.raises(DataError, match="patch 0: the prediction is"):
        count_errors([np.zeros((2, 2))], [np.zeros((2, 3), np.uint8)], 0.5)


def test_a_patch_is_empty_where_no_valid_pixel_is_landslide():
    masks = [np.array([[0, 255]], np.uint8), np.array([[1, 255]], np.uint8), np.array([[255, 255]], np.uint8)]
    parts = {name: part.tolist() for name, part in split_patches(masks).items()}
    assert parts == {  # of the last nothing is known
        "all": [True, True, False],
        "empty": [True, False, False],
        "landslide": [False, True, False],
    }


def test_summary_by_hand():
    assert summary(np.array([-5.0, 1.0, 2.0])) == {
        "median": 1.0,
        "mean": pytest.approx(-2 / 3),
        "median_size": 2.0,
        "mean_size": pytest.approx(8 / 3),
    }
    nothing = summary(np.array([]))
    assert nothing.keys() == summary(np.ones(1)).keys() and set(nothing.values()) == {None}


def test_error_bars():
    values = np.array([1.0, 2.0, 6.0])
    assert standard_error(values) == pytest.approx(np.std(values, ddof=1) / 3**0.5)
    assert sd_over_n(values) == pytest.approx(np.std(values) / 3)
    assert standard_error(values[:1]) is sd_over_n(values[:1]) is None


def test_a_paired_difference_has_its_interval():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=200) * 50
    found = paired_mean(noise + 3 + rng.normal(size=200), noise, 0)
    assert found["low"] < found["difference"] < found["high"] and found["low"] > 2.5 and found["high"] < 3.5
    assert paired_mean(noise, noise, 0) == {"difference": 0.0, "low": 0.0, "high": 0.0}
    with pytest.raises(DataError, match="the same patches"):
        paired_mean(noise, noise[1:], 0)
