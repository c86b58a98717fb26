"""Generated mountains: a power-law field that rivers have cut, as DEM, slope, sunlight and streams.

A Gaussian field alone has as many pits as peaks. Real relief drains: here a drainage tree grows on the field, and heights
are summed up along it with the slope-area law of bedrock rivers, S ~ A^-theta below a straight hillslope. Fine relief
with a power-law spectrum comes on top.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.fft import irfft2, next_fast_len
from scipy.ndimage import distance_transform_edt, gaussian_filter
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import breadth_first_order, minimum_spanning_tree

PIXEL = 10.0  # metres
CELL = 2 * PIXEL  # drainage is computed on a grid half as fine
MARGIN = 18  # cells around the patch, so that valleys do not end at its border
HILLSLOPE = 25.0  # cells of drained area from which slopes flatten downstream
CONCAVITY = 0.4  # theta of the slope-area law; 0.4 to 0.6 is measured in nature
TALUS = 1.35  # rise per metre, of the mean of straight hillslopes, beyond which divides collapse
STREAM = 150.0  # cells of drained area that make a stream
STEPS = tuple((row, column) for row in (-1, 0, 1) for column in (-1, 0, 1) if (row, column) != (0, 0))


@dataclass(frozen=True)
class Terrain:
    """The ground of a patch.

    `dem`: (H, W) float64, metres. `slope`: (H, W) float64, degrees. `gradient`: (2, H, W) float64, rise per metre towards
    higher rows and columns. `streams`: (N, 5) float64, pieces of stream as row, column, row and column downstream (in
    pixels, also outside the patch) and drained area in cells.
    """

    dem: np.ndarray
    slope: np.ndarray
    gradient: np.ndarray
    streams: np.ndarray


def power_field(rng: np.random.Generator, size: int, beta: float, longest: float = np.inf) -> np.ndarray:
    """A Gaussian random field with the power spectrum |k|^-beta, flat above the wavelength `longest` (pixels).

    Returns:
        (size, size) float32 with mean 0 and standard deviation 1; opposite borders differ.
    """
    # The transform is periodic; a cut-out of a square that is larger by a wavelength is not.
    large = next_fast_len(size + int(min(size / 2, longest)), real=True)
    normal = rng.standard_normal((large, large // 2 + 1, 2), np.float32).view(np.complex64)[..., 0]
    normal *= _amplitude(large, beta, longest)
    field = irfft2(normal, (large, large), overwrite_x=True)[:size, :size]
    centred: np.ndarray = field - field.mean()
    centred /= centred.std()
    return centred


@lru_cache(maxsize=64)
def _amplitude(size: int, beta: float, longest: float) -> np.ndarray:
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size))
    frequency[0, 0] = np.inf  # no mean
    amplitude: np.ndarray = np.maximum(frequency, 1 / longest) ** (-beta / 2)
    return amplitude.astype(np.float32)


def make_terrain(
    rng: np.random.Generator, size: int, *, slope: float, elevation: float, roughness: float, valley: float
) -> Terrain:
    """Draw the ground of one patch.

    Args:
        size: pixels along each side.
        slope: mean slope in degrees, about which patches vary.
        elevation: height of the valley floors in metres, about which patches vary.
        roughness: factor on the fine relief.
        valley: half width of the largest valley floors in metres.
    """
    cells = max((size + 1) // 2 + 2 * MARGIN, 64)
    heights, receiver, area = fluvial(rng, cells)
    heights = flat_floors(heights, area.reshape(heights.shape), valley)
    start = (cells - (size + 1) // 2) // 2
    # Repeated cells are stairs; this Gaussian takes them out and is what diffusion does to hillslopes.
    fine = gaussian_filter(heights.repeat(2, 0).repeat(2, 1), 1.3)[2 * start :, 2 * start :][:size, :size]
    rough = power_field(rng, size, 3.4, 30.0)
    steepness = np.hypot(*np.gradient(fine, PIXEL))
    relief = fine + 5.0 * roughness * rough * gaussian_filter(np.minimum(steepness, 1.0), 2.0)
    wanted = np.tan(np.radians(slope * np.clip(1.3 - 0.25 * rng.gamma(1.2), 0.3, None)))
    factor = wanted / np.hypot(*np.gradient(relief, PIXEL)).mean()
    dem = np.maximum(relief * factor, 0.0) + elevation * rng.uniform(0.6, 1.4)
    gradient = np.stack(np.gradient(dem, PIXEL))
    return Terrain(dem, slope_degrees(dem), gradient, find_streams(receiver, area, start))


def slope_degrees(dem: np.ndarray) -> np.ndarray:
    """Slope of a DEM in degrees: (H, W) metres at 10 m pixels -> (H, W) in [0, 90)."""
    slope: np.ndarray = np.degrees(np.arctan(np.hypot(*np.gradient(dem, PIXEL))))
    return slope


def sunlight(gradient: np.ndarray, azimuth: float, elevation: float) -> np.ndarray:
    """Direct sunlight on a slope as a share of that on level ground: cos(incidence) / cos(zenith), at least 0.

    Args:
        gradient: (2, H, W) rise per metre towards higher rows (south) and columns (east).
        azimuth, elevation: of the sun, in degrees; the azimuth from north over east.
    """
    south, east = gradient
    level, height = np.cos(np.radians(elevation)), np.sin(np.radians(elevation))
    sun_east, sun_north = level * np.sin(np.radians(azimuth)), level * np.cos(np.radians(azimuth))
    facing = (height - east * sun_east + south * sun_north) / np.sqrt(1.0 + south**2 + east**2)
    direct: np.ndarray = np.maximum(facing, 0.0) / height
    return direct


def fluvial(rng: np.random.Generator, cells: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A drained square: heights (cells, cells) in metres, each cell's receiver (cells^2 + 1,), and the area it drains."""
    field = power_field(rng, cells, 3.6).astype(np.float64)
    erodible = np.exp(0.4 * power_field(rng, cells, 2.6, 30.0)).ravel()
    receiver = _spanning_tree(field)
    outlets = receiver[:-1] == cells**2
    for _ in range(3):  # divides move until both sides are equally steep
        area = drained_area(receiver)
        rise = erodible * np.minimum(1.0, (HILLSLOPE / area[:-1]) ** CONCAVITY)
        heights = _collapse(_sum_along(receiver, rise * _distance(receiver, cells)).reshape(cells, cells))
        receiver = np.where(np.append(outlets, True), cells**2, _steepest(heights))
    return heights, receiver, drained_area(receiver)[:-1]


