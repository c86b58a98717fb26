"""Landslides of a patch: where they start, how they run downhill, and the mask an expert would draw."""

from dataclasses import dataclass

import numpy as np

from l4s.data.terrain import Terrain, power_field

STEP = 1.0  # pixels
TURN = 0.35  # share of a step's direction that follows the ground; the rest is momentum
STOP = 8.0  # degrees of slope at which a slide comes to rest
OUTSIDE = -9.0  # depth of pixels that nothing reaches


@dataclass(frozen=True)
class Runouts:
    """Discs along the paths of slides: `points` (P, 2) row and column, `radius` (P,) in pixels, `slide` (P,) int."""

    points: np.ndarray
    radius: np.ndarray
    slide: np.ndarray


def draw_runouts(
    rng: np.random.Generator, terrain: Terrain, pixels: float, length: float, where: np.ndarray | None = None
) -> Runouts:
    """Let slides loose on the steep parts of a patch until they cover about `pixels`.

    Args:
        length: median length in pixels. Widths are 1 to 6 pixels, wider for longer slides.
        where: (H, W) bool, the pixels where slides may start; None: all.

    Returns:
        No points where nothing is steep enough.
    """
    size = len(terrain.dem)
    clustered = np.exp(1.3 * power_field(rng, size, 3.0, 60.0))
    likely = np.clip((terrain.slope - 21.0) / 14.0, 0.0, 1.0) ** 2 * clustered
    if where is not None:
        likely = likely * where
    candidates = int(pixels / 4) + 4
    lengths = np.clip(length * rng.lognormal(0.0, 0.6, candidates), 3.0, min(50.0, 0.6 * size))
    widths = np.clip(1.9 * (lengths / 14.0) ** 0.45 * rng.lognormal(0.0, 0.45, candidates), 1.0, 6.0)
    wanted = int(np.searchsorted(np.cumsum(0.45 * lengths * widths), pixels)) + 1
    if not likely.any():
        wanted = 0
    start = rng.choice(size**2, wanted, p=(likely / likely.sum()).ravel()) if wanted else np.zeros(0, np.int64)
    points, alive = descend(rng, terrain, np.stack([start // size, start % size], 1).astype(float), lengths[:wanted])
    along = np.arange(len(points))[:, None] * STEP / lengths[:wanted]
    radius = widths[:wanted] / 2 * _profile(rng, along)
    slide = np.broadcast_to(np.arange(wanted), alive.shape)
    return Runouts(points[alive], radius[alive], slide[alive])


def _profile(rng: np.random.Generator, along: np.ndarray) -> np.ndarray:
    """Relative half width at a share of the length: a wide scar, a narrower track, and of some a lobe at the end."""
    taper, lobe = rng.uniform(0.2, 0.8, along.shape[1]), rng.uniform(-0.3, 0.6, along.shape[1])
    width: np.ndarray = 1.0 - taper * np.clip(along * 1.6, 0, 1) + lobe * np.clip(along * 3 - 2, 0, 1)
    return width.clip(0.25, 1.2)


def descend(
    rng: np.random.Generator, terrain: Terrain, start: np.ndarray, lengths: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Follow the ground downhill with momentum from each start, for a length or until the ground is level.

    Args:
        start: (K, 2) row and column. lengths: (K,) pixels.

    Returns:
        points (T, K, 2), and which of them are part of the path (T, K) bool.
    """
    size = len(terrain.dem)
    steps = int(np.ceil(lengths.max(initial=0.0) / STEP)) + 1
    downhill = -terrain.gradient / np.maximum(np.hypot(*terrain.gradient), 1e-9)
    at, moving = start.copy(), np.ones(len(start), bool)
    heading = np.zeros_like(at)
    points, alive = np.empty((steps, *at.shape)), np.empty((steps, len(at)), bool)
    for step in range(steps):
        row, column = np.clip(np.rint(at), 0, size - 1).astype(int).T
        inside = ((at >= -0.5) & (at <= size - 0.5)).all(1)
        moving = moving & inside & (step * STEP <= lengths) & ((terrain.slope[row, column] > STOP) | (step == 0))
        points[step], alive[step] = at, moving
        turn = TURN if step else 1.0
        heading = (1 - turn) * heading + turn * downhill[:, row, column].T + rng.normal(0.0, 0.12, at.shape)
        at = at + STEP * heading / np.maximum(np.hypot(*heading.T), 1e-9)[:, None]
    return points, alive


def depth(points: np.ndarray, radius: np.ndarray, size: int) -> np.ndarray:
    """How deep each pixel lies inside a union of discs: the largest radius - distance, in pixels.

    Args:
        points: (P, 2) row and column, also outside the patch. radius: (P,) pixels.

    Returns:
        (size, size) float64; `OUTSIDE` where no disc is near.
    """
    field = np.full((size, size), OUTSIDE)
    if not len(points):
        return field
    reach = int(np.ceil(radius.max() + 1.0))
    window = np.arange(-reach, reach + 1)
    centre = np.rint(points).astype(int)
    rows, columns = centre[:, :1] + window, centre[:, 1:] + window
    distance = np.hypot((rows - points[:, :1])[:, :, None], (columns - points[:, 1:])[:, None, :])
    inside = ((rows >= 0) & (rows < size))[:, :, None] & ((columns >= 0) & (columns < size))[:, None, :]
    index = (rows[:, :, None] * size + columns[:, None, :])[inside]
    np.maximum.at(field.reshape(-1), index, (radius[:, None, None] - distance)[inside])
    return field


def draw_mask(rng: np.random.Generator, runouts: Runouts, ragged: np.ndarray, noise: float) -> np.ndarray:
    """The mask of the slides: pixels covered by half, with labels missed and shifted at a rate of `noise`.

    Args:
        ragged: (H, W) what roughens the outline, as the image has it.

    Returns:
        (H, W) uint8 in {0, 1}.
    """
    size = len(ragged)
    missed = rng.random(int(runouts.slide.max(initial=-1)) + 1) < noise
    kept = ~missed[runouts.slide]
    covered = coverage(depth(runouts.points[kept], runouts.radius[kept], size), ragged) >= 0.5
    if rng.random() < noise:
        down, right = ((-1, 0), (1, 0), (0, -1), (0, 1))[rng.integers(4)]
        covered = np.pad(covered, 1)[1 + down :, 1 + right :][:size, :size]
    return covered.astype(np.uint8)


def coverage(inside: np.ndarray, ragged: np.ndarray | float = 0.0) -> np.ndarray:
    """Share of each pixel that lies inside, from its depth: (H, W) in [0, 1]."""
    covered: np.ndarray = np.clip(inside + 0.5 + ragged, 0.0, 1.0)
    return covered
