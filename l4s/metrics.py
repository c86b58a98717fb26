"""Scores from counts: how many pixels of either class hold each of the 15,361 float16 values in [0,1].

Such counts are small, add up over patches, files and ranks, and give precision, recall and F1 at every threshold, and
average precision, exactly for the values as they are stored. All scores are pooled over pixels and about the landslide
class alone, as in the competition, but for accuracy and mean IoU, whose names say so.
"""

from dataclasses import dataclass

import numpy as np

from l4s.errors import DataError

CODES = 0x3C00 + 1
"""Float16 values in [0,1]: the bits 0x0000 (0.0) to 0x3C00 (1.0), in the order of the values."""
CODE_VALUES = np.arange(CODES, dtype=np.uint16).view(np.float16).astype(np.float64)
"""(CODES,) float64: the value of each code."""
EPSILON = 1e-14
"""The guard in the competition's own formula."""


@dataclass(frozen=True)
class Scores:
    """Scores of the landslide class at one threshold, in [0,1], and the pixels they come from."""

    precision: float
    recall: float
    f1: float
    iou: float
    tp: int
    fp: int
    fn: int


def threshold_code(threshold: float) -> int:
    """Lowest code whose value is >= `threshold`, compared in float64; CODES where there is none.

    Comparing arrays directly would round the threshold to float16 first, and 0.7 is no float16.
    Raises DataError for a threshold that is not in [0,1].
    """
    if not 0 <= threshold <= 1:
        raise DataError(f"the threshold must be in [0, 1], got {threshold}")
    return int(np.searchsorted(CODE_VALUES, float(threshold), side="left"))


def predicted(probs: np.ndarray, threshold: float) -> np.ndarray:
    """Where float16 `probs` of any shape are >= `threshold` (float64), as bool of that shape."""
    return np.asarray(_codes(probs) >= threshold_code(threshold))


