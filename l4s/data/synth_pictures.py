"""Generated pictures of varying size with DEMs, in the layouts of Bijie and Hokkaido: for demonstrations and tests.

The ground, its cover and its slides are those of `l4s.data.synth`, seen in red, green and blue and cut to a size of their
own. Slides lie on slopes; bare fields, roads and river banks look alike and lie on level ground, so that the DEM helps.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from PIL import Image

from l4s.data.spectra import IMG_MEAN
from l4s.data.synth import MANIFEST, held, make_patch
from l4s.data.synth_domain import SynthDomain, draw_domain
from l4s.errors import DataError, RecipeError
from l4s.files import write_json

VERSION = 1  # raised when equal arguments would give other bytes
GROUND = 128  # pixels along each side of the ground that pictures are cut from
SIDES = (56, 112)  # pixels of the smallest and the largest side of a picture
DARK, BRIGHT = 200.0, 2200.0  # reflectance x 10,000 of black and white: one stretch for all pictures
RED, GREEN, BLUE, DEM = 3, 2, 1, 13  # bands of a generated patch
SHARES = {"landslide": (0.02, 0.6), "non-landslide": (0.0, 0.0)}  # of a picture's pixels that are slide
TRIES = 40  # patches that are looked at for a picture
APART = 100_000  # numbers of patches between the parts of a data set, more than one of them has
PARTS = {"bijie": ("landslide", "non-landslide"), "hokkaido": ("train", "validation", "test")}


class PictureSummary(TypedDict):
    """Facts of a written part; `positive` is the share of slide pixels, `empty` that of pictures without any."""

    patches: int
    smallest: int
    largest: int
    positive: float
    empty: float


@dataclass(frozen=True)
class Picture:
    """`colours`: (H, W, 3) uint8, red, green, blue. `dem`: (H, W) float64, metres. `mask`: (H, W) uint8 in {0, 1}."""

    colours: np.ndarray
    dem: np.ndarray
    mask: np.ndarray


def make_picture(config: SynthDomain, number: int, shares: tuple[float, float]) -> Picture:
    """Make picture `number` of a domain, of a size of its own, cut around its slides.

    Args:
        shares: least and greatest share of slide pixels; patches are tried in turn until one has that.

    Raises:
        DataError: none of them has.
    """
    rng = np.random.default_rng((config.seed, number, 9))
    height, width = rng.integers(SIDES[0], SIDES[1] + 1, size=2).tolist()
    jitter = rng.integers(-12, 13, size=2)
    for attempt in range(TRIES):
        image, mask = make_patch(config, number + attempt * len(PARTS["hokkaido"]) * APART)
        top, left = _corner(mask, (height, width), jitter)
        cut = mask[top : top + height, left : left + width]
        if shares[0] <= cut.mean() <= shares[1]:
            return _picture(image[top : top + height, left : left + width], cut)
    raise DataError(
        f"none of {TRIES} generated patches has {shares[0]:.0%} to {shares[1]:.0%} landslide: take another seed"
    )


def _corner(mask: np.ndarray, shape: tuple[int, int], jitter: np.ndarray) -> tuple[int, int]:
    """The upper left corner of a window about the middle of the slides, or of the ground where there are none."""
    places = np.argwhere(mask)
    middle = places.mean(0) if len(places) else np.array(mask.shape) / 2
    corner = np.rint(middle + jitter - np.array(shape) / 2).astype(int)
    top, left = np.clip(corner, 0, np.array(mask.shape) - shape).tolist()
    return top, left


def _picture(image: np.ndarray, mask: np.ndarray) -> Picture:
    stored = image * IMG_MEAN
    colours = np.clip((stored[..., [RED, GREEN, BLUE]] - DARK) / (BRIGHT - DARK), 0, 1)
    return Picture(np.rint(255 * colours).astype(np.uint8), stored[..., DEM], mask)


def write_pictures(out: Path, kind: str, counts: Mapping[str, int], seed: int = 0) -> dict[str, PictureSummary]:
    """Write a data set of pictures, and `synth.json`.

    `bijie`: `landslide/{image,mask,dem}` and `non-landslide/{image,dem}`, masks 0 and 255, DEMs stretched to 8 bits each.
    `hokkaido`: `train|validation|test/{image,mask,dem}`, channels in the order blue, green, red (B02, B03, B04), masks 0 and
    1, DEMs float TIFFs in metres; another region with smaller slides. A finished data set with the same arguments is left
    alone; an interrupted one is written again.

    Args:
        kind: `bijie` or `hokkaido`.
        counts: pictures of each part: `landslide` and `non-landslide`, or the splits.

    Raises:
        DataError: `out` holds something else. RecipeError: an argument is out of range.
    """
    if kind not in PARTS or set(counts) != set(PARTS[kind]) or any(not 0 <= n < APART for n in counts.values()):
        raise RecipeError(f"{kind!r} of {dict(counts)}: give bijie or hokkaido, and the pictures of each of its parts")
    if seed < 0:
        raise RecipeError(f"seed = {seed} must not be negative")
    arguments = {"version": VERSION, "kind": kind, "counts": dict(counts), "seed": seed}
    if (finished := held(out, arguments)) is not None:
        return {part: finished[part] for part in PARTS[kind]}
    write_json(out / MANIFEST, {"arguments": arguments})
    made = {
        part: _write_part(out / part, kind, _domain(kind, part, seed), place * APART, counts[part])
        for place, part in enumerate(PARTS[kind])
    }
    write_json(out / MANIFEST, {"arguments": arguments, "splits": made})
    return made


def _domain(kind: str, part: str, seed: int) -> SynthDomain:
    # level ground with bare fields, roads and gravel is what slopes tell from slides
    common: dict[str, Any] = {"size": GROUND, "slope": 15.0, "farmland": 0.9, "rivers": 0.9, "roads": 0.7}
    if kind == "bijie":
        empty = float(part == "non-landslide")
        return SynthDomain(seed=2 * seed, empty=empty, positive=0.08, runout=20.0, **common)
    return draw_domain(2 * seed + 1, 1.0, empty=0.0, positive=0.08, runout=8.0, **common)


def _write_part(folder: Path, kind: str, config: SynthDomain, first: int, count: int) -> PictureSummary:
    masked = folder.name != "non-landslide"
    names = ("image", "mask", "dem") if masked else ("image", "dem")
    for name in names:
        (folder / name).mkdir(parents=True, exist_ok=True)
    shares = SHARES["landslide" if masked else "non-landslide"]
    sides: list[int] = []
    pixels = positive = empty = 0
    for number in range(count):
        picture = make_picture(config, first + number, shares)
        _write(folder, kind, f"{number + 1:03d}", picture, names)
        sides += picture.mask.shape
        pixels += picture.mask.size
        positive += int(picture.mask.sum())
        empty += not picture.mask.any()
    return {
        "patches": count,
        "smallest": min(sides, default=0),
        "largest": max(sides, default=0),
        "positive": positive / max(pixels, 1),
        "empty": empty / max(count, 1),
    }


def _write(folder: Path, kind: str, stem: str, picture: Picture, names: tuple[str, ...]) -> None:
    if kind == "bijie":
        low, high = picture.dem.min(), picture.dem.max()
        dem = np.rint(255 * (picture.dem - low) / max(high - low, 1e-9)).astype(np.uint8)
        planes = {"image": picture.colours, "mask": picture.mask * np.uint8(255), "dem": dem}
    else:
        planes = {"image": picture.colours[..., ::-1], "mask": picture.mask, "dem": picture.dem.astype(np.float32)}
    for name in names:
        suffix = ".tif" if planes[name].dtype == np.float32 else ".png"
        _save(folder / name / f"{stem}{suffix}", planes[name])


def _save(path: Path, values: np.ndarray) -> None:
    part = path.with_name(f".{path.name}.part")  # hidden files are no patches to the readers
    Image.fromarray(np.ascontiguousarray(values)).save(part, format="TIFF" if path.suffix == ".tif" else "PNG")
    os.replace(part, path)
