"""Counts over float16 codes against slow loops, hand counts and scikit-learn."""

import warnings

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    jaccard_score,
    precision_recall_fscore_support,
    roc_auc_score,
)

from l4s.errors import DataError
from l4s.metrics import (
    CODE_VALUES,
    CODES,
    accuracy_of,
    auroc,
    average_precision,
    best_threshold,
    bootstrap_f1,
    code_counts,
    expected_calibration_error,
    f1_curve,
    mask_counts,
    mean_iou_of,
    paired_bootstrap,
    patch_counts,
    pooled_scores,
    positive_share,
    predicted,
    scores_at,
    threshold_code,
)

unit = st.floats(0, 1, width=16).map(abs)  # no -0.0
pixels = st.lists(st.tuples(unit, st.integers(0, 1)), min_size=1, max_size=40)


def arrays(rows):
    probs, target = zip(*rows, strict=True)
    return np.array(probs, np.float16), np.array(target, np.uint8)


def counts_of(probs, target):
    return code_counts(probs, target, np.ones(probs.shape, bool))


def random(count=2000, seed=0):
    rng = np.random.default_rng(seed)
    target = (rng.random(count) < 0.2).astype(np.uint8)
    return np.clip(rng.normal(0.3 + 0.3 * target, 0.2), 0, 1).astype(np.float16), target


def test_codes_are_the_values_in_order():
    every = np.arange(2**16, dtype=np.uint16).view(np.float16)
    assert CODES == 15361
    assert (np.diff(CODE_VALUES) > 0).all() and CODE_VALUES[0] == 0 and CODE_VALUES[-1] == 1
    inside = np.flatnonzero((every >= 0) & (every <= 1)).tolist()
    assert inside == [*range(CODES), 0x8000]  # and -0.0, which the files do not hold


def test_counts_against_a_loop():
    rng = np.random.default_rng(1)
    probs = (rng.integers(0, 5, (3, 6, 7)) / 4).astype(np.float16)
    target, valid = rng.integers(0, 2, probs.shape).astype(np.uint8), rng.random(probs.shape) < 0.7
    slow = np.zeros((2, CODES), int)
    for p, t, v in zip(probs.flat, target.flat, valid.flat, strict=True):
        if v:
            slow[t, int(np.flatnonzero(CODE_VALUES == float(p))[0])] += 1
    counts = code_counts(probs, target, valid)
    assert counts.dtype == np.int64
    np.testing.assert_array_equal(counts, slow)
    np.testing.assert_array_equal(sum(map(code_counts, probs, target, valid)), slow)


def test_ignored_pixels_may_hold_any_target_but_not_any_value():
    probs, target, valid = np.array([0.5, 0.5], np.float16), np.array([1, 255], np.uint8), np.array([True, False])
    assert code_counts(probs, target, valid).sum() == 1
    with pytest.raises(DataError, match="0 or 1 where they are valid, got 255"):
        code_counts(probs, target, np.array([True, True]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"probs": np.zeros(2, np.float32)}, "float16 values as stored, got float32"),
        ({"probs": np.array([0, np.nan], np.float16)}, r"in \[0, 1\], got nan"),
        ({"probs": np.array([0, 1.001], np.float16)}, r"in \[0, 1\], got 1\.000976"),
        ({"probs": np.array([0, -0.5], np.float16)}, r"in \[0, 1\], got -0\.5"),
        ({"target": np.zeros(3, np.uint8)}, "must have one shape"),
        ({"target": np.zeros(2, np.float32)}, "must be uint8 and valid bool, got float32"),
        ({"valid": np.ones(2, np.uint8)}, "must be uint8 and valid bool, got uint8 and uint8"),
    ],
)
def test_what_cannot_be_counted(change, message):
    good = {"probs": np.zeros(2, np.float16), "target": np.zeros(2, np.uint8), "valid": np.ones(2, bool)}
    with pytest.raises(DataError, match=message):
        code_counts(**(good | change))


def test_scores_by_hand():
    probs = np.array([0.9, 0.8, 0.5, 0.4, 0.1, 0.6], np.float16)
    target = np.array([1, 0, 1, 1, 0, 1], np.uint8)
    scores = scores_at(counts_of(probs, target), 0.5)
    assert (scores.tp, scores.fp, scores.fn) == (3, 1, 1)
    assert [scores.precision, scores.recall, scores.f1, scores.iou] == pytest.approx([0.75, 0.75, 0.75, 0.6])


def test_guards_of_the_competition():
    assert pooled_scores(0, 0, 0).f1 == pooled_scores(0, 5, 0).f1 == pooled_scores(0, 0, 5).recall == 0
    precision, recall = 3 / (3 + 1 + 1e-14), 3 / (3 + 2 + 1e-14)
    assert pooled_scores(3, 1, 2).f1 == 2 * precision * recall / (precision + recall + 1e-14)


