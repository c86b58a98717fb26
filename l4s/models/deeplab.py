"""DeepLabv3+ (Chen 2018) on any encoder of segmentation-models-pytorch or timm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from l4s.data.bands import Bands
from l4s.errors import RecipeError

if TYPE_CHECKING:
    from torch import nn

STRIDES = (8, 16)


def deeplabv3plus(
    bands: Bands,
    *,
    size: int,
    encoder: str = "resnet50",
    stride: int = 16,
    rates: Sequence[int] = (6, 12, 18),
    width: int = 256,
    weights: str = "none",
) -> nn.Module:
    """Build a DeepLabv3+ with one logit a pixel; logits are computed at a quarter of the size and upsampled.

    Kimura 2019 names the method alone. ResNet-50 or 101, an output stride of 16 and rates of 6, 12 and 18 are the usual
    ones of Chen 2018; features of low level have 48 channels there and here. Two patches or more make a training batch.

    Args:
        bands: any number of bands.
        size: side of the training images in pixels; the architecture does not depend on it.
        encoder: a name of SMP or of timm that can be dilated.
        stride: of the deepest features, 8 or 16.
        rates: of the three atrous convolutions.
        width: of the atrous pyramid and the decoder.
        weights: "none", "imagenet" (downloaded), "package" (installed) or a safetensors file, see `l4s.models.weights`.

    Raises:
        RecipeError: an encoder that does not exist or cannot be dilated, or unusable values.
        DataError: weights that cannot be had or do not fit.
    """
    from l4s.models.encoders import build_segmenter

    if stride not in STRIDES:
        raise RecipeError(f"model.stride = {stride}: give 8 or 16")
    if len(rates) != 3 or min(rates) < 1:
        raise RecipeError(f"model.rates = {list(rates)}: give three positive rates (6, 12, 18)")
    if width < 1:
        raise RecipeError(f"model.width = {width}: give a positive width (256 is usual)")
    options = {
        "encoder_output_stride": stride,
        "decoder_atrous_rates": tuple(rates),
        "decoder_channels": width,
    }
    return build_segmenter("DeepLabV3Plus", encoder, bands, size=size, depth=5, weights=weights, options=options)
