"""One label for a whole patch, from its mask."""

import numpy as np

IGNORED = 255


def patch_label(mask: np.ndarray, positive_share: float) -> np.ndarray:
    """Is a patch one of a landslide? Kimura 2019 does not say from how many pixels on: the share is our choice.

    Args:
        mask: (H, W) uint8 in {0, 1, 255 = ignored}.
        positive_share: of the valid pixels; from here on the label is 1. At 0 any landslide pixel makes it 1.

    Returns:
        () uint8: 0 or 1, or 255 where no pixel is valid.
    """
    valid, landslide = np.count_nonzero(mask != IGNORED), np.count_nonzero(mask == 1)
    if not valid:
        return np.array(IGNORED, np.uint8)
    return np.array(landslide > 0 and landslide >= positive_share * valid, np.uint8)


def patch_labels(masks: np.ndarray, positive_share: float) -> np.ndarray:
    """`patch_label` of each of (N, H, W) masks, read one by one: (N,) uint8."""
    return np.array([patch_label(mask, positive_share) for mask in masks], np.uint8)
