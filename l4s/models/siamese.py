"""Does a pair of images, before and after, hold a landslide? The first stage of Böhm et al. 2022 (3, Figure 1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from l4s.data.bands import Bands
from l4s.errors import RecipeError, did_you_mean

if TYPE_CHECKING:
    from torch import nn

    from l4s.models.pairs import Embedding

HEADS = ("fc", "mean", "topk")
JOINS = ("concat", "symmetric")
PAIR = ("pre", "post")
CNN = "cnn"
DECODER = (256, 128, 64, 32, 16)
HIDDEN, DROPOUT = 8, 0.8


def siamese(
    bands: Bands,
    *,
    size: int,
    encoder: str = "resnet34",
    decoder: Sequence[int] = DECODER,
    embedding: int = 32,
    join: str = "concat",
    head: str = "fc",
    kernel: int = 8,
    hidden: int = HIDDEN,
    dropout: float = DROPOUT,
) -> nn.Module:
    """Build the siamese network: a U-Net for both images, their embeddings joined, one logit a patch.

    Its `embedding` in extras is (B, 2 `embedding`, H, W), or 4 `embedding` where joined symmetrically.

    Args:
        bands: their `groups` `pre` and `post`, such as `pre = ["vv_pre", "vh_pre"]`, equally many in the same order.
        size: side of the images in pixels; read by head "fc" alone.
        encoder: of SMP's U-Net, or "cnn": three convolutions of 3 x 3, the paper's simple alternative.
        decoder: widths of the U-Net, deepest first; their number is its depth. The released code has one, [32], at which
            the encoder is no more than ResNet's stem.
        embedding: channels for each image. The paper says 64 x 128 x 128; of the released code it is 32 for each image.
        join: "concat", or "symmetric": before, after, their difference and its absolute value.
        head: "fc", a convolution to one channel and two fully connected layers (paper); "mean", the mean of the map
            after that convolution (released code, whose layers are never called), for loss "batch_softmax" only: its
            activation leaves logits near 0 at least, which binary cross entropy cannot live with; "topk", a convolution
            to `hidden` maps, the mean of the highest 1 % of each, and a layer.
        kernel: side of the head's convolution.
        hidden: width between the fully connected layers, or maps of head "topk".
        dropout: between the fully connected layers.

    Raises:
        RecipeError: band groups that are missing or differ, an option that does not exist, or one without effect.
    """
    from l4s.models.pairs import Connected, Highest, Pooled, Siamese

    places = _places(bands)
    for what, value, known in (("head", head, HEADS), ("join", join, JOINS)):
        if value not in known:
            raise RecipeError(f"model.{what} = {value!r}{did_you_mean(value, known)}")
    for what, number in (("embedding", embedding), ("kernel", kernel), ("hidden", hidden)):
        if number < 1:
            raise RecipeError(f"model.{what} = {number} must be positive")
    if not 0 <= dropout < 1:
        raise RecipeError(f"model.dropout = {dropout} is no share in [0, 1)")
    if size < kernel:
        raise RecipeError(f"model.kernel = {kernel} is larger than the images, model.size = {size}")
    for what, given, default, heads in (
        ("hidden", hidden, HIDDEN, ("fc", "topk")),
        ("dropout", dropout, DROPOUT, ("fc",)),
    ):
        if given != default and head not in heads:
            raise RecipeError(f"model.{what} has no effect with head {head!r}: leave it out")
    if encoder == CNN and tuple(decoder) != DECODER:
        raise RecipeError(f"model.decoder has no effect with encoder {CNN!r}: leave it out")
    network = _network(encoder, decoder, len(places[0]), embedding)
    joined = joined_channels(embedding=embedding, join=join)
    last: nn.Module
    if head == "fc":
        last = Connected(joined, kernel, size, hidden, dropout)
    elif head == "topk":
        last = Highest(joined, kernel, hidden)
    else:
        last = Pooled(joined, kernel)
    return Siamese(network, last, places, join == "symmetric")


def joined_channels(*, embedding: int = 32, join: str = "concat", **others: object) -> int:
    """Channels of the embedding that a siamese network with these options gives to a second stage."""
    return embedding * (4 if join == "symmetric" else 2)


def _places(bands: Bands) -> list[list[int]]:
    if missing := [name for name in PAIR if name not in bands.groups]:
        raise RecipeError(
            f"model 'siamese' compares images before and after, and bands.groups has no {missing[0]!r}: set bands.groups, "
            "such as { pre = ['vv_pre', 'vh_pre'], post = ['vv_post', 'vh_post'] }"
        )
    pair = [bands.groups[name] for name in PAIR]
    if len(pair[0]) != len(pair[1]):
        raise RecipeError(
            f"bands.groups: pre has {len(pair[0])} bands and post {len(pair[1])}, but one network sees both"
        )
    if unused := [name for names in pair for name in names if name not in bands.names]:
        raise RecipeError(f"bands.groups names {unused[0]!r}, which is not one of bands.use ({', '.join(bands.names)})")
    return [[bands.names.index(name) for name in names] for names in pair]


def _network(encoder: str, decoder: Sequence[int], channels: int, embedding: int) -> Embedding:
    import segmentation_models_pytorch as smp
    from torch import nn

    from l4s.models.encoders import encoder_name
    from l4s.models.pairs import Embedding, convolution

    if encoder == CNN:
        layers = [convolution(channels, embedding, 3), convolution(embedding, embedding, 3)]
        return Embedding(nn.Sequential(*layers, nn.Conv2d(embedding, embedding, 3, padding=1)), 1)
    if not 1 <= len(decoder) <= 5 or min(decoder) < 1:
        raise RecipeError(f"model.decoder = {list(decoder)}: give 1 to 5 positive widths, deepest first")
    model = smp.Unet(
        encoder_name=encoder_name(encoder),
        encoder_depth=len(decoder),
        encoder_weights=None,
        decoder_channels=tuple(decoder),
        in_channels=channels,
        classes=embedding,
    )
    for level in range(len(decoder), 5):  # SMP keeps the layers of a ResNet that a shallow one does not run
        if hasattr(model.encoder, f"layer{level}"):
            setattr(model.encoder, f"layer{level}", nn.Identity())
    return Embedding(model, model.encoder.output_stride)