def _spanning_tree(field: np.ndarray) -> np.ndarray:
    """Receivers on the paths to the border that climb least; only the lower part of the border lets water out."""
    cells = len(field)
    height = (field - field.min() + 1.0).ravel()
    index = np.arange(cells**2).reshape(cells, cells)
    first = np.concatenate([index[:, :-1].ravel(), index[:-1].ravel()])
    second = np.concatenate([index[:, 1:].ravel(), index[1:].ravel()])
    low, high = np.minimum(height[first], height[second]), np.maximum(height[first], height[second])
    border = np.unique(np.concatenate([index[0], index[-1], index[:, 0], index[:, -1]]))
    open_ = border[height[border] <= np.quantile(height[border], 0.12)]
    rows, columns = np.append(first, open_), np.append(second, np.full(open_.size, cells**2))
    # Among equal climbs the lower neighbour wins.
    weight = np.append(high + 1e-3 * low, height[open_])
    graph = coo_matrix((weight, (rows, columns)), shape=(cells**2 + 1, cells**2 + 1)).tocsr()
    receiver: np.ndarray = breadth_first_order(minimum_spanning_tree(graph), cells**2, directed=False)[1]
    receiver[cells**2] = cells**2
    return receiver


def _doublings(receiver: np.ndarray) -> Iterator[np.ndarray]:
    """Receivers 1, 2, 4, 8, ... cells downstream, until everything has left through the last index."""
    while not (receiver == len(receiver) - 1).all():
        yield receiver
        receiver = receiver[receiver]


