"""What scores anomalies: the denoising U-Net of Kimura 2019, and the trivial baselines to be named beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from l4s.data.bands import Bands
from l4s.errors import RecipeError

if TYPE_CHECKING:
    from torch import nn

SKIPS = ("all", "deep", "none")


def anomaly_unet(
    bands: Bands, *, size: int, width: int = 32, skips: str = "deep", limits: tuple[float, float] = (-3.0, 3.0)
) -> nn.Module:
    """Build the denoising U-Net (Kimura 2019, 3); its task is "anomaly".

    Four levels of 32, 64, 128 and 256, and 512 below them; the paper says U-Net and nothing else. `logits` are those of
    the anomaly score, (1 - local SSIM of image and reconstruction) / 2 averaged over the bands; `extras` hold the
    `reconstruction` (B, C, H, W), standardised like the image, and the `ssim` (B, 1, H, W). Called with `clean`, the
    score compares the reconstruction of the image with that other image.

    Args:
        bands: any number of bands.
        size: side of the training images in pixels; the architecture does not depend on it.
        width: of the first level; the others follow as 2, 4, 8 and 16 times this.
        skips: "all" levels hand their features across; "deep" all but the one of full size, through which a network
            can copy what it should remove (our choice); or "none".
        limits: what SSIM takes as black and white, in standard deviations from the mean. Images are cut off there, and
            reconstructions lie between. The paper does not say; -3 to 3 is our choice.

    Raises:
        RecipeError: a value that means nothing.
    """
    from l4s.models.denoiser import AnomalyUNet

    if width < 1:
        raise RecipeError(f"model.width = {width}: give a positive width (32 is ours)")
    if skips not in SKIPS:
        raise RecipeError(f"model.skips = {skips!r}: choose one of {', '.join(SKIPS)}")
    low, high = limits
    if not low < high:
        raise RecipeError(f"model.limits = {list(limits)}: give [lowest, highest], in standard deviations")
    return AnomalyUNet(len(bands.names), width, skips, (float(low), float(high)))


def local_std(bands: Bands, *, size: int, sigma: float = 1.5) -> nn.Module:
    """Build the baseline that calls what is rough anomalous: local standard deviation, mean over the bands.

    Args:
        bands: any number of bands.
        size: not read: there is nothing to train.
        sigma: of the Gaussian window, in pixels.

    Raises:
        RecipeError: a window of no size.
    """
    from l4s.models.denoiser import LocalStd

    if not sigma > 0:
        raise RecipeError(f"model.sigma = {sigma}: give a positive number of pixels")
    return LocalStd(sigma)


def brightness(bands: Bands, *, size: int) -> nn.Module:
    """Build the baseline that calls what is bright anomalous: the mean of the spectral bands.

    Args:
        bands: which are spectral.
        size: not read: there is nothing to train.

    Raises:
        RecipeError: no band is spectral.
    """
    from l4s.models.denoiser import Weighted

    if not any(bands.spectral):
        raise RecipeError(f"model 'brightness' needs a spectral band, but there are {', '.join(bands.names)} alone")
    return Weighted([float(each) / sum(bands.spectral) for each in bands.spectral])


def ndvi(bands: Bands, *, size: int) -> nn.Module:
    """Build the baseline that calls what has little vegetation anomalous: red minus near infrared, standardised.

    Standardised bands have no ratio, so this is the difference in the numerator of NDVI, each band in its own standard
    deviations, turned round: landslides bare the soil.

    Args:
        bands: with b4 and b8.
        size: not read: there is nothing to train.

    Raises:
        RecipeError: a band is missing.
    """
    from l4s.models.denoiser import Weighted

    if missing := [name for name in ("b4", "b8") if name not in bands.names]:
        raise RecipeError(f"model 'ndvi' needs b4 and b8, but the bands lack {', '.join(missing)}")
    return Weighted([{"b4": 1.0, "b8": -1.0}.get(name, 0.0) for name in bands.names])
