"""From probabilities to masks: a threshold, and optionally a least size of a landslide."""

from collections.abc import Iterator

import numpy as np
from scipy import ndimage

from l4s.data.probs import ProbFile
from l4s.errors import DataError, RecipeError

EIGHT_NEIGHBOURS = np.ones((3, 3), dtype=bool)


def to_mask(probs: np.ndarray, threshold: float, min_area: int = 0) -> np.ndarray:
    """Mark the pixels with p >= threshold, then drop the 8-connected components of fewer than `min_area` pixels.

    `probs` (H, W) float16 in [0, 1]; `threshold` in (0, 1); `min_area` in pixels, 0 keeps every component.
    Returns the mask (H, W) uint8 in {0, 1}.

    Raises RecipeError for a threshold or an area that cannot mean anything, DataError when `probs` is not one patch.
    """
    _check_options(threshold, min_area)
    if probs.ndim != 2:
        raise DataError(
            f"masks are cut from (H, W) probabilities, not from shape {probs.shape}: "
            "one value a patch, or a stack of patches, has no mask"
        )
    # float64 on both sides: numpy would round the threshold to float16 first, and 0.1 then accepts 0.09998.
    positive = probs.astype(np.float64) >= np.float64(threshold)
    return _drop_small(positive, min_area).astype(np.uint8)


def masks(probs: ProbFile, threshold: float, min_area: int = 0) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (id, mask (H, W) uint8 in {0, 1}) for every patch of a ProbFile of either kind, in the file's order.

    Raises RecipeError at the call, not at the first patch, for options that cannot mean anything.
    """
    _check_options(threshold, min_area)
    return ((id, to_mask(patch, threshold, min_area)) for id, patch in zip(probs.ids, probs.patches(), strict=True))


def _check_options(threshold: float, min_area: int) -> None:
    if not 0 < threshold < 1:
        raise RecipeError(f"threshold is {threshold}: take a number above 0 and below 1")
    if min_area < 0:
        raise RecipeError(f"min_area is {min_area} pixels: take 0 to keep every component, or more")


def _drop_small(positive: np.ndarray, min_area: int) -> np.ndarray:
    """Keep the components of the (H, W) bool array that hold at least `min_area` pixels."""
    if min_area == 0:
        return positive
    labels, _ = ndimage.label(positive, structure=EIGHT_NEIGHBOURS)
    keep = np.bincount(labels.ravel()) >= min_area
    keep[0] = False  # label 0 is the background
    return np.asarray(keep[labels], dtype=bool)