def drained_area(receiver: np.ndarray) -> np.ndarray:
    """How many cells drain through each cell, itself included; the last index is the outside and counts nothing."""
    area = np.ones(len(receiver))
    area[-1] = 0.0
    for far in _doublings(receiver):
        area = area + np.bincount(far, area, len(area))
        area[-1] = 0.0
    return area


def _sum_along(receiver: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Sum of the values of a cell and of all cells downstream of it."""
    total = np.append(values, 0.0)
    for far in _doublings(receiver):
        total = total + total[far]
    return total[:-1]


def _distance(receiver: np.ndarray, cells: int) -> np.ndarray:
    """Metres from each cell to its receiver; one cell where that is the outside."""
    here = np.arange(cells**2)
    there = np.where(receiver[:-1] == cells**2, here + 1, receiver[:-1])
    diagonal = (here // cells != there // cells) & (here % cells != there % cells)
    return np.where(diagonal, np.sqrt(2.0), 1.0) * CELL


def _steepest(heights: np.ndarray) -> np.ndarray:
    """Index of the neighbour that lies steepest below each cell, with the outside appended."""
    cells = len(heights)
    padded = np.pad(heights, 1, constant_values=np.inf)
    steepest, offset = np.full(heights.shape, -np.inf), np.zeros(heights.shape, np.int64)
    for row, column in STEPS:
        drop = (heights - padded[1 + row :, 1 + column :][:cells, :cells]) / np.hypot(row, column)
        np.copyto(offset, row * cells + column, where=drop > steepest)
        np.maximum(steepest, drop, out=steepest)
    return np.append(np.arange(cells**2) + offset.ravel(), cells**2)


def _collapse(heights: np.ndarray) -> np.ndarray:
    """Lower what stands steeper than `TALUS` above a neighbour: cliffs where two basins meet at different heights."""
    lowered = heights.copy()
    for _ in range(8):
        limit = lowered + TALUS * CELL
        np.minimum(lowered[1:], limit[:-1], out=lowered[1:])
        np.minimum(lowered[:-1], limit[1:], out=lowered[:-1])
        np.minimum(lowered[:, 1:], limit[:, :-1], out=lowered[:, 1:])
        np.minimum(lowered[:, :-1], limit[:, 1:], out=lowered[:, :-1])
    return lowered


def flat_floors(heights: np.ndarray, area: np.ndarray, valley: float) -> np.ndarray:
    """Fill the ground beside streams to the height of the stream: wide floors, `valley` metres, where much area drains."""
    stream = area >= STREAM
    if not stream.any() or valley == 0:
        return heights
    distance, (row, column) = distance_transform_edt(~stream, return_indices=True)
    width = valley / CELL * np.sqrt(area[row, column] / area.max())
    share = np.clip(1.6 - distance / np.maximum(width, 0.5), 0.0, 1.0)
    flat: np.ndarray = np.minimum(heights, heights[row, column] * share + heights * (1 - share))
    return flat


def find_streams(receiver: np.ndarray, area: np.ndarray, start: int, step: int = 2) -> np.ndarray:
    """Pieces of stream in pixels from cell `start` on; positions are averaged downstream, which rounds the grid's corners.

    Args:
        receiver, area: of a square of cells, as `fluvial` makes them. step: pixels along a cell.

    Returns:
        As `Terrain.streams`.
    """
    cells = round(np.sqrt(len(area)))
    index = np.flatnonzero(area >= STREAM)
    inside = np.append(np.arange(cells**2), 0)
    path = [index]
    for _ in range(5):
        following = receiver[path[-1]]
        path.append(np.where(following == cells**2, path[-1], inside[following]))
    rows, columns = (step * (place - start) + (step - 1) / 2 for place in np.divmod(np.stack(path), cells))
    ends = [rows[:5].mean(0), columns[:5].mean(0), rows[1:].mean(0), columns[1:].mean(0), area[index]]
    return np.stack(ends, axis=1)
