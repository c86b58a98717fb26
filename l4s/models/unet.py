"""U-Net on any encoder of segmentation-models-pytorch or timm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from l4s.data.bands import Bands
from l4s.errors import RecipeError

if TYPE_CHECKING:
    from torch import nn


def unet(
    bands: Bands,
    *,
    size: int,
    encoder: str = "resnet34",
    decoder: Sequence[int] = (256, 128, 64, 32, 16),
    detail: int = 0,
    weights: str = "none",
) -> nn.Module:
    """Build a U-Net with one logit a pixel (Ronneberger 2015; decoder as in SMP, widths its defaults).

    Encoders whose first feature has a quarter of the size, such as Swin, leave the decoder's last two stages without a
    skip connection: SMP fills the level between by a feature of no channels, and these stages upsample and convolve. After
    scale promotion by 4 that first feature has one position for each native pixel; without promotion, `detail` shows
    the last stage the image (not measured).

    Args:
        bands: any number of bands.
        size: side of the training images in pixels; Swin encoders are built for it, others ignore it.
        encoder: a name of SMP or of timm.
        decoder: width of each decoder stage, deepest first; their number is the depth of the encoder.
        detail: width of two 3 x 3 convolutions of the image at full size, joined to the decoder's last stage; 0 for
            none, as SMP has it.
        weights: "none", "imagenet" (downloaded), "package" (installed) or a safetensors file, see `l4s.models.weights`.

    Raises:
        RecipeError: an encoder that does not exist or cannot feed a U-Net, or unusable widths.
        DataError: weights that cannot be had or do not fit.
    """
    from l4s.models.encoders import build_segmenter

    if not 3 <= len(decoder) <= 5 or min(decoder) < 1:
        raise RecipeError(f"model.decoder = {list(decoder)}: give 3 to 5 positive widths, deepest first")
    if detail < 0:
        raise RecipeError(f"model.detail = {detail}: give a width, or 0 for none")
    options = {"decoder_channels": tuple(decoder)}
    return build_segmenter(
        "Unet", encoder, bands, size=size, depth=len(decoder), weights=weights, options=options, detail=detail
    )
