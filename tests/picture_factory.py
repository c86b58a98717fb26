"""Tiny pictures of varying size in the layouts of Bijie and Hokkaido, and a recipe that fits them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from data_factory import landslide
from PIL import Image

from l4s.data.bands import Bands

RGBD = Bands(file=("r", "g", "b", "dem"), rgb=("r", "g", "b"))
RGB = Bands(file=("r", "g", "b"), rgb=("r", "g", "b"))
BGRD = Bands(file=("b", "g", "r", "dem"), rgb=("r", "g", "b"))
SIZES = ((12, 15), (16, 9), (10, 10), (14, 16), (11, 13))

RECIPE = """
name = "pictures"
rounds = 1

[bands]
file = ["r", "g", "b", "dem"]
rgb = ["r", "g", "b"]

[domain.bijie]
role = "source"
layout = "bijie"
split = "train"
fit = { by = "resize", side = 16 }
holdout = { by = "random", share = 0.25 }

[domain.hokkaido]
role = "target"
layout = "hokkaido"
split = "train"
fit = { by = "pad", multiple = 16 }

[train]
steps = 3
batch = 4
evaluate_every = 1
keep = 1
optimiser = { lr = 3e-2 }

[member.a]
model = { name = "baseline", size = 16, width = 4 }

[member.b]
model = { name = "baseline", size = 16, width = 4 }
seed = 1

[pseudo]
upper = 0.55
lower = 0.545

[predict]
tta = ["none", "d4"]
batch = 3
"""


def save(path: Path, values: np.ndarray, mode: str | None = None) -> Path:
    """Write an array as a picture, in another mode of Pillow where one is named."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(np.ascontiguousarray(values))
    (picture.convert(mode) if mode else picture).save(path)
    return path


def colours(rng: np.random.Generator, mask: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 whose landslides are brighter than the rest."""
    return (rng.integers(20, 120, size=(*mask.shape, 3)) + 100 * mask[..., None]).astype(np.uint8)


def heights(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """(H, W) float32, a slope."""
    return (100 + np.add.outer(np.arange(shape[0]), np.arange(shape[1])) + rng.random(shape)).astype(np.float32)


def draw(number: int, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Picture, mask {0, 1} and DEM of a patch."""
    rng = np.random.default_rng(number)
    mask = landslide(rng, 2 * max(size))[: size[0], : size[1]]
    mask[2:6, 3:7] = 1
    return colours(rng, mask), mask, heights(rng, size)


def write_bijie(
    root: Path, positive: int = 8, negative: int = 4, *, sizes: Sequence[tuple[int, int]] = SIZES, dem: bool = True
) -> Path:
    """`positive` patches with landslides, masks 0 and 255, and `negative` without; stems are the same in both classes."""
    for name, count in (("landslide", positive), ("non-landslide", negative)):
        for number in range(1, count + 1):
            size = sizes[number % len(sizes)]
            picture, mask, height = draw(number if name == "landslide" else 100 + number, size)
            stem = f"p{number}.png"
            if name == "landslide":
                save(root / name / "mask" / stem, mask * np.uint8(255))
            else:
                picture = colours(np.random.default_rng(number), np.zeros(size, np.uint8))
            save(root / name / "image" / stem, picture)
            if dem:
                save(root / name / "dem" / stem, height.astype(np.uint8))
    return root


def write_hokkaido(root: Path, split: str = "train", count: int = 5, *, masks: bool = True) -> Path:
    """Patches with masks 0 and 1 and DEMs of floats, in the order r, g, b."""
    for number in range(1, count + 1):
        picture, mask, height = draw(200 + number, SIZES[number % len(SIZES)])
        folder, stem = root / split, f"h{number}"
        save(folder / "image" / f"{stem}.png", picture)
        save(folder / "dem" / f"{stem}.tif", height)
        if masks:
            save(folder / "mask" / f"{stem}.png", mask)
    return root


def write_both(root: Path, *, masks: bool = True) -> Path:
    """Bijie and Hokkaido side by side in one data folder."""
    write_bijie(root / "Bijie-landslide-dataset")
    write_hokkaido(root / "HokkaidoLandslide_dataset", masks=masks)
    return root
