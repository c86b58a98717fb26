"""Segmentation models on the encoders of segmentation-models-pytorch (SMP) and timm, for any bands."""

from collections.abc import Mapping
from difflib import get_close_matches
from functools import partial
from typing import Any

import segmentation_models_pytorch as smp
import timm
from segmentation_models_pytorch.base.initialization import initialize_decoder
from segmentation_models_pytorch.encoders import encoders as smp_encoders
from segmentation_models_pytorch.encoders import get_encoder
from torch import nn

from l4s.data.bands import Bands
from l4s.errors import RecipeError
from l4s.models.networks import EncoderDecoder, double_conv
from l4s.models.sizes import TIMM, sized
from l4s.models.timm_state import timm_state
from l4s.models.weights import load_weights


def encoder_name(name: str) -> str:
    """Give the name SMP knows an encoder by: its own, or timm's with the prefix `tu-`.

    Raises:
        RecipeError: neither has it; the message lists the closest names.
    """
    if name in smp_encoders:
        return name
    bare = name.removeprefix(TIMM)
    if timm.is_model(bare):
        return TIMM + bare
    near = get_close_matches(bare, [*smp_encoders, *timm.list_models()], n=5)
    close = f"close to it are {', '.join(near)}" if near else "see timm.list_models() for the names"
    raise RecipeError(
        f"model.encoder = {name!r} is an encoder of neither segmentation-models-pytorch nor timm; {close}"
    )


def build_segmenter(
    architecture: str,
    encoder: str,
    bands: Bands,
    *,
    size: int,
    depth: int,
    weights: str,
    options: Mapping[str, Any],
    detail: int = 0,
) -> EncoderDecoder:
    """Build an SMP architecture for these bands, with pretrained weights where asked for.

    `detail` is the width of what the last stage of a U-Net's decoder receives of the image itself, see `unet`.

    Raises:
        RecipeError: an encoder that does not exist or does not fit the architecture.
        DataError: weights that cannot be had or do not fit.
    """
    name = encoder_name(encoder)
    fitted = sized(name, size)
    build = getattr(smp, architecture)
    try:
        model = build(
            encoder_name=name,
            encoder_depth=depth,
            encoder_weights=None,
            in_channels=len(bands.names),
            classes=1,
            **options,
            **fitted,
        )
    except (ValueError, KeyError, RuntimeError, TypeError) as error:  # how SMP and timm refuse, for example, plain ViTs
        raise RecipeError(
            f"model.encoder = {encoder!r} cannot feed {architecture} at depth {depth}: {error}"
        ) from error
    stem = _detail(model.decoder.blocks, len(bands.names), detail) if detail else None
    network = EncoderDecoder(model.encoder, model.decoder, model.segmentation_head, model.encoder.output_stride, stem)

    def hub() -> nn.Module:
        source = True if name.startswith(TIMM) else "imagenet"
        pretrained: nn.Module = get_encoder(name, in_channels=3, depth=depth, weights=source, **fitted)
        return pretrained

    convert = partial(timm_state, encoder=model.encoder)
    load_weights(network, weights, bands, encoder=name.removeprefix(TIMM), hub=hub, convert=convert)
    return network


def _detail(blocks: Any, channels: int, width: int) -> nn.Module:
    """Two convolutions of the image at its full size, for which the last of a decoder's stages, in place, gets room."""
    below, last = (block.conv2[0].out_channels for block in blocks[-2:])
    blocks[-1] = type(blocks[-1])(below, width, last)
    initialize_decoder(blocks[-1])
    return double_conv(channels, width, width)
