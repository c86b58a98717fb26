"""Several encoders, one for each group of bands, fused for one decoder (Lissak & Corpetti 2024, 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from l4s.data.bands import Bands
from l4s.errors import RecipeError, did_you_mean

if TYPE_CHECKING:
    from torch import nn

OWN = ("residual", "plain")
ENCODERS = (*OWN, "vgg16_bn")
FUSE = ("concat", "sum")
LEVELS = 5


def fusion(
    bands: Bands,
    *,
    size: int,
    encoder: str | Mapping[str, str] = "residual",
    groups: Sequence[str] = (),
    width: int = 32,
    fuse: str = "concat",
    attention: bool = True,
    weights: str = "none",
) -> nn.Module:
    """Build the fusion network: an encoder for each band group, fused in the latent space, one decoder with attention.

    Skip connections are the sum of the groups' features, as the paper says; the attention is ours, it names none: the
    additive gate of Oktay 2018, on each summed skip. With one group it is a U-Net with gates, for ablations.
    Extras: `attention` (B, 4, H, W) in [0, 1], the gates' maps, the finest first, where there are gates; `feature`
    (B, width, H, W), what the head sees.

    Args:
        bands: their `groups`, such as `rgb = ["r", "g", "b"]` and `dem = ["dem"]`, say which encoder sees what.
        size: not read; images of any size are accepted.
        encoder: "residual" (two convolutions and a shortcut), "plain" (two convolutions, U-Net) or "vgg16_bn", for all
            groups or by group: `{ rgb = "vgg16_bn", dem = "residual" }`. The decoder is plain where all encoders are.
        groups: the band groups to use; all of the recipe's where left out. Their order changes nothing.
        width: channels of the first of five levels; each level below has twice as many. VGG's features are brought to
            these widths by 1 x 1 convolutions.
        fuse: "concat" with a 1 x 1 convolution, or "sum".
        attention: gates on the skip connections.
        weights: "none", "imagenet" (downloaded) or a safetensors file, for "vgg16_bn" only, see `l4s.models.weights`.

    Raises:
        RecipeError: a band group that the recipe does not have, an unknown encoder, or options that have no effect.
        DataError: weights that cannot be had or do not fit.
    """
    from l4s.models.fused import Fused, Stack
    from l4s.models.vgg import vgg

    chosen = _groups(bands, groups)
    kinds = _encoders(encoder, chosen)
    if fuse not in FUSE:
        raise RecipeError(f"model.fuse = {fuse!r}{did_you_mean(fuse, FUSE)}")
    if fuse != "concat" and len(chosen) == 1:
        raise RecipeError(f"model.fuse = {fuse!r} has no effect with one band group: leave it out")
    if width < 1:
        raise RecipeError(f"model.width = {width} must be positive")
    if weights != "none" and "vgg16_bn" not in kinds.values():
        raise RecipeError(f"model.weights = {weights!r} is for encoder 'vgg16_bn': the others are trained from scratch")
    widths = [width * 2**level for level in range(LEVELS)]
    encoders: dict[str, nn.Module] = {}
    for group, members in chosen.items():
        if kinds[group] == "vgg16_bn":
            own = Bands(file=members, terrain=bands.terrain, rgb=bands.rgb)
            encoders[group] = vgg(own, widths, weights)
        else:
            encoders[group] = Stack(len(members), widths, residual=kinds[group] == "residual")
    places = {group: [bands.names.index(name) for name in members] for group, members in chosen.items()}
    residual = set(kinds.values()) != {"plain"}
    return Fused(encoders, places, widths, residual=residual, concat=fuse == "concat", attention=attention)


def _groups(bands: Bands, wanted: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The bands of each group that is used."""
    if not bands.groups:
        raise RecipeError(
            "model 'fusion' has an encoder for each band group, and the recipe has none: set bands.groups, such as "
            "{ rgb = ['r', 'g', 'b'], dem = ['dem'] }"
        )
    if unknown := [group for group in wanted if group not in bands.groups]:
        raise RecipeError(f"model.groups names {unknown[0]!r}{did_you_mean(unknown[0], bands.groups)}")
    chosen = {group: bands.groups[group] for group in wanted or bands.groups}
    seen = {name for members in chosen.values() for name in members}
    if not wanted and (idle := [name for name in bands.names if name not in seen]):
        raise RecipeError(
            f"band {idle[0]!r} is in none of bands.groups, and no encoder would see it: leave it out of bands.use"
        )
    for group, members in chosen.items():
        if missing := [name for name in members if name not in bands.names]:
            raise RecipeError(
                f"band group {group!r} needs {missing[0]!r}, which is not one of bands.use ({', '.join(bands.names)}): "
                "add it there, or leave the group out of model.groups"
            )
    return dict(
        sorted(chosen.items())
    )  # the order of a mapping is in no fingerprint, so the network must not depend on it


def _encoders(encoder: str | Mapping[str, str], groups: Mapping[str, object]) -> dict[str, str]:
    """The encoder of each group."""
    kinds = dict.fromkeys(groups, encoder) if isinstance(encoder, str) else dict(encoder)
    if kinds.keys() != groups.keys():
        raise RecipeError(f"model.encoder names {', '.join(kinds)}: name each of {', '.join(groups)}, or one for all")
    for kind in kinds.values():
        if kind not in ENCODERS:
            raise RecipeError(f"model.encoder = {kind!r} is not one of fusion{did_you_mean(kind, ENCODERS)}")
    return kinds