@given(pixels, st.floats(0, 1))
def test_threshold_is_compared_as_float64(rows, threshold):
    probs, target = arrays(rows)
    slow = np.array([float(p) >= threshold for p in probs])
    np.testing.assert_array_equal(predicted(probs, threshold), slow)
    scores = scores_at(counts_of(probs, target), threshold)
    assert scores.tp == (slow & (target == 1)).sum() and scores.fp == (slow & (target == 0)).sum()
    assert scores.fn == (~slow & (target == 1)).sum()


def test_thresholds_that_float16_cannot_hold():
    below, above = np.array([0.7, 0.6997], np.float16)[::-1]
    assert float(below) < 0.7 < float(above)
    assert predicted(np.array([below, above]), 0.7).tolist() == [False, True]
    nearer_below = 0.6998  # rounds to `below`, which is smaller
    assert np.float16(nearer_below) == below
    assert (np.array([below]) >= nearer_below).tolist() == [True]  # what comparing arrays would say
    assert predicted(np.array([below]), nearer_below).tolist() == [False]
    assert threshold_code(0.0) == 0 and threshold_code(1.0) == CODES - 1 and threshold_code(1e-9) == 1


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan")])
def test_thresholds_outside(threshold):
    with pytest.raises(DataError, match="threshold must be in"):
        threshold_code(threshold)


@given(pixels)
def test_average_precision_is_that_of_sklearn(rows):
    probs, target = arrays(rows)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sklearn warns where no target is positive
        wanted = average_precision_score(target, probs.astype(np.float64))
    assert average_precision(counts_of(probs, target)) == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 0.7, 1.0])
def test_against_sklearn_on_many_pixels(threshold):
    probs, target = random()
    counts = counts_of(probs, target)
    wanted = precision_recall_fscore_support(
        target, probs.astype(np.float64) >= threshold, average="binary", zero_division=0
    )
    scores = scores_at(counts, threshold)
    assert (scores.precision, scores.recall, scores.f1) == pytest.approx(wanted[:3], abs=1e-12)
    assert scores.iou == pytest.approx(scores.f1 / (2 - scores.f1), abs=1e-12)
    wanted = average_precision_score(target, probs.astype(np.float64))
    assert average_precision(counts) == pytest.approx(wanted, abs=1e-9)


@given(pixels)
def test_best_threshold_is_the_best_of_all(rows):
    probs, target = arrays(rows)
    assume(target.any())
    counts = counts_of(probs, target)
    threshold, f1 = best_threshold(counts)
    tried = {float(value): scores_at(counts, float(value)).f1 for value in {*probs.tolist(), 0.0, 1.0}}
    assert f1 == max(tried.values()) == scores_at(counts, threshold).f1
    assert threshold == max(value for value, reached in tried.items() if reached == f1)


def test_best_threshold_by_hand():
    probs, target = np.array([0.9, 0.6, 0.5, 0.2], np.float16), np.array([1, 0, 1, 0], np.uint8)
    threshold, f1 = best_threshold(counts_of(probs, target))
    assert threshold == 0.5 and f1 == pytest.approx(0.8)


def test_curve_is_the_score_at_each_code():
    counts = counts_of(*random(300))
    thresholds, f1 = f1_curve(counts)
    assert thresholds.shape == f1.shape == (CODES,)
    for code in (0, 1, 9000, 13000, 14336, 15000, CODES - 1):
        assert f1[code] == scores_at(counts, thresholds[code]).f1


def test_share_and_calibration_against_a_loop():
    probs, target = random(500)
    counts = counts_of(probs, target)
    assert positive_share(counts) == pytest.approx(target.mean())
    for bins in (1, 10, 15):
        slow = 0.0
        for k in range(bins):
            last = k == bins - 1
            inside = [
                (float(p), t)
                for p, t in zip(probs, target, strict=True)
                if k <= float(p) * bins < k + 1 or (last and p == 1)
            ]
            slow += abs(sum(p for p, _ in inside) - sum(int(t) for _, t in inside)) / len(probs)
        assert expected_calibration_error(counts, bins) == pytest.approx(slow, abs=1e-12)


def test_calibration_by_hand():
    probs, target = np.array([0.25, 0.25, 0.75, 1.0], np.float16), np.array([0, 1, 1, 1], np.uint8)
    # bins of 0.5: |0.5 - 1| + |1.75 - 2| over 4 pixels
    assert expected_calibration_error(counts_of(probs, target), bins=2) == pytest.approx(0.75 / 4)


def test_nothing_counted_and_nothing_positive():
    nothing = np.zeros((2, CODES), np.int64)
    assert positive_share(nothing) == expected_calibration_error(nothing) == average_precision(nothing) == 0
    only_background = counts_of(np.array([0.5], np.float16), np.array([0], np.uint8))
    assert average_precision(only_background) == best_threshold(only_background)[1] == 0


