"""From a raster of probabilities to polygons of landslides, by strips, with no landslide cut where strips meet."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import shapely
from rasterio import features
from rasterio.transform import Affine
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from l4s import log
from l4s.errors import DataError
from l4s.scene.area import Areas, pixel_areas
from l4s.scene.labels import Labels, reading_masks
from l4s.scene.raster import Grid, Reader, reading
from l4s.scene.result import LEVELS, NODATA, cut_at, first_code, open_probability
from l4s.scene.vector import write_shapes

ROWS = 512  # of a strip: the tiles of a COG
BATCH = 5_000  # polygons written at once


@dataclass(frozen=True, eq=False)
class Piece:
    """A landslide, or what has been seen of one.

    `pixels`; `total` and `best` of their codes; `weight` of their area (see `Areas`); the raster index of its `last`
    pixel; and `shapes`, its polygon in each strip, in pixels of the scene.
    """

    pixels: int
    total: int
    best: int
    weight: int
    last: int
    shapes: tuple[shapely.Polygon, ...]


@dataclass(frozen=True)
class Found:
    """What was written: landslides, their pixels, and their area in square metres, or, where not `metric`, in squared units."""

    landslides: int
    area: float
    pixels: int
    metric: bool


def write_polygons(
    probs: Path,
    out: Path,
    *,
    threshold: float | None = None,
    min_area: float = 0.0,
    simplify: float = 0.0,
    mask: Path | None = None,
    rows: int = ROWS,
) -> Found:
    """Write the landslides of a raster of probabilities as polygons with holes, in the CRS of the raster.

    A landslide is a set of pixels that share edges (4-connected, as `scipy.ndimage.label` has it). Its attributes: `id`,
    `area` in square metres (see `l4s.scene.area`), `pixels`, `mean` and `maximum` probability. Ids follow the order of
    the last pixels, row by row. Memory holds one strip and the landslides that reach its lower edge.

    Args:
        out: a .gpkg or .geojson; replaced when the new one is whole.
        threshold: pixels with this probability or more are landslide; None is 0.5, of probabilities alone.
        min_area: smaller landslides are left out; in square metres.
        simplify: how far, in metres, an outline may be moved to need fewer corners; `area` stays that of the pixels.
        mask: a mask raster of the same grid that says what is landslide, in place of the threshold.
        rows: rows of a strip. The result does not depend on it.

    Raises:
        DataError: rasters that cannot be read or do not fit, options that cannot mean anything, a format that cannot
            hold the result.
    """
    _check(threshold, min_area, simplify, mask)
    result = open_probability(probs)
    scene = result.scene
    areas = pixel_areas(scene.grid, str(probs))
    if simplify and areas.metre is None:
        raise DataError(f"{probs} is in degrees, where {simplify:g} metres have no length: reproject it, say to UTM")
    tolerance = simplify * (areas.metre or 0.0)
    first = 0 if mask else first_code(cut_at(probs, result, threshold))
    landslides = pixels = weight = 0
    masked = reading_masks(mask, scene.grid) if mask else nullcontext()
    with reading(scene) as reader, masked as masks, write_shapes(out, scene.grid.crs) as put:
        strips = _strips(reader, masks, first, rows)
        for batch in _batches(stitch(strips, areas, min_area)):
            put(_placed(batch, scene.grid, tolerance), _columns(batch, areas, landslides))
            landslides += len(batch)
            pixels += sum(piece.pixels for piece in batch)
            weight += sum(piece.weight for piece in batch)
    return Found(landslides, weight * areas.unit, pixels, areas.known)


def stitch(strips: Iterable[tuple[np.ndarray, np.ndarray]], areas: Areas, least: float = 0.0) -> Iterator[list[Piece]]:
    """Connected landslides of a raster that comes in strips from top to bottom.

    Args:
        strips: (landslide (h, W) bool, codes (h, W) uint8) of consecutive rows.
        least: smaller areas are left out, in square metres.

    Yields:
        The landslides that are whole, after each strip and at the end, in the order of their last pixels.
    """
    unfinished: list[Piece] = []
    above = np.zeros(0, np.int64)  # place in `unfinished`, from 1, of each pixel of the row above
    top = 0
    for positive, codes in strips:
        labels, count = ndimage.label(positive)
        above = above if len(above) else np.zeros(labels.shape[1], np.int64)
        group = _groups(above, labels[0], len(unfinished), count)
        edge = np.unique(np.concatenate([labels[0][above > 0], labels[-1]]))
        pieces = _pieces(labels, count, codes, areas, top, least, edge)
        whole, unfinished, above = _joined([*unfinished, *pieces], group, labels[-1], len(unfinished))
        yield _large(whole, areas, least)
        top += labels.shape[0]
    yield _large(unfinished, areas, least)


def _groups(above: np.ndarray, below: np.ndarray, unfinished: int, count: int) -> np.ndarray:
    """Which of the unfinished landslides and of the labels below belong together: (unfinished + count,) ints."""
    touching = (above > 0) & (below > 0)
    ends = (above[touching] - 1, below[touching].astype(np.int64) - 1 + unfinished)
    size = unfinished + count
    if not size:
        return np.zeros(0, np.int64)
    links = coo_array((np.ones(len(ends[0]), np.int8), ends), shape=(size, size))
    return np.asarray(connected_components(links, directed=False)[1])


def _pieces(
    labels: np.ndarray, count: int, codes: np.ndarray, areas: Areas, top: int, least: float, edge: np.ndarray
) -> list[Piece | None]:
    """Every label of a strip, in order; None for those that are whole and too small to keep."""
    if not count:
        return []
    where = np.flatnonzero(labels)
    label = labels.ravel()[where]
    row = where // labels.shape[1]
    pixels = np.bincount(label, minlength=count + 1)
    # sums below 2**53 are exact in float64
    total = np.bincount(label, codes.ravel()[where], count + 1).astype(np.int64)
    weight = np.bincount(label, areas.weights[top + row], count + 1).astype(np.int64)
    best, last = np.zeros(count + 1, np.int64), np.zeros(count + 1, np.int64)
    np.maximum.at(best, label, codes.ravel()[where])
    last[label] = where + top * labels.shape[1]  # of equal places the last one stays, and `where` rises
    kept = weight * areas.unit >= least
    kept[edge] = True
    kept[0] = False
    shapes = _outlines(np.where(kept[labels], labels, 0).astype(np.int32), top)
    numbers = zip(pixels.tolist(), total.tolist(), best.tolist(), weight.tolist(), last.tolist(), strict=True)
    return [Piece(*number, (shapes[label],)) if kept[label] else None for label, number in enumerate(numbers) if label]


def _outlines(labels: np.ndarray, top: int) -> dict[int, shapely.Polygon]:
    found = features.shapes(labels, mask=labels > 0, connectivity=4, transform=Affine.translation(0, top))
    return {int(label): shapely.geometry.shape(outline) for outline, label in found}


def _joined(
    pieces: list[Piece | None], group: np.ndarray, bottom: np.ndarray, unfinished: int
) -> tuple[list[Piece], list[Piece], np.ndarray]:
    """Put together what belongs together: the whole landslides, the unfinished ones, and these in the bottom row."""
    members: dict[int, list[Piece]] = defaultdict(list)
    for piece, number in zip(pieces, group.tolist(), strict=True):
        if piece is not None:
            members[number].append(piece)
    lower = np.zeros(len(bottom), np.int64)
    reaching = np.unique(group[bottom[bottom > 0] - 1 + unfinished])
    lower[bottom > 0] = np.searchsorted(reaching, group[bottom[bottom > 0] - 1 + unfinished]) + 1
    open_ = [_merged(members.pop(number)) for number in reaching.tolist()]
    return [_merged(parts) for parts in members.values()], open_, lower


def _merged(parts: list[Piece]) -> Piece:
    if len(parts) == 1:
        return parts[0]
    return Piece(
        pixels=sum(part.pixels for part in parts),
        total=sum(part.total for part in parts),
        best=max(part.best for part in parts),
        weight=sum(part.weight for part in parts),
        last=max(part.last for part in parts),
        shapes=tuple(shape for part in parts for shape in part.shapes),
    )


def _large(pieces: list[Piece], areas: Areas, least: float) -> list[Piece]:
    return sorted((piece for piece in pieces if piece.weight * areas.unit >= least), key=lambda piece: piece.last)


def _strips(reader: Reader, masks: Labels | None, first: int, rows: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    height, width = reader.scene.grid.height, reader.scene.grid.width
    starts = range(0, height, rows)
    for place in log.track(range(len(starts)), f"polygons of {reader.scene.path.name}", len(starts)):
        at = (starts[place], 0, min(rows, height - starts[place]), width)
        codes = reader.values(*at)[0]
        if masks is None:
            yield (codes >= first) & (codes != NODATA), codes
            continue
        positive = masks.window(*at) == 1
        if (positive & (codes == NODATA)).any():
            raise DataError(f"{masks.path} marks landslides where {reader.scene.path} has no value (rows from {at[0]})")
        yield positive, codes


def _batches(found: Iterable[list[Piece]]) -> Iterator[list[Piece]]:
    """The same in lists of `BATCH` or a few more; one without any where nothing was found."""
    waiting: list[Piece] = []
    written = False
    for pieces in found:
        waiting += pieces
        if len(waiting) >= BATCH:
            yield waiting
            waiting, written = [], True
    if waiting or not written:
        yield waiting


def _placed(pieces: list[Piece], grid: Grid, tolerance: float) -> np.ndarray:
    """Outlines on the map. Their corners do not tell where strips met: (N,) valid polygons."""
    whole = [piece.shapes[0] if len(piece.shapes) == 1 else shapely.union_all(piece.shapes) for piece in pieces]
    # rings begin at a true corner, lose the points between corners, and only then have an order of their own
    corners = shapely.normalize(
        shapely.simplify(shapely.normalize(np.array(whole, object)), 0.0, preserve_topology=False)
    )
    a, b, c, d, e, f = grid.transform
    matrix = np.array([[a, d], [b, e]])
    placed = shapely.transform(corners, lambda xy: xy @ matrix + (c, f))
    if tolerance:
        simple = shapely.simplify(placed, tolerance)
        placed = np.where(shapely.is_valid(simple) & ~shapely.is_empty(simple), simple, placed)
    return np.asarray(shapely.orient_polygons(placed), object)


def _columns(pieces: list[Piece], areas: Areas, before: int) -> dict[str, np.ndarray]:
    pixels = np.array([piece.pixels for piece in pieces], np.int64)
    return {
        "id": before + 1 + np.arange(len(pieces), dtype=np.int64),
        "area": np.array([piece.weight * areas.unit for piece in pieces], np.float64),
        "pixels": pixels,
        "mean": np.array([piece.total for piece in pieces], np.float64) / pixels / LEVELS,
        "maximum": np.array([piece.best for piece in pieces], np.float64) / LEVELS,
    }


def _check(threshold: float | None, min_area: float, simplify: float, mask: Path | None) -> None:
    if mask is not None and threshold is not None:
        raise DataError(f"a threshold of {threshold:g} means nothing where {mask} says what is landslide: give one")
    for what, value in (("least area", min_area), ("simplification", simplify)):
        if not 0 <= value < float("inf"):
            raise DataError(f"the {what} is {value:g}: take 0 or more")
