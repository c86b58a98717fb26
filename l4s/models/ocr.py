"""Object-contextual representations (Yuan 2020): every pixel is told what its object looks like as a whole.

Landslide is the only class, so there are two object regions, landslide and background, and one auxiliary logit draws
both.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from l4s.models.contract import Output
from l4s.models.networks import pad_to_stride


class HRNetOCR(nn.Module):
    """HRNet, the auxiliary head that draws soft object regions, object context, and the head; see `hrnet_ocr`."""

    def __init__(self, encoder: nn.Module, channels: Sequence[int], width: int) -> None:
        super().__init__()
        joined = sum(channels)
        self.encoder = encoder
        self.aux = nn.Sequential(_conv(joined, joined, 1), nn.Conv2d(joined, 1, kernel_size=1))
        self.context = ObjectContext(joined, width)
        self.head = nn.Conv2d(width, 1, kernel_size=1)

    def forward(self, image: Tensor) -> Output:
        """`(B, C, H, W) float32` -> logits `(B, 1, H, W)` and `extras["aux"]`, logits of the same shape."""
        height, width = image.shape[-2:]
        levels = self.encoder(pad_to_stride(image, 32))
        features = torch.cat([_resize(level, levels[0]) for level in levels], dim=1)
        aux = self.aux(features)
        both = torch.cat([self.head(self.context(features, aux)), aux], dim=1)
        both = F.interpolate(both, scale_factor=4.0, mode="bilinear")[..., :height, :width]
        return Output(both[:, :1], {"aux": both[:, 1:]})


class ObjectContext(nn.Module):
    """Pixel representations joined with what the object regions say of each pixel (section 3.2)."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        key = width // 2
        self.pixels = _conv(channels, width, 3)
        self.query = nn.Sequential(_conv(width, key, 1), _conv(key, key, 1))
        self.key = nn.Sequential(_conv(width, key, 1), _conv(key, key, 1))
        self.value = _conv(width, key, 1)
        self.widen = _conv(key, width, 1)
        self.fuse = nn.Sequential(_conv(2 * width, width, 1), nn.Dropout2d(0.05))  # 0.05 in the authors' code

    def forward(self, features: Tensor, aux: Tensor) -> Tensor:
        """Features `(B, channels, h, w)` and auxiliary logits `(B, 1, h, w)` -> `(B, width, h, w)`."""
        pixels = self.pixels(features)
        regions = region_means(pixels, aux)
        context = self.widen(attend(self.query(pixels), self.key(regions), self.value(regions)))
        fused: Tensor = self.fuse(torch.cat([context, pixels], dim=1))
        return fused


def region_means(pixels: Tensor, aux: Tensor) -> Tensor:
    """Represent landslide and background by the means of the pixels, weighted by p and by 1 - p (equation 2).

    The paper normalises a region's degrees by a softmax over space. Of logits that would weigh by p / (1 - p), which a
    single certain pixel dominates, and leave the background, whose logit is 0, without a shape; of log p and
    log(1 - p) it divides p and 1 - p by their sums, and stays finite where a region is empty.

    Args:
        pixels: `(B, D, h, w)`.
        aux: logits of landslide `(B, 1, h, w)`.

    Returns:
        `(B, D, 2, 1)`: landslide, background.
    """
    degrees = F.logsigmoid(torch.cat([aux, -aux], dim=1).float()).flatten(2).softmax(dim=-1)
    means = pixels.flatten(2) @ degrees.transpose(1, 2).to(pixels.dtype)
    return means.unsqueeze(-1)


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Give each pixel the values of the regions, as much of each as query and key agree (equations 3 and 4).

    The scale 1 / sqrt(D) is not in the paper's text but in its authors' code.

    Args:
        query: of the pixels `(B, D, h, w)`.
        key: of the regions `(B, D, K, 1)`.
        value: of the regions `(B, V, K, 1)`.

    Returns:
        `(B, V, h, w)`.
    """
    agreement = key.squeeze(-1).transpose(1, 2) @ query.flatten(2)  # (B, K, h * w)
    share = (agreement * query.shape[1] ** -0.5).softmax(dim=1).to(value.dtype)
    context: Tensor = (value.squeeze(-1) @ share).unflatten(-1, query.shape[-2:])
    return context


def _conv(channels: int, out: int, kernel: int) -> nn.Sequential:
    conv = nn.Conv2d(channels, out, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out), nn.ReLU(inplace=True))


def _resize(level: Tensor, largest: Tensor) -> Tensor:
    return F.interpolate(level, size=largest.shape[-2:], mode="bilinear") if level is not largest else level
