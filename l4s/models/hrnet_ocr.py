"""HRNet with object-contextual representations (Yuan 2020) on timm's HRNets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from l4s.data.bands import Bands
from l4s.errors import RecipeError, did_you_mean

if TYPE_CHECKING:
    from torch import nn

FEATURES: dict[str, Any] = {"features_only": True, "feature_location": "", "out_indices": (1, 2, 3, 4)}
"""The four branches at 1/4 to 1/32 as HRNet's segmentation uses them, before timm widens them for its classifier."""


def hrnet_ocr(
    bands: Bands, *, size: int, encoder: str = "hrnet_w18", width: int = 256, weights: str = "none"
) -> nn.Module:
    """Build HRNet-OCR with one logit a pixel; logits are computed at a quarter of the size and upsampled.

    `extras["aux"]` holds the auxiliary head's logits `(B, 1, H, W)`, which draw the object regions. The paper trains
    them too, at weight 0.4; they learn a little without, through the regions.

    Args:
        bands: any number of bands.
        size: side of the training images in pixels; the architecture does not depend on it.
        encoder: a HRNet of timm, such as `hrnet_w18` or `hrnet_w48`.
        width: of the pixel representations; keys, queries and values have half of it. The paper has 512 (and 256) on
            W48; on W18 these would outweigh the encoder, and half is our choice. Even.
        weights: "none", "imagenet" (downloaded) or a safetensors file, see `l4s.models.weights`.

    Raises:
        RecipeError: an encoder that is not a HRNet, or an unusable width.
        DataError: weights that cannot be had or do not fit.
    """
    import timm

    from l4s.models.ocr import HRNetOCR
    from l4s.models.weights import load_weights

    known = timm.list_models("hrnet*")
    if encoder not in known:
        raise RecipeError(f"model.encoder = {encoder!r} is not a HRNet of timm{did_you_mean(encoder, known)}")
    if width < 2 or width % 2:
        raise RecipeError(f"model.width = {width}: give an even number, 2 or more (512 in the paper)")
    backbone: Any = timm.create_model(encoder, in_chans=len(bands.names), **FEATURES)
    network = HRNetOCR(backbone, backbone.feature_info.channels(), width)
    load_weights(
        network, weights, bands, encoder=encoder, hub=lambda: timm.create_model(encoder, pretrained=True, **FEATURES)
    )
    return network
