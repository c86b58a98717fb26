"""The models by name. A new one is a file with a builder and a line in `MODELS`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from l4s.data.bands import Bands
from l4s.errors import RecipeError, did_you_mean, refusals
from l4s.models.anomaly import anomaly_unet, brightness, local_std, ndvi
from l4s.models.baseline import baseline
from l4s.models.classifier import patch_classifier
from l4s.models.contract import Output
from l4s.models.deeplab import deeplabv3plus
from l4s.models.fusion import fusion
from l4s.models.hrnet_ocr import hrnet_ocr
from l4s.models.pair_cnn import pair_cnn
from l4s.models.segformer import segformer
from l4s.models.segformer_hf import segformer_hf
from l4s.models.siamese import siamese
from l4s.models.unet import unet

if TYPE_CHECKING:
    from torch import nn

__all__ = ["ANSWERS", "MODELS", "Output", "build_model", "check_options"]

# Builders import torch, timm and SMP inside, so that a recipe is checked before those seconds are spent.
MODELS: dict[str, Callable[..., nn.Module]] = {
    "unet": unet,
    "segformer": segformer,
    "segformer_hf": segformer_hf,
    "hrnet_ocr": hrnet_ocr,
    "baseline": baseline,
    "deeplabv3plus": deeplabv3plus,
    "fusion": fusion,
    "patch_classifier": patch_classifier,
    "siamese": siamese,
    "pair_cnn": pair_cnn,
    "anomaly_unet": anomaly_unet,
    "local_std": local_std,
    "brightness": brightness,
    "ndvi": ndvi,
}
"""Each builder is `(bands, *, size, **options) -> model`, and `model(image)` returns `Output`."""

ANSWERS = {
    "patch_classifier": "classify",
    "siamese": "classify",
    "anomaly_unet": "anomaly",
    "local_std": "score",
    "brightness": "score",
    "ndvi": "score",
}
"""The task of each model that is not for "segment"."""


def check_options(name: str, options: Mapping[str, Any]) -> None:
    """Bind a recipe's options to the builder's signature, without building anything.

    Raises:
        RecipeError: an unknown model, an unknown option, or a required one left out.
    """
    if name not in MODELS:
        raise RecipeError(f"model.name = {name!r} is not a model{did_you_mean(name, MODELS)}")
    parameters = inspect.signature(MODELS[name]).parameters.values()
    own = {each.name: each for each in parameters if each.kind is each.KEYWORD_ONLY and each.name != "size"}
    for option in options:
        if option not in own:
            raise RecipeError(f"model.{option} is not an option of model {name!r}{did_you_mean(option, own)}")
    for option, parameter in own.items():
        if parameter.default is parameter.empty and option not in options:
            raise RecipeError(f"model.{option} is missing: model {name!r} cannot be built without it")


def build_model(name: str, bands: Bands, *, size: int, seed: int, options: Mapping[str, Any]) -> nn.Module:
    """Build a model on the CPU; equal seeds give equal weights, and the caller's random state stays as it is.

    Args:
        name: a key of `MODELS`.
        bands: the bands of the images, in the order the model receives them.
        size: side in pixels of the (promoted, cropped) training images. Others are accepted; models whose windows
            depend on the size, such as Swin, are built for this one.
        seed: of the initialisation.
        options: keyword options of the builder.

    Raises:
        RecipeError: options the builder does not have or cannot use.
        DataError: pretrained weights that are missing or do not fit.
    """
    import torch

    check_options(name, options)
    with torch.random.fork_rng(devices=[]):  # torch.manual_seed would also reseed every GPU, which is not forked
        torch.default_generator.manual_seed(seed)
        with refusals(f"model {name!r}", options):
            return MODELS[name](bands, size=size, **options)
