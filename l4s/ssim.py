"""Structural similarity of images, place by place (Wang 2004): what the anomaly network is trained by and scores with."""

import torch
import torch.nn.functional as F
from torch import Tensor

from l4s.errors import RunError

SIGMA, RADIUS = 1.5, 5  # a Gaussian window of 11 x 11
K1, K2 = 0.01, 0.03


def ssim_map(image: Tensor, other: Tensor, data_range: float = 1.0) -> Tensor:
    """Local SSIM of every band, between -1 and 1; in float32, outside autocast.

    Equal to `skimage.metrics.structural_similarity` with Gaussian weights and without sample covariance, but for the
    outermost 5 pixels, where images are continued by reflection about the edge's own pixels.

    Args:
        image: (B, C, H, W) float.
        other: likewise, of the same shape.
        data_range: difference of the largest and the smallest value that can be.

    Returns:
        (B, C, H, W) float32.

    Raises:
        RunError: an image is narrower than 6 pixels.
    """
    with torch.autocast(image.device.type, enabled=False):
        x, y = image.float(), other.float()
        # variances of numbers far from 0 are differences of large ones
        centre = x.detach().mean((-2, -1), keepdim=True)
        x, y = x - centre, y - centre
        mean_x, mean_y, square_x, square_y, product = blur(torch.stack([x, y, x * x, y * y, x * y]), SIGMA, RADIUS)
        # rounding makes variances of flat areas negative
        spread = (square_x - mean_x**2).clamp(min=0) + (square_y - mean_y**2).clamp(min=0)
        common = product - mean_x * mean_y
        mean_x, mean_y = mean_x + centre, mean_y + centre
        c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
        light = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
        similar: Tensor = light * (2 * common + c2) / (spread + c2)
        return similar


def blur(values: Tensor, sigma: float, radius: int | None = None) -> Tensor:
    """Mean of (..., H, W) values under a Gaussian window, continued by reflection; in their dtype, outside autocast.

    Args:
        values: float, of any number of axes.
        sigma: standard deviation in pixels; 0 changes nothing.
        radius: of the window, in pixels; 2 sigma by default.

    Raises:
        RunError: an image is narrower than the window reaches beyond its edge.
    """
    if sigma == 0:
        return values
    reach = radius if radius is not None else max(1, round(2 * sigma))
    if min(values.shape[-2:]) <= reach:
        height, width = values.shape[-2:]
        raise RunError(f"images of {height} x {width} pixels are too small for a window that reaches {reach} pixels")
    place = torch.arange(-reach, reach + 1, dtype=values.dtype, device=values.device)
    weight = torch.exp(-(place**2) / (2 * sigma**2))
    flat = values.reshape(-1, 1, *values.shape[-2:])
    with torch.autocast(values.device.type, enabled=False):
        for axis, shape in ((-2, (1, 1, -1, 1)), (-1, (1, 1, 1, -1))):
            flat = F.conv2d(_reflected(flat, reach, axis), (weight / weight.sum()).reshape(shape))
    return flat.reshape(values.shape)


def _reflected(values: Tensor, reach: int, axis: int) -> Tensor:
    """Continued on both sides; torch's own padding has no deterministic gradient on a GPU."""
    size = values.shape[axis]
    before = values.narrow(axis, 1, reach).flip(axis)
    after = values.narrow(axis, size - 1 - reach, reach).flip(axis)
    return torch.cat([before, values, after], axis)
