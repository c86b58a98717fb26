"""How far off the number of landslide pixels of a patch is, wherever they lie (Böhm 2022, equation 1)."""

from collections.abc import Iterable

import numpy as np

from l4s.data.patch import IGNORED
from l4s.errors import DataError

PARTS = ("all", "empty", "landslide")
FIGURES = ("median", "mean", "median_size", "mean_size")  # of the errors, and of their sizes


def count_errors(values: Iterable[np.ndarray], masks: Iterable[np.ndarray], threshold: float | None) -> np.ndarray:
    """Predicted minus true landslide pixels of each patch, over its valid pixels: (N,) float64.

    Args:
        values: (H, W) in [0, 1] of each patch.
        masks: (H, W) uint8 {0, 1, 255 = ignored} of each patch.
        threshold: pixels at or above it are predicted landslide; None: the sum of the probabilities, as in the paper's
            released code.

    Raises:
        DataError: the sizes of a patch differ.
    """
    errors = []
    for number, (value, mask) in enumerate(zip(values, masks, strict=True)):
        if value.shape != mask.shape:
            raise DataError(f"patch {number}: the prediction is {value.shape}, the truth {mask.shape}")
        valid = mask != IGNORED
        found = value.astype(np.float64) if threshold is None else value.astype(np.float64) >= threshold
        errors.append(float(found[valid].sum()) - np.count_nonzero(mask == 1))
    return np.array(errors, np.float64)


def split_patches(masks: Iterable[np.ndarray]) -> dict[str, np.ndarray]:
    """Which patches there are by name of `PARTS`: (N,) bool each; a patch is empty where no valid pixel is landslide.

    One without a valid pixel is in no part: no count of it can be wrong.
    """
    found = [(bool((mask != IGNORED).any()), bool((mask == 1).any())) for mask in masks]
    known, landslide = np.array(found, bool).reshape(-1, 2).T
    return {"all": known, "empty": known & ~landslide, "landslide": landslide}


def summary(errors: np.ndarray) -> dict[str, float | None]:
    """Median and mean of the errors and of their sizes; the paper shows medians. All None where there is no patch."""
    if not len(errors):
        return dict.fromkeys(FIGURES)
    size = np.abs(errors)
    return dict(zip(FIGURES, map(float, (np.median(errors), errors.mean(), np.median(size), size.mean())), strict=True))


def standard_error(values: np.ndarray) -> float | None:
    """Standard error of the mean of runs that differ in their seed: sd (n - 1) / sqrt(n); None for one run."""
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None


def sd_over_n(values: np.ndarray) -> float | None:
    """Standard deviation over n in place of its root, which is too short for an error bar; None for one run.

    The released code divides like that, but over the scores of all checkpoints of all seeds. Here
    checkpoints are averaged before they are scored, so that this is over seeds and no number of the paper's.
    """
    return float(values.std() / len(values)) if len(values) > 1 else None


def paired_mean(a: np.ndarray, b: np.ndarray, seed: int, draws: int = 1000, level: float = 0.95) -> dict[str, float]:
    """Mean of a minus that of b over the same patches, and its percentile interval when these are drawn again.

    Raises:
        DataError: there are not equally many, or none.
    """
    if a.shape != b.shape or not len(a):
        raise DataError(f"a paired comparison needs the same patches, got {a.shape} and {b.shape}")
    difference = a - b
    rng = np.random.default_rng(seed)
    means = [difference[rng.integers(len(a), size=len(a))].mean() for _ in range(draws)]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return {"difference": float(difference.mean()), "low": float(low), "high": float(high)}
