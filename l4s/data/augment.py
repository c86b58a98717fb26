"""Augmentation at native size: geometry by albumentations on all bands, colour by our own code on spectral bands only.

albumentations' colour transforms clip to [0, 1] or refuse 14 bands, so it moves pixels and nothing else. Pixels that a
rotation or shift brings in from outside the patch get weight 0.
"""

import os
from collections.abc import Callable, Sequence

import numpy as np

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it asks the network for its newest version otherwise

import albumentations as A
import cv2

from l4s.recipe import Augment

cv2.setNumThreads(0)

Sample = tuple[np.ndarray, np.ndarray, np.ndarray]


def build_augment(config: Augment, spectral: Sequence[bool]) -> Callable[[Sample, np.random.Generator], Sample]:
    """The augmentation of a recipe.

    Args:
        spectral: for each band, may its colour change? Slope and DEM may not (Zhao 2022, 2.1).

    Returns:
        A function of a sample, image (C, H, W) float32 standardised, target (H, W) float32, weight (H, W) float32, and
        of the generator that decides everything.
    """
    geometry = _geometry(config)
    colour = np.array(spectral)

    def augment(sample: Sample, rng: np.random.Generator) -> Sample:
        image, target, weight = sample
        if geometry is not None:
            geometry.set_random_seed(int(rng.integers(2**31)))
            moved = geometry(image=np.ascontiguousarray(image.transpose(1, 2, 0)), masks=[target, weight])
            image, (target, weight) = moved["image"].transpose(2, 0, 1), moved["masks"]
        return _colour(image, colour, config, rng), target, weight

    return augment


def _geometry(config: Augment) -> A.Compose | None:
    moves: list[A.BasicTransform] = [A.D4(p=1.0)] if config.d4 else []
    if config.affine:
        moves.append(
            A.Affine(
                scale=config.zoom,
                keep_ratio=True,  # one factor for both axes: each for itself would bend what a rotation turns
                rotate=(-config.rotate, config.rotate),
                translate_percent=(-config.shift, config.shift),
                interpolation=cv2.INTER_LINEAR,
                mask_interpolation=cv2.INTER_NEAREST,
                fill=0,
                fill_mask=0,
                p=config.affine,
            )
        )
    return A.Compose(moves) if moves else None


def _colour(image: np.ndarray, spectral: np.ndarray, config: Augment, rng: np.random.Generator) -> np.ndarray:
    """A gain and an offset per band, then common ones, in units of the bands' standard deviations.

    Bands that are not spectral come through untouched.
    """
    gain = 1 + config.gain * rng.standard_normal(len(spectral))
    offset = config.offset * rng.standard_normal(len(spectral))
    contrast = 1 + config.contrast * rng.standard_normal()
    brightness = config.brightness * rng.standard_normal()
    factor = np.where(spectral, contrast * gain, 1.0)
    shift = np.where(spectral, contrast * offset + brightness, 0.0)
    return (image * factor[:, None, None] + shift[:, None, None]).astype(np.float32)
