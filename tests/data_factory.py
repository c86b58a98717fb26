"""Tiny data in the official layout, and a tiny recipe that goes through every step on them."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import h5py
import numpy as np

from l4s.data.bands import Bands

RGB = Bands(file=("b4", "b3", "b2"))
FOLDERS = {"train": "TrainData", "validation": "ValidData", "test": "TestData"}

RECIPE = """
name = "tiny"
rounds = 1

[bands]
file = ["b4", "b3", "b2"]

[domain.home]
role = "source"
split = "train"
holdout = { by = "ids", ranges = [[7, 8]] }

[domain.away]
role = "target"
split = "validation"

[train]
steps = 6
batch = 4
evaluate_every = 2
keep = 1
loss = [{ name = "bce" }, { name = "dice" }]
optimiser = { lr = 3e-2 }
augment = { affine = 0.5, gain = 0.1, offset = 0.1 }

[member.a]
model = { name = "baseline", size = 16, width = 4 }

[member.b]
model = { name = "baseline", size = 16, width = 4 }
seed = 1

[member.b.train]
keep = 0
ema = 0.5
clip = 1.0
accumulate = 2
start = "continue"
optimiser = { name = "sgd", momentum = 0.9 }

[pseudo]
upper = 0.6
lower = 0.5375

[predict]
tta = ["none", "d4"]
batch = 3

[submit]
domain = "away"
min_area = 2
"""
"""Two members that differ in whatever training keeps between steps: best weights and AdamW, or EMA and momentum."""


def landslide(rng: np.random.Generator, size: int) -> np.ndarray:
    """(size, size) uint8: one rectangle of 1."""
    mask = np.zeros((size, size), np.uint8)
    top, left = rng.integers(size // 2, size=2)
    height, width = rng.integers(size // 4, size // 2, size=2)
    mask[top : top + height, left : left + width] = 1
    return mask


def write_h5(path: Path, key: str, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file[key] = array
    return path


def write_split(
    root: Path,
    split: str,
    ids: Iterable[int],
    *,
    size: int = 16,
    bands: int = 3,
    seed: int = 0,
    gain: float = 1.0,
    offset: float = 0.0,
    masks: bool = True,
) -> Path:
    """Patches whose landslides are brighter than the rest; `gain` and `offset` make another domain of them."""
    folder = root / FOLDERS[split]
    for number in ids:
        rng = np.random.default_rng((seed, number))
        mask = landslide(rng, size)
        image = rng.normal(size=(size, size, bands)) + 3 * mask[..., None]
        write_h5(folder / "img" / f"image_{number}.h5", "img", image * gain + offset)
        if masks:
            write_h5(folder / "mask" / f"mask_{number}.h5", "mask", mask)
    return root


def write_data(root: Path, *, size: int = 16) -> Path:
    """A source of 8 patches with masks and a target of 5 without, brighter and with more contrast."""
    write_split(root, "train", range(1, 9), size=size)
    return write_split(root, "validation", range(1, 6), size=size, seed=1, gain=4.0, offset=20.0, masks=False)


def write_recipe(path: Path, *lines: str, text: str = RECIPE) -> Path:
    """The tiny recipe, with tables added at its end."""
    path.write_text("\n".join((text, *lines)))
    return path


def write_images(folder: Path, images: Sequence[np.ndarray], masks: Sequence[np.ndarray] = (), first: int = 1) -> Path:
    """(H, W, C) images and (H, W) masks of your own as `image_N.h5` and `mask_N.h5`, side by side."""
    for number, image in enumerate(images, first):
        write_h5(folder / f"image_{number}.h5", "img", image)
    for number, mask in enumerate(masks, first):
        write_h5(folder / f"mask_{number}.h5", "mask", mask)
    return folder