def code_counts(probs: np.ndarray, target: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Count the valid pixels of each class and value: (2, CODES) int64, row 0 background, row 1 landslide.

    `probs` float16 in [0,1], `target` {0, 1} and `valid` bool have one shape. Raises DataError otherwise.
    """
    _refuse_misfits(probs, target, valid)
    codes, target = _codes(probs)[valid], target[valid]
    return np.stack([np.bincount(codes[target == label], minlength=CODES) for label in (0, 1)]).astype(np.int64)


def pooled_scores(tp: int, fp: int, fn: int) -> Scores:
    """Precision, recall, F1 and IoU of pooled counts; 0 where there is nothing to divide by."""
    precision, recall = tp / (tp + fp + EPSILON), tp / (tp + fn + EPSILON)
    f1 = 2 * precision * recall / (precision + recall + EPSILON)
    return Scores(precision, recall, f1, tp / (tp + fp + fn + EPSILON), tp, fp, fn)


def mean_iou_of(tp: int, fp: int, fn: int, pixels: int) -> float:
    """Mean of the IoU of landslide and that of background, of pooled counts; an IoU of nothing is 0."""
    tn = pixels - tp - fp - fn
    return (tp / (tp + fp + fn + EPSILON) + tn / (tn + fp + fn + EPSILON)) / 2


def accuracy_of(tp: int, fp: int, fn: int, pixels: int) -> float:
    """Share of the pixels (or patches) that are answered rightly; 0 where there is none."""
    return (pixels - fp - fn) / max(pixels, 1)


def scores_at(counts: np.ndarray, threshold: float) -> Scores:
    """Scores where value >= `threshold` (compared in float64) is called landslide."""
    first = threshold_code(threshold)
    fp, tp = (int(part) for part in counts[:, first:].sum(axis=1))
    return pooled_scores(tp, fp, int(counts[1, :first].sum()))


def f1_curve(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every threshold that a float16 value can be, rising, and the F1 there: two (CODES,) float64."""
    tp, positive = _above(counts)
    return CODE_VALUES.copy(), _f1(tp, positive - tp, counts[1].sum() - tp)


def best_threshold(counts: np.ndarray) -> tuple[float, float]:
    """Threshold of the highest F1, the largest of equals, and that F1. Chosen with the labels: an oracle, say so."""
    thresholds, f1 = f1_curve(counts)
    best = CODES - 1 - int(np.argmax(f1[::-1]))
    return float(thresholds[best]), float(f1[best])


def best_mean_iou(counts: np.ndarray) -> float:
    """Threshold of the highest mean IoU, the largest of equals: an oracle, as `best_threshold` is for F1."""
    tp, positive = _above(counts)
    fp, fn = positive - tp, counts[1].sum() - tp
    tn = counts[0].sum() - fp
    mean = tp / (tp + fp + fn + EPSILON) + tn / (tn + fp + fn + EPSILON)
    return float(CODE_VALUES[CODES - 1 - int(np.argmax(mean[::-1]))])


def average_precision(counts: np.ndarray) -> float:
    """Sum of precision times the step of recall over falling thresholds; 0 where no pixel is landslide."""
    total = int(counts[1].sum())
    if total == 0:
        return 0.0
    tp, positive = _above(counts)
    return float((counts[1] * (tp / np.maximum(positive, 1))).sum() / total)


def cross_entropy(counts: np.ndarray) -> float:
    """Mean cross entropy in nats; 0 where none was counted.

    Stored values of 0 and 1 stand for all that was rounded to them, and count as half a step of float16 away.
    """
    values = np.clip(CODE_VALUES, CODE_VALUES[1] / 2, 1 - (1 - CODE_VALUES[-2]) / 2)
    background, landslide = counts
    total = -(background * np.log1p(-values) + landslide * np.log(values)).sum()
    return float(total / max(int(counts.sum()), 1))


def auroc(counts: np.ndarray) -> float | None:
    """Probability that a landslide pixel has a higher value than one of the background, ties half; None without both.

    Below 0.5 the values are inverted: background is higher. Nobody turns them round.
    """
    background, landslide = counts.astype(np.float64)
    pairs = background.sum() * landslide.sum()
    below = np.cumsum(background) - background
    return float((landslide * (below + background / 2)).sum() / pairs) if pairs else None


def positive_share(counts: np.ndarray) -> float:
    """Share of the counted pixels that are landslide, in [0,1]; 0 where none was counted."""
    return float(counts[1].sum() / max(int(counts.sum()), 1))


def expected_calibration_error(counts: np.ndarray, bins: int = 15) -> float:
    """Mean over pixels of |mean value - share of landslide| of their bin, in [0,1]; 0 where none was counted.

    `bins` bins of equal width, closed below; the last holds 1.0 too (Guo et al. 2017, with bins closed above).
    """
    index = np.minimum((CODE_VALUES * bins).astype(np.int64), bins - 1)
    expected = np.bincount(index, weights=counts.sum(axis=0) * CODE_VALUES, minlength=bins)
    observed = np.bincount(index, weights=counts[1], minlength=bins)
    return float(np.abs(expected - observed).sum() / max(int(counts.sum()), 1))


def patch_counts(probs: np.ndarray, target: np.ndarray, valid: np.ndarray, threshold: float) -> np.ndarray:
    """True positives, false positives and false negatives of each patch, (N, 3) int64.

    `probs` (N, ...) float16 in [0,1], `target` {0, 1} and `valid` bool have one shape. Raises DataError otherwise.
    """
    return mask_counts(predicted(probs, threshold), target, valid)


def mask_counts(pred: np.ndarray, target: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """As `patch_counts`, for `pred` (N, ...) that is already {0, 1}."""
    _refuse_misfits(pred, target, valid)
    pred, truth = (pred == 1) & valid, (target == 1) & valid
    kinds = (pred & truth, pred & ~truth, ~pred & truth)
    return np.stack([kind.reshape(len(pred), -1).sum(axis=1, dtype=np.int64) for kind in kinds], axis=1)


def bootstrap_f1(patch_counts: np.ndarray, seed: int, draws: int = 1000, level: float = 0.95) -> tuple[float, float]:
    """Percentile interval of the pooled F1 when the patches, (N, 3) counts, are drawn again with replacement.

    Neighbouring patches resemble each other, so the true uncertainty about a new region is larger.
    """
    low, high = np.quantile(_resampled_f1(patch_counts[None], seed, draws)[0], _tails(level))
    return float(low), float(high)


def paired_bootstrap(
    counts_a: np.ndarray, counts_b: np.ndarray, seed: int, draws: int = 1000, level: float = 0.95
) -> tuple[float, float, float]:
    """Pooled F1 of a minus that of b, and its percentile interval over the same redrawn patches.

    Both are (N, 3) counts of the same patches in the same order. Raises DataError where their sizes differ.
    """
    if counts_a.shape != counts_b.shape:
        raise DataError(f"a paired comparison needs the same patches, got {counts_a.shape} and {counts_b.shape}")
    both = np.stack([counts_a, counts_b])
    a, b = _resampled_f1(both, seed, draws)
    low, high = np.quantile(a - b, _tails(level))
    pooled = _f1(*both.sum(axis=1).T)
    return float(pooled[0] - pooled[1]), float(low), float(high)


def _codes(probs: np.ndarray) -> np.ndarray:
    if probs.dtype != np.float16:
        raise DataError(f"scores are counted over float16 values as stored, got {probs.dtype}")
    codes = probs.view(np.uint16)
    if codes.size and int(codes.max()) >= CODES:  # NaN, infinity and all negative numbers have higher codes
        raise DataError(f"values must be in [0, 1], got {probs[codes >= CODES].flat[0]}")
    return codes


def _refuse_misfits(values: np.ndarray, target: np.ndarray, valid: np.ndarray) -> None:
    if not values.shape == target.shape == valid.shape:
        raise DataError(f"values {values.shape}, target {target.shape} and valid {valid.shape} must have one shape")
    if target.dtype != np.uint8 or valid.dtype != np.bool_:
        raise DataError(f"target must be uint8 and valid bool, got {target.dtype} and {valid.dtype}")
    if (wrong := target[valid & (target > 1)]).size:
        raise DataError(f"targets must be 0 or 1 where they are valid, got {wrong[0]}")


def _above(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Landslide pixels, and all pixels, whose code is at least each code: two (CODES,) int64."""
    tp = np.cumsum(counts[1, ::-1])[::-1]
    return tp, tp + np.cumsum(counts[0, ::-1])[::-1]


def _f1(tp: np.ndarray, fp: np.ndarray, fn: np.ndarray) -> np.ndarray:
    precision, recall = tp / (tp + fp + EPSILON), tp / (tp + fn + EPSILON)
    return np.asarray(2 * precision * recall / (precision + recall + EPSILON))


def _resampled_f1(counts: np.ndarray, seed: int, draws: int) -> np.ndarray:
    """Pooled F1 of K systems over the same redrawn patches: (K, N, 3) -> (K, draws)."""
    rng, patches = np.random.default_rng(seed), counts.shape[1]
    sums = np.empty((3, len(counts), draws))
    for draw in range(draws):
        times = np.bincount(rng.integers(patches, size=patches), minlength=patches)
        sums[:, :, draw] = np.einsum("n,knc->ck", times, counts)
    return _f1(*sums)


def _tails(level: float) -> tuple[float, float]:
    return (1 - level) / 2, (1 + level) / 2
