"""One answer a patch: a classifier of timm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from l4s.data.bands import Bands
from l4s.errors import RecipeError, did_you_mean
from l4s.models.sizes import sized

if TYPE_CHECKING:
    from torch import nn


def patch_classifier(bands: Bands, *, size: int, encoder: str = "resnet50", weights: str = "none") -> nn.Module:
    """Build a classifier with one logit a patch, (B, 1): ResNet-50 as in Kimura 2019, or any encoder of timm.

    Args:
        bands: any number of bands.
        size: side of the training images in pixels; Swin encoders are built for it, others must take it.
        encoder: a name of timm.
        weights: "none", "imagenet" (downloaded), "package" (installed) or a safetensors file, see `l4s.models.weights`.

    Raises:
        RecipeError: an encoder that does not exist, or that takes no images of this size.
        DataError: weights that cannot be had or do not fit.
    """
    import timm

    from l4s.models.patch import PatchClassifier
    from l4s.models.weights import load_weights

    if not timm.is_model(encoder):
        raise RecipeError(f"model.encoder = {encoder!r} is no model of timm{did_you_mean(encoder, timm.list_models())}")
    fitted = sized(encoder, size)
    options: dict[str, Any] = {"num_classes": 0, **fitted}
    backbone: Any = timm.create_model(encoder, in_chans=len(bands.names), **options)
    network = PatchClassifier(backbone, backbone.head_hidden_size, 32 if fitted else 1)
    _try(network, encoder, len(bands.names), size)
    load_weights(
        network, weights, bands, encoder=encoder, hub=lambda: timm.create_model(encoder, pretrained=True, **options)
    )
    return network


def _try(network: nn.Module, encoder: str, channels: int, size: int) -> None:
    """Encoders of timm may be built for one size, and say so when they meet another."""
    import torch

    was = network.training
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(1, channels, size, size))
    except (AssertionError, RuntimeError) as error:
        raise RecipeError(
            f"model.encoder = {encoder!r} takes no images of {size} pixels (model.size): {error}"
        ) from error
    finally:
        network.train(was)
