"""The organisers' U-Net, the baseline of the Landslide4Sense competition."""

from __future__ import annotations

from typing import TYPE_CHECKING

from l4s.data.bands import Bands
from l4s.errors import RecipeError

if TYPE_CHECKING:
    from torch import nn


def baseline(bands: Bands, *, size: int, width: int = 64) -> nn.Module:
    """Build the competition's baseline (Ghorbanzadeh et al. 2022): a U-Net of widths 64-128-256-512-512, upsampled bilinearly.

    It differs from the organisers' in the last layer only: one landslide logit instead of two classes under a softmax.

    Args:
        bands: any number of bands (the competition's 14).
        size: side of the training images in pixels; the architecture does not depend on it.
        width: of the first level; the others follow as 2, 4, 8 and 8 times this. Even.

    Raises:
        RecipeError: a width that is odd or not positive.
    """
    from l4s.models.networks import BaselineUNet

    if width < 2 or width % 2:
        raise RecipeError(f"model.width = {width}: give an even number, 2 or more (64 in the competition)")
    return BaselineUNet(len(bands.names), width)
