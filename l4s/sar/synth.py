"""Generated radar chips before and after an event, for work on Böhm 2022 where the published ones are not at hand.

A chip is a pure function of its region's settings and its index. It is meant to be hard: on one pass before and one after,
speckle and seasons hide most landslides; several passes let them out.
"""

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from l4s.data.labels import LABELS, write_labels
from l4s.data.landcover import draw_cover
from l4s.data.synth import MANIFEST, Summary, held
from l4s.data.synth_domain import SynthDomain
from l4s.data.terrain import Terrain, make_terrain
from l4s.errors import RecipeError
from l4s.files import write_json
from l4s.sar.change import Slides, draw_others, draw_season, draw_slides, draw_weather
from l4s.sar.echo import backscatter, facing, measure
from l4s.sar.layout import band_names, write_image, write_mask
from l4s.sar.region import SarRegion, two_regions, with_landslides

VERSION = 1  # raised when equal arguments would give other bytes
BITS = 11  # of the mantissa that are kept
ASKED = 1.3  # pixels of slide to ask for, for each that is wanted: slides overlap, and come to rest early
GROUND, COVER, CHANGE, SENSOR = range(4)  # streams of random numbers of a chip
TRIES = 20  # grounds that are drawn until one is steep enough for landslides


@dataclass(frozen=True, eq=False)
class SarChip:
    """One chip.

    `image`: (4 visits, H, W) float32, amplitudes > 0 or NaN, bands as `band_names` has them. `mask`: (H, W) uint8 in
    {0, 1}. `point`: x and y in pixels from the upper left corner: the middle of a pixel inside a slide, or of the chip.
    """

    image: np.ndarray
    mask: np.ndarray
    point: tuple[float, float]


def make_chip(region: SarRegion, index: int) -> SarChip:
    """Make chip `index` of a region, 0 to `region.chips` - 1.

    Raises:
        RecipeError: the region is too flat for landslides.
    """
    seeds = (region.seed, region.number, index)
    cover, change, sensor = (np.random.default_rng((*seeds, stream)) for stream in (COVER, CHANGE, SENSOR))
    terrain, slides = _ground(region, seeds, bool(with_landslides(region)[index]))
    land = draw_cover(cover, terrain, SynthDomain(size=region.size, empty=1.0))
    tilt = facing(terrain, region.incidence, region.heading, region.relief)
    before = backscatter(cover, land.share, region.level) + tilt
    after = before + draw_season(change, land.share, region.season) + draw_others(change, region.size, region.season)
    sides = [side for side in (before, after + slides.change) for _ in range(region.visits)]
    passes = np.concatenate([side + draw_weather(change, region.size) for side in sides])
    image = _end_of_swath(change, measure(sensor, passes, region.looks), region.missing)
    row, column = slides.point if slides.mask.any() else (region.size / 2 - 0.5,) * 2
    return SarChip(image, slides.mask, (column + 0.5, row + 0.5))


def _ground(region: SarRegion, seeds: tuple[int, int, int], landslides: bool) -> tuple[Terrain, Slides]:
    """Ground, and slides on it if there are to be any: level ground is drawn again, with and without slides alike."""
    for trial in range(TRIES):
        rng = np.random.default_rng((*seeds, GROUND, trial))
        terrain = make_terrain(
            rng,
            region.size,
            slope=region.slope,
            elevation=300.0,
            roughness=region.roughness,
            valley=rng.uniform(20.0, 140.0),
        )
        pixels = ASKED * region.positive * region.size**2 * rng.lognormal(-0.18, 0.6)  # of mean 1
        slides = draw_slides(rng, terrain, pixels, region.runout, region.strength)
        if slides.mask.any():
            nothing = Slides(np.zeros_like(slides.mask), np.zeros_like(slides.change), (-1, -1))
            return terrain, slides if landslides else nothing
    raise RecipeError(f"region {region.name}: slope = {region.slope:g} degrees is too level for landslides")


def _end_of_swath(rng: np.random.Generator, image: np.ndarray, chance: float) -> np.ndarray:
    """Now and then one pass has NaN beyond a straight line."""
    if rng.random() >= chance:
        return image
    size, angle = image.shape[-1], rng.uniform(0, 2 * np.pi)
    row, column = np.mgrid[:size, :size] - (size - 1) / 2
    beyond = row * np.sin(angle) + column * np.cos(angle) > rng.uniform(0.1, 0.5) * size
    first = 2 * int(rng.integers(len(image) // 2))
    image[first : first + 2, beyond] = np.nan
    return image


def write_regions(
    out: Path,
    *,
    seed: int = 0,
    chips: tuple[int, int] = (552, 2174),
    size: int = 128,
    visits: int = 5,
    strength: float = 1.0,
    workers: int = 0,
) -> dict[str, Summary]:
    """Write two regions below `out`, one with masks and one with points (`labels.csv`), and `synth.json`.

    The defaults are as many chips as in the paper. A finished data set with the same arguments is left alone; an
    interrupted one is written again. The bytes do not depend on `workers` (processes; 0 is this one).

    Returns:
        For each region what was written.

    Raises:
        DataError: `out` holds something else. RecipeError: an argument is out of range.
    """
    if workers < 0:
        raise RecipeError(f"workers = {workers} must not be negative")
    try:
        regions = two_regions(seed=seed, chips=chips, size=size, visits=visits, strength=strength)
    except ValueError as error:
        raise RecipeError(f"radar chips cannot be made: {error}") from error
    arguments = {
        "version": VERSION,
        "bands": list(band_names(visits)),
        "regions": {region.name: region.model_dump(mode="json") for region in regions},
    }
    if (finished := held(out, arguments)) is not None:
        return {region.name: finished[region.name] for region in regions}
    write_json(out / MANIFEST, {"arguments": arguments})
    splits = {region.name: _write_region(out / region.name, region, workers) for region in regions}
    write_json(out / MANIFEST, {"arguments": arguments, "splits": splits})
    return splits


def _write_region(folder: Path, region: SarRegion, workers: int) -> Summary:
    write = partial(_write_chip, folder, region)
    (folder / "img").mkdir(parents=True, exist_ok=True)
    if workers:
        # spawn: a fork would copy the threads' locks of whoever calls
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            rows = list(pool.map(write, range(region.chips), chunksize=8))
    else:
        rows = [write(index) for index in range(region.chips)]
    if region.points:
        write_labels(
            folder / LABELS, [(str(index + 1), int(count > 0), x, y) for index, (count, x, y) in enumerate(rows)]
        )
    counts = np.array([count for count, _, _ in rows], float)
    return {
        "patches": region.chips,
        "size": region.size,
        "positive": float(counts.mean()) / region.size**2 if region.chips else 0.0,
        "empty": float((counts == 0).mean()) if region.chips else 0.0,
    }


def _write_chip(folder: Path, region: SarRegion, index: int) -> tuple[int, float, float]:
    """Write a chip, its mask where the region has masks; its slide pixels and its point."""
    chip = make_chip(region, index)
    write_image(folder, index + 1, chip.image, BITS)
    if not region.points:
        write_mask(folder, index + 1, chip.mask)
    return int(chip.mask.sum()), *chip.point
