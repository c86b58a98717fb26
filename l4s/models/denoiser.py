"""The torch modules that score anomalies; the sigmoid of their logits is the score, in [0, 1]."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from l4s.models.contract import Output
from l4s.models.networks import double_conv, pad_to_stride
from l4s.ssim import blur, ssim_map

LEVELS = (1, 2, 4, 8, 16)
EDGE = 1e-6  # how near a score comes to 0 and 1 before its logit ends


class AnomalyUNet(nn.Module):
    """Encoder and decoder that reconstruct an image without its noise."""

    def __init__(self, channels: int, width: int, skips: str, limits: tuple[float, float]) -> None:
        super().__init__()
        widths = [width * factor for factor in LEVELS]
        self.skips = {"all": (0, 1, 2, 3), "deep": (1, 2, 3), "none": ()}[skips]
        self.low, self.high = limits
        self.encoder = nn.ModuleList(
            double_conv(below, above, above) for below, above in zip([channels, *widths[:-1]], widths, strict=True)
        )
        self.decoder = nn.ModuleList(
            double_conv(widths[level + 1] + (widths[level] if level in self.skips else 0), widths[level], widths[level])
            for level in (3, 2, 1, 0)
        )
        self.head = nn.Conv2d(width, channels, kernel_size=1)

    def forward(self, image: Tensor, clean: Tensor | None = None) -> Output:
        """`(B, C, H, W) float32` -> logits `(B, 1, H, W)` of the score of `clean`, by default the image itself."""
        unit = self._reconstruct(image)
        similar = ssim_map(self._unit(image if clean is None else clean), unit).mean(1, keepdim=True)
        reconstruction = self.low + (self.high - self.low) * unit
        return Output(((1 - similar) / 2).logit(EDGE), {"reconstruction": reconstruction, "ssim": similar})

    def _unit(self, image: Tensor) -> Tensor:
        """From standard deviations to [0, 1], cut off at the limits."""
        return ((image - self.low) / (self.high - self.low)).clamp(0, 1)

    def _reconstruct(self, image: Tensor) -> Tensor:
        """(B, C, H, W) float32 in [0, 1]: by a sigmoid, so that no value is cut off and left without a gradient."""
        height, width = image.shape[-2:]
        x = pad_to_stride(image, LEVELS[-1])
        features: list[Tensor] = []
        for level, block in enumerate(self.encoder):
            x = block(F.max_pool2d(x, 2) if level else x)
            features.append(x)
        for level, block in zip((3, 2, 1, 0), self.decoder, strict=True):
            x = F.interpolate(x, scale_factor=2, mode="bilinear")
            x = block(torch.cat([features[level], x], dim=1) if level in self.skips else x)
        raw: Tensor = self.head(x)
        return raw.float().sigmoid()[..., :height, :width]


class LocalStd(nn.Module):
    """The local standard deviation s, mean over the bands, as the score s / (s + 1)."""

    def __init__(self, sigma: float) -> None:
        super().__init__()
        self.sigma = sigma

    def forward(self, image: Tensor) -> Output:
        """`(B, C, H, W) float32` -> logits `(B, 1, H, W)`."""
        with torch.autocast(image.device.type, enabled=False):
            values = image.float()
            mean, square = blur(torch.stack([values, values**2]), self.sigma)
            spread = (square - mean**2).clamp(min=0).sqrt().mean(1, keepdim=True)
            return Output(spread.clamp(min=EDGE).log(), {})  # the sigmoid of log s is s / (s + 1)


class Weighted(nn.Module):
    """A weighted sum of the bands, in standard deviations, as logits."""

    def __init__(self, weights: Sequence[float]) -> None:
        super().__init__()
        self.weights = tuple(weights)

    def forward(self, image: Tensor) -> Output:
        """`(B, C, H, W) float32` -> logits `(B, 1, H, W)`."""
        weights = image.new_tensor(self.weights, dtype=torch.float32)
        return Output((image.float() * weights[:, None, None]).sum(1, keepdim=True), {})
