"""VGG-16 with BatchNorm as an encoder of five levels, brought to any widths."""

from collections.abc import Sequence
from typing import Any

from segmentation_models_pytorch.encoders import get_encoder
from torch import Tensor, nn

from l4s.data.bands import Bands
from l4s.models.weights import load_weights

NAME = "vgg16_bn"
DEPTH = 4  # poolings between five levels


class Vgg(nn.Module):
    """SMP's VGG-16, and a 1 x 1 convolution where a level's width is not the one asked for."""

    def __init__(self, encoder: Any, widths: Sequence[int]) -> None:
        super().__init__()
        self.encoder = encoder
        self.project = nn.ModuleList(
            nn.Identity() if below == above else nn.Conv2d(below, above, 1)
            for below, above in zip(encoder.out_channels, widths, strict=True)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """`(B, C, H, W)` -> features at H, H/2, H/4, H/8 and H/16."""
        return [project(feature) for project, feature in zip(self.project, self.encoder(x), strict=True)]


def vgg(bands: Bands, widths: Sequence[int], weights: str) -> Vgg:
    """Build it for these bands, with pretrained weights where asked for, see `l4s.models.weights`.

    Raises:
        DataError: weights that cannot be had or do not fit.
    """
    network = Vgg(get_encoder(NAME, in_channels=len(bands.names), depth=DEPTH, weights=None), widths)

    def hub() -> nn.Module:
        pretrained: nn.Module = get_encoder(NAME, in_channels=3, depth=DEPTH, weights="imagenet")
        return pretrained

    load_weights(network, weights, bands, encoder=NAME, hub=hub)
    return network