def test_counts_of_patches_against_a_loop():
    rng = np.random.default_rng(2)
    probs = rng.random((4, 5, 6)).astype(np.float16)
    target, valid = rng.integers(0, 2, probs.shape).astype(np.uint8), rng.random(probs.shape) < 0.8
    slow = np.zeros((4, 3), int)
    for n, row, column in np.ndindex(probs.shape):
        if valid[n, row, column]:
            p, t = float(probs[n, row, column]) >= 0.7, target[n, row, column] == 1
            slow[n] += [p and t, p and not t, t and not p]
    counts = patch_counts(probs, target, valid, 0.7)
    assert counts.dtype == np.int64
    np.testing.assert_array_equal(counts, slow)
    np.testing.assert_array_equal(mask_counts((probs >= np.float16(0.7)).astype(np.uint8), target, valid), slow)
    pooled = scores_at(code_counts(probs, target, valid), 0.7)
    assert counts.sum(axis=0).tolist() == [pooled.tp, pooled.fp, pooled.fn]
    single = patch_counts(probs[:, 0, 0], target[:, 0, 0], valid[:, 0, 0], 0.7)
    assert single.shape == (4, 3) and single.sum(axis=1).max() <= 1


@given(hnp.arrays(np.int64, (6, 3), elements=st.integers(0, 50)), st.integers(0, 100))
def test_bootstrap_against_a_loop(counts, seed):
    rng, slow = np.random.default_rng(seed), []
    for _ in range(40):
        tp, fp, fn = (int(part) for part in counts[rng.integers(6, size=6)].sum(axis=0))
        slow.append(2 * tp / max(2 * tp + fp + fn, 1))
    low, high = bootstrap_f1(counts, seed, draws=40, level=0.9)
    assert (low, high) == pytest.approx(np.quantile(slow, [0.05, 0.95]), abs=1e-9)


def test_bootstrap_covers_about_what_it_says():
    rng, hits = np.random.default_rng(3), 0
    for trial in range(100):
        tp = rng.binomial(50, rng.beta(4, 2, size=60))
        counts = np.stack([tp, 50 - tp, 50 - tp], axis=1)  # F1 is tp / 50: its expectation is 4 / 6
        low, high = bootstrap_f1(counts, trial, draws=200)
        hits += low <= 4 / 6 <= high
    assert 86 <= hits <= 100


def test_bootstrap_is_a_function_of_its_seed():
    counts = np.random.default_rng(4).integers(0, 50, (30, 3))
    assert bootstrap_f1(counts, 1) == bootstrap_f1(counts, 1) != bootstrap_f1(counts, 2)
    narrow, wide = (bootstrap_f1(counts, 1, level=level) for level in (0.5, 0.99))
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_paired_bootstrap():
    rng = np.random.default_rng(5)
    a = rng.integers(0, 500, (40, 3))
    assert paired_bootstrap(a, a, seed=0) == (0, 0, 0)
    b = a + np.array([0, 3, 0])  # a little worse on every patch, whichever are drawn
    difference, low, high = paired_bootstrap(a, b, seed=0, draws=300)
    f1 = [2 * c[:, 0].sum() / (2 * c[:, 0] + c[:, 1] + c[:, 2]).sum() for c in (a, b)]
    assert difference == pytest.approx(f1[0] - f1[1])
    assert 0 < low < difference < high
    alone = bootstrap_f1(a, 0, 300)
    assert high - low < 0.2 * (alone[1] - alone[0])  # pairing removes what the patches have in common
    with pytest.raises(DataError, match="the same patches"):
        paired_bootstrap(a, b[1:], seed=0)


@given(pixels)
def test_auroc_against_sklearn(rows):
    probs, target = arrays(rows)
    found = auroc(counts_of(probs, target))
    if len(set(target.tolist())) < 2:
        assert found is None
    else:
        assert found == pytest.approx(roc_auc_score(target, probs.astype(np.float64)), abs=1e-12)


def test_auroc_of_inverted_values_is_below_one_half():
    probs, target = random()
    straight = auroc(counts_of(probs, target))
    inverted = auroc(counts_of((np.float16(1) - probs), target))
    assert straight > 0.7 and inverted < 0.3


@given(pixels)
def test_mean_iou_and_accuracy_against_sklearn(rows):
    probs, target = arrays(rows)
    pred = probs.astype(np.float64) >= 0.5
    (tp, fp, fn), pixel = mask_counts(pred[None], target[None], np.ones((1, len(target)), bool))[0], len(target)
    wanted = [jaccard_score(truth, found, zero_division=0) for truth, found in ((target, pred), (1 - target, ~pred))]
    assert mean_iou_of(tp, fp, fn, pixel) == pytest.approx(np.mean(wanted), abs=1e-12)
    assert accuracy_of(tp, fp, fn, pixel) == pytest.approx(accuracy_score(target, pred))


def test_nothing_counted():
    assert mean_iou_of(0, 0, 0, 0) == accuracy_of(0, 0, 0, 0) == 0
