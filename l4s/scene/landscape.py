"""The pixels of a generated scene, strip by strip: a landscape made of tiles without seams, or plain texture."""

from collections.abc import Iterator, Sequence

import numpy as np

from l4s import log
from l4s.data.bands import L4S_BANDS
from l4s.data.runout import Runouts, draw_runouts
from l4s.data.spectra import NOISE
from l4s.scene.cover import APRON, draw_cover, observe
from l4s.scene.world import Noise, Window, World, make_ground, make_world, steepness

TILT = 0.085  # of the footprint's edges against the scene's, rise per run
TILE = 512  # pixels along a tile
REACH = 64  # pixels that a slide can run from where it starts
LENGTH, WIDER, NARROWEST = 24.0, 2.4, 1.5  # median length, factor on widths and least half width of slides, pixels
SLIDES, SCARS = 0.008, 0.005  # shares of the scene that narrower slides would cover
STRIP = 256  # rows of a strip of a plain scene
RARE = 2.055  # standard deviations that 2 % of a normal distribution exceed

Strip = tuple[np.ndarray, np.ndarray]
"""Rows of a scene: image (C, h, W) uint16, 0 is nodata, and mask (h, W) uint8 in {0, 1, 255 = nodata}."""


def landscape(seed: int, height: int, width: int, bands: Sequence[str]) -> Iterator[Strip]:
    """A landscape, tile by tile. A tile's slides are kept until the tiles beside it are made, which they run into."""
    world = make_world(seed, height, width)
    across, down = -(-width // TILE), -(-height // TILE)
    kept: dict[tuple[int, int], tuple[Runouts, Runouts]] = {}
    for i in log.track(range(down), "tiles", down):
        kept = {place: both for place, both in kept.items() if place[0] >= i - 1}
        for place in ((row, column) for row in (i, i + 1) for column in range(across) if row < down):
            if place not in kept:
                kept[place] = (_draw(world, place, SCARS, 1), _draw(world, place, SLIDES, 2))
        tiles = [_tile(world, (i, j), bands, *_beside(kept, (i, j))) for j in range(across)]
        rows = slice(0, min(TILE, height - i * TILE))
        image, mask = (np.concatenate(parts, axis=-1)[..., rows, :width] for parts in zip(*tiles, strict=True))
        yield image, mask


def _draw(world: World, place: tuple[int, int], share: float, stream: int) -> Runouts:
    """The slides that start in a tile, in pixels of the scene: more on steep ground, many in some tiles, few in others."""
    rng = np.random.default_rng((world.noise.seed, *place, stream))
    window = Window(place[0] * TILE - REACH, place[1] * TILE - REACH, TILE + 2 * REACH)
    terrain = make_ground(world, window)
    rows, columns = window.axes()
    core = np.zeros(terrain.slope.shape, bool)
    core[window.inside(REACH)] = True
    core &= (rows < world.height)[:, None] & (columns < world.width)
    steep = steepness(terrain)[core].mean() / max(world.steep, 1e-6)
    pixels = share * core.sum() * steep * rng.lognormal(-0.06, 0.35)
    found = draw_runouts(rng, terrain, pixels, LENGTH, core)
    radius = np.maximum(WIDER * found.radius, NARROWEST)
    return Runouts(found.points + (window.top, window.left), radius, found.slide)


def _beside(kept: dict[tuple[int, int], tuple[Runouts, Runouts]], place: tuple[int, int]) -> tuple[Runouts, Runouts]:
    """The scars and the slides of a tile and the eight around it."""
    near = [both for other, both in kept.items() if abs(other[0] - place[0]) <= 1 and abs(other[1] - place[1]) <= 1]
    scars, slides = (_joined(parts) for parts in zip(*near, strict=True))
    return scars, slides


def _joined(parts: Sequence[Runouts]) -> Runouts:
    return Runouts(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("points", "radius", "slide")))


def _tile(world: World, place: tuple[int, int], bands: Sequence[str], scars: Runouts, slides: Runouts) -> Strip:
    window = Window(place[0] * TILE - APRON, place[1] * TILE - APRON, TILE + 2 * APRON)
    terrain = make_ground(world, window)
    share, landslide = draw_cover(world, window, terrain, scars, slides)
    core = window.inside(APRON)
    seen = observe(world, window, share, terrain, bands)[:, *core]
    rng = np.random.default_rng((world.noise.seed, *place, 3))
    noise = NOISE[[L4S_BANDS.index(band) for band in bands]].astype(np.float32)[:, None, None]
    seen += noise * rng.standard_normal(seen.shape, np.float32)
    rows, columns = window.axes()
    inside = footprint(world.height, world.width, rows[APRON:-APRON], columns[APRON:-APRON])
    return _stored(seen, landslide[core], inside)


def _stored(seen: np.ndarray, landslide: np.ndarray, inside: np.ndarray) -> Strip:
    image = np.where(inside, np.rint(seen).clip(1, 65_534), 0).astype(np.uint16)
    return image, np.where(inside, landslide, 255).astype(np.uint8)


def texture(seed: int, height: int, width: int, bands: Sequence[str]) -> Iterator[Strip]:
    """Texture with blobs: landslides, and as many others that differ in one band."""
    noise = Noise(seed)
    columns = np.arange(width)
    for top in log.track(range(0, height, STRIP), "strips", -(-height // STRIP)):
        rows = np.arange(top, min(top + STRIP, height))
        ground = 90.0 * noise.over("ground", 2.0, 200.0, rows, columns)
        fine = 30.0 * noise.over("fine", 0.5, 6.0, rows, columns)
        landslide, other = (noise.over(name, 6.0, 40.0, rows, columns) > RARE for name in ("slides", "others"))
        seen = np.stack([500.0 + 150.0 * k + (1 + 0.2 * k) * ground + fine for k in range(len(bands))])
        seen += np.float32(350.0) * landslide
        seen[:-1] += np.float32(350.0) * (other & ~landslide)
        yield _stored(seen, landslide, footprint(height, width, rows, columns))


def footprint(height: int, width: int, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Which pixels a scene has: those in a tilted rectangle whose corners touch all sides; (rows, columns) bool."""
    tilt = min(TILT, 0.25 * min(height, width) / max(height, width))
    left = (height - tilt * width) / (1 - tilt**2)  # row of the corner on the left side; the others follow
    top = left * tilt
    right = (width - top) * tilt
    bottom = width - (height - right) * tilt
    row, column = rows[:, None] + 0.5, columns[None] + 0.5
    beside = (column - top >= -tilt * row) & (column - bottom <= tilt * (height - row))
    level = (row >= (column - top) * tilt) & (row - left <= column * tilt)
    return np.asarray(beside & level)
