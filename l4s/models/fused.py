"""The torch modules of the fusion network: encoders by band group, attention gates, one decoder."""

from collections.abc import Mapping, Sequence
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from l4s.models.contract import Output
from l4s.models.networks import double_conv, pad_to_stride

STRIDE = 16  # of the deepest of five levels


class Residual(nn.Module):
    """Two convolutions of 3 x 3 beside a shortcut: conv-BN-ReLU-conv-BN, plus 1 x 1 where the width changes (He 2016)."""

    def __init__(self, below: int, above: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(below, above, 3, padding=1, bias=False),
            nn.BatchNorm2d(above),
            nn.ReLU(inplace=True),
            nn.Conv2d(above, above, 3, padding=1, bias=False),
            nn.BatchNorm2d(above),
        )
        self.shortcut = nn.Identity() if below == above else nn.Conv2d(below, above, 1)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, below, H, W)` -> `(B, above, H, W)`."""
        return F.relu(self.body(x) + self.shortcut(x))


def block(below: int, above: int, residual: bool) -> nn.Module:
    """One level of an encoder or decoder."""
    return Residual(below, above) if residual else double_conv(below, above, above)


class Stack(nn.Module):
    """An encoder from scratch: a block at each level, halved in size between."""

    def __init__(self, channels: int, widths: Sequence[int], residual: bool) -> None:
        super().__init__()
        self.levels = nn.ModuleList(
            block(below, above, residual) for below, above in zip([channels, *widths[:-1]], widths, strict=True)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """`(B, C, H, W)` -> features at H, H/2, H/4, H/8 and H/16."""
        features: list[Tensor] = []
        for number, level in enumerate(self.levels):
            x = level(F.max_pool2d(x, 2) if number else x)
            features.append(x)
        return features


class Gate(nn.Module):
    """An additive attention gate (Oktay 2018, equation 1): how much of a skip connection the decoder lets through."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(channels // 2, 1)
        self.skip = nn.Conv2d(channels, inner, 1)
        self.signal = nn.Conv2d(channels, inner, 1)
        self.map = nn.Conv2d(inner, 1, 1)

    def forward(self, skip: Tensor, signal: Tensor) -> Tensor:
        """Two `(B, C, H, W)`, of the encoders and from below -> `(B, 1, H, W)` in [0, 1]."""
        return torch.sigmoid(self.map(F.relu(self.skip(skip) + self.signal(signal))))


class Fused(nn.Module):
    """Encoders by band group, the sum of their features as skip connections, and one decoder.

    `places` are the positions in the image of each group's bands. Parameters of the encoders are named `encoder.*`.
    """

    def __init__(
        self,
        encoders: Mapping[str, nn.Module],
        places: Mapping[str, Sequence[int]],
        widths: Sequence[int],
        *,
        residual: bool,
        concat: bool,
        attention: bool,
    ) -> None:
        super().__init__()
        self.encoder = nn.ModuleDict(encoders)
        self.places = {group: list(place) for group, place in places.items()}
        deepest, upwards = widths[-1], list(widths[-2::-1])
        joined = concat and len(encoders) > 1
        self.fuse = nn.Conv2d(deepest * len(encoders), deepest, 1) if joined else None
        self.reduce = nn.ModuleList(nn.Conv2d(2 * width, width, 1) for width in upwards)
        self.gates = nn.ModuleList(Gate(width) for width in upwards) if attention else None
        self.decoder = nn.ModuleList(block(2 * width, width, residual) for width in upwards)
        self.head = nn.Conv2d(widths[0], 1, 1)

    def forward(self, image: Tensor) -> Output:
        """`(B, C, H, W) float32` -> logits `(B, 1, H, W)`, with what the builder's docstring says in `extras`."""
        height, width = image.shape[-2:]
        padded = pad_to_stride(image, STRIDE)
        images = {group: padded[:, self.places[group]] for group in self.encoder}
        each = [encoder(_channels_last(images[group])) for group, encoder in self.encoder.items()]
        x = self._fused([features[-1] for features in each])
        maps: list[Tensor] = []
        for level, skips in enumerate(zip(*(features[-2::-1] for features in each), strict=True)):
            skip = _sum(skips)
            x = F.interpolate(self.reduce[level](x), scale_factor=2.0, mode="bilinear", align_corners=False)
            if self.gates is not None:
                gate = self.gates[level](skip, x)
                skip = gate * skip
                maps.insert(0, F.interpolate(gate, size=padded.shape[-2:], mode="bilinear", align_corners=False))
            x = self.decoder[level](torch.cat([skip, x], dim=1))
        extras = {"feature": x} | ({"attention": torch.cat(maps, dim=1)} if maps else {})
        return Output(
            self.head(x)[..., :height, :width],
            {name: extra[..., :height, :width] for name, extra in extras.items()},
        )

    def _fused(self, deepest: Sequence[Tensor]) -> Tensor:
        if self.fuse is not None:
            joined: Tensor = self.fuse(torch.cat(list(deepest), dim=1))
            return joined
        return _sum(deepest)


def _channels_last(image: Tensor) -> Tensor:
    """In the layout of memory that all images have: channels picked one by one lose it, which costs time in every step."""
    return image.contiguous(memory_format=torch.channels_last)


def _sum(features: Sequence[Tensor]) -> Tensor:
    """The groups' features added up, in their own layout of memory, which stacking them would lose."""
    return reduce(torch.add, features)
