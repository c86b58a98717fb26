"""The torch modules behind the builders: images of any size in, `Output` at that size out."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from l4s.models.contract import Output


def pad_to_stride(image: Tensor, stride: int) -> Tensor:
    """Repeat the last row and column of `(B, C, H, W)` until both sides are multiples of `stride`.

    Replication is defined for any amount; reflection is not where a scene's last window is narrower than the padding.
    """
    height, width = image.shape[-2:]
    below, right = -height % stride, -width % stride
    return F.pad(image, (0, right, 0, below), mode="replicate") if below or right else image


class EncoderDecoder(nn.Module):
    """Encoder, decoder and head of an SMP model; parameters of the encoder are named `encoder.*`.

    `detail`, where given, is `(B, C, H, W)` -> `(B, D, H, W)`, and the decoder's last stage takes what it returns.
    """

    def __init__(
        self, encoder: nn.Module, decoder: nn.Module, head: nn.Module, stride: int, detail: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.head = head
        self.stride = stride
        self.detail = detail

    def forward(self, image: Tensor) -> Output:
        """`(B, C, H, W) float32` -> logits `(B, 1, H, W)`."""
        height, width = image.shape[-2:]
        x = pad_to_stride(image, self.stride)
        features = self.encoder(x)
        if self.detail is not None:  # SMP's decoder drops the first feature, the image, and takes all others from below
            features = [features[0], self.detail(x), *features[1:]]
        logits = self.head(self.decoder(features))
        return Output(logits[..., :height, :width], {})


class MixTransformerSegmenter(nn.Module):
    """Encoder and decode head of the SegFormer in transformers; parameters of the encoder are named `encoder.*`."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder

    def forward(self, image: Tensor) -> Output:
        """`(B, C, H, W) float32` -> logits `(B, 1, H, W)`."""
        height, width = image.shape[-2:]
        stages = self.encoder(pad_to_stride(image, 32), output_hidden_states=True).hidden_states
        logits = F.interpolate(self.decoder(stages), scale_factor=4.0, mode="bilinear")
        return Output(logits[..., :height, :width], {})


class BaselineUNet(nn.Module):
    """The organisers' U-Net with one logit a pixel."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        widths = [width * factor for factor in (1, 2, 4, 8, 8)]
        self.encoder = nn.ModuleList(
            double_conv(below, above, above) for below, above in zip([channels, *widths[:-1]], widths, strict=True)
        )
        self.decoder = nn.ModuleList(
            double_conv(2 * skip, skip, out) for skip, out in zip(widths[3::-1], [*widths[2::-1], width], strict=True)
        )
        self.head = nn.Conv2d(width, 1, kernel_size=1)

    def forward(self, image: Tensor) -> Output:
        """`(B, C, H, W) float32` -> logits `(B, 1, H, W)`."""
        height, width = image.shape[-2:]
        features: list[Tensor] = []
        x = pad_to_stride(image, 16)
        for level, block in enumerate(self.encoder):
            x = block(F.max_pool2d(x, 2) if level else x)
            features.append(x)
        logits = self.head(self._decode(features))
        return Output(logits[..., :height, :width], {})

    def _decode(self, features: Sequence[Tensor]) -> Tensor:
        x = features[-1]
        for block, skip in zip(self.decoder, features[-2::-1], strict=True):
            # align_corners as in the organisers' code
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
            x = block(torch.cat([skip, x], dim=1))
        return x


def double_conv(channels: int, middle: int, out: int) -> nn.Sequential:
    """Two convolutions of 3 x 3, each with BatchNorm and ReLU."""
    layers: list[nn.Module] = []
    for below, above in ((channels, middle), (middle, out)):
        # the bias is idle before BatchNorm, but the organisers have it and their parameter count shows it
        layers += [nn.Conv2d(below, above, 3, padding=1), nn.BatchNorm2d(above), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)
