"""Scale promotion (Zhao 2022): train and predict on enlarged patches, average the probabilities back to native size."""

import torch
import torch.nn.functional as F
from torch import Tensor

from l4s.errors import RecipeError


def promote(
    image: Tensor,
    target: Tensor,
    weight: Tensor,
    *,
    scale: float | tuple[float, float],
    crop: int | None,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor, Tensor]:
    """Enlarge a batch by `scale`, then cut one random square of `crop` pixels from each sample.

    The image is interpolated bilinearly (align_corners false), target and weight take the nearest pixel. Where the
    enlarged sample is smaller than the crop it is padded below and on the right with image 0, target 0 and weight 0.
    Scale 1.0 without a crop returns the inputs themselves.

    Args:
        image: `(B, C, H, W)` float, on any device.
        target: `(B, H, W)` float in [0, 1].
        weight: `(B, H, W)` float >= 0.
        scale: 4.0 makes 512 pixels of 128; a pair draws one scale uniformly for the whole batch. Sizes are rounded to
            whole pixels.
        crop: side in pixels after scaling, the size the model was built for; None keeps the whole sample.
        generator: CPU generator, whatever the device, so that the draws do not depend on the machine.

    Returns:
        image `(B, C, h, w)`, target `(B, h, w)` and weight `(B, h, w)`, in the dtypes they came in.

    Raises:
        RecipeError: a scale is not positive, a pair is in the wrong order, or crop is below 1.
    """
    if crop is not None and crop < 1:
        raise RecipeError(f"crop = {crop} must be at least 1 pixel; leave it out to keep the whole patch")
    image, target, weight = _enlarge(image, target, weight, _draw_scale(scale, generator))
    if crop is None or image.shape[-2:] == (crop, crop):
        return image, target, weight
    return _random_crop(image, target, weight, crop, generator)


def promoted(image: Tensor, scale: float | tuple[float, float]) -> Tensor:
    """Images `(B, C, H, W)` enlarged for prediction, whole; of a range of scales by its middle."""
    empty = image.new_zeros(len(image), *image.shape[-2:])
    return _enlarge(image, empty, empty, sum(scale) / 2 if isinstance(scale, tuple) else scale)[0]


def demote(probs: Tensor, size: tuple[int, int]) -> Tensor:
    """Average promoted probabilities over the area of each native pixel.

    Exact block means where the sizes divide. Otherwise (320 to 128) every promoted pixel that touches a native one
    counts in full.

    Args:
        probs: `(B, h, w)` float in [0, 1].
        size: native (H, W), at most (h, w).

    Returns:
        `(B, H, W)`, in the dtype of probs; the input itself if it has that size already.
    """
    if probs.shape[-2:] == tuple(size):
        return probs
    return F.interpolate(probs.unsqueeze(1), size=size, mode="area").squeeze(1)


def _draw_scale(scale: float | tuple[float, float], generator: torch.Generator) -> float:
    low, high = (scale, scale) if isinstance(scale, int | float) else scale
    if not 0 < low <= high:
        raise RecipeError(f"scale = {scale} must be positive, and a pair must be (smallest, largest)")
    if isinstance(scale, int | float):
        return scale
    return low + (high - low) * torch.rand((), generator=generator, dtype=torch.float64).item()


def _enlarge(image: Tensor, target: Tensor, weight: Tensor, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    height, width = image.shape[-2:]
    new = (max(1, round(height * scale)), max(1, round(width * scale)))
    if new == (height, width):
        return image, target, weight
    rows, cols = (_nearest(old, size, image.device) for old, size in zip((height, width), new, strict=True))
    image = F.interpolate(image, size=new, mode="bilinear", align_corners=False)
    target, weight = (plane.index_select(-2, rows).index_select(-1, cols) for plane in (target, weight))
    return image, target, weight


def _nearest(old: int, new: int, device: torch.device) -> Tensor:
    """For each of `new` pixels, the one of `old` pixels that its centre falls into.

    Whole numbers: F.interpolate's "nearest" looks at corners, half a pixel off the bilinear grid, and its float ties
    differ between devices.
    """
    return (2 * torch.arange(new, device=device) + 1) * old // (2 * new)


def _random_crop(
    image: Tensor, target: Tensor, weight: Tensor, crop: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    below, right = (max(0, crop - size) for size in image.shape[-2:])
    if below or right:
        image, target, weight = (F.pad(tensor, (0, right, 0, below)) for tensor in (image, target, weight))
    tops, lefts = (
        torch.randint(size - crop + 1, (len(image),), generator=generator).tolist() for size in image.shape[-2:]
    )

    def cut(tensor: Tensor) -> Tensor:
        corners = zip(tensor, tops, lefts, strict=True)
        return torch.stack([sample[..., top : top + crop, left : left + crop] for sample, top, left in corners])

    return cut(image), cut(target), cut(weight)
