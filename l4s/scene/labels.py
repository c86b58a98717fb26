"""Labels on a scene's pixels, by windows: polygons burnt in, masks read, points by where they lie."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import shapely
from rasterio import features, warp
from rasterio._err import CPLE_BaseError  # what transformations raise; it has no public name
from rasterio.crs import CRS
from rasterio.errors import CRSError, RasterioError
from rasterio.transform import Affine

from l4s import log
from l4s.data.patch import IGNORED
from l4s.errors import DataError
from l4s.files import identity
from l4s.scene.raster import Grid, Reader, open_scene, reading, same_crs
from l4s.scene.vector import DRIVERS, Layer, open_layer, read_shapes

CLOSE = 1e-3  # pixels by which two grids may differ and still be one
POINT, POLYGON = 0, 3
Box = tuple[float, float, float, float]


class Labels(Protocol):
    """Labels that cover a scene."""

    @property
    def path(self) -> Path: ...

    def window(self, row: int, column: int, height: int, width: int) -> np.ndarray:
        """(height, width) uint8: 1 landslide, 0 background, 255 not labelled."""
        ...


@dataclass(frozen=True, eq=False)
class Burnt:
    """Polygons: landslide is each pixel whose centre lies in one. `shapes` (N,) are in pixels of the scene."""

    path: Path
    shapes: np.ndarray
    tree: shapely.STRtree

    def window(self, row: int, column: int, height: int, width: int) -> np.ndarray:
        touched = np.sort(self.tree.query(shapely.box(column, row, column + width, row + height)))
        if not len(touched):
            return np.zeros((height, width), np.uint8)
        corner = Affine.translation(column, row)
        return np.asarray(
            features.rasterize(self.shapes[touched], (height, width), transform=corner, fill=0, dtype="uint8")
        )


@dataclass(frozen=True, eq=False)
class Points:
    """Positions of landslides: `pixel` (N, 2) float64 (column, row), and `xy` (N, 2) in the scene's CRS."""

    path: Path
    pixel: np.ndarray
    xy: np.ndarray

    def inside(self, row: int, column: int, size: int) -> np.ndarray:
        """Where the points of a square window lie, (M, 2) float64 in the scene's CRS."""
        least = np.array([column, row])
        return np.asarray(self.xy[((self.pixel >= least) & (self.pixel < least + size)).all(1)])


@dataclass(frozen=True)
class Stored:
    """A mask raster on the scene's own grid.

    What its mask or its alpha leaves out is not labelled, nor is `nodata`, unless that is 0: it is background then.
    """

    reader: Reader

    @property
    def path(self) -> Path:
        return self.reader.scene.path

    def window(self, row: int, column: int, height: int, width: int) -> np.ndarray:
        values, nodata = self.reader.values(row, column, height, width)[0], self.reader.scene.nodata
        unknown = (values == IGNORED) | (values != values)  # NaN
        unknown |= ~self.reader.unmasked(row, column, height, width)
        if nodata is not None and nodata != 0:
            unknown |= values == nodata
        if (strange := values[~unknown & (values != 0) & (values != 1)]).size:
            raise DataError(
                f"{self.path} holds {strange[0]:g} (rows from {row}); a mask holds 0, 1 for landslide, and {IGNORED} or "
                "its nodata value where nothing is known"
            )
        return np.where(unknown, IGNORED, values == 1).astype(np.uint8)


def label_identity(path: Path) -> list[object]:
    """What changes when labels do, without reading them.

    Raises:
        DataError: a mask raster that is none.
    """
    if path.suffix.lower() not in DRIVERS:
        return open_scene(path).identity
    # of a shapefile the CRS is in a file of its own
    return [identity(file) for file in (path, path.with_suffix(".prj")) if file.is_file()]


@contextmanager
def reading_labels(path: Path, grid: Grid, layer: str | None = None) -> Iterator[Burnt | Points | Stored]:
    """Open labels for a scene: polygons or points of a vector file in any CRS, or a mask raster of the scene's grid.

    Labels or a scene without a CRS: the labels are taken to lie in the scene's coordinates, and a warning says so.

    Raises:
        DataError: no such file, other geometries, labels that do not touch the scene, or another grid.
    """
    if path.suffix.lower() in DRIVERS:
        yield _shapes(open_layer(path, layer), grid)
        return
    if layer is not None:
        raise DataError(f"{path} is no vector file, so it has no layer {layer!r}: leave it out")
    scene = open_scene(path)
    if len(scene.bands) != 1:
        raise DataError(f"{path} has {len(scene.bands)} bands; a mask has one")
    refuse_other_grid(path, scene.grid, grid)
    with reading(scene) as reader:
        yield Stored(reader)


@contextmanager
def reading_masks(path: Path, grid: Grid, layer: str | None = None) -> Iterator[Burnt | Stored]:
    """The same where points will not do."""
    with reading_labels(path, grid, layer) as labels:
        if isinstance(labels, Points):
            raise DataError(f"{path} holds points, which have no area: polygons or a mask raster are needed")
        yield labels


def refuse_other_grid(path: Path, found: Grid, wanted: Grid) -> None:
    """Raises DataError where the pixels of `path` are not those of the scene, and says how they differ."""
    differences = []
    if (found.height, found.width) != (wanted.height, wanted.width):
        differences.append(f"{found.height} x {found.width} pixels, not {wanted.height} x {wanted.width}")
    if found.crs is None or wanted.crs is None:
        if found.crs != wanted.crs:
            log.warn(f"{path} or the scene has no CRS: they are taken to have the same")
    elif not same_crs(found.crs, wanted.crs):
        differences.append(f"CRS {_called(found.crs)}, not {_called(wanted.crs)}")
    a, b, _, d, e, _ = wanted.transform
    pixel = min(np.hypot(a, d), np.hypot(b, e))
    if np.abs(_corners(found) - _corners(wanted)).max() > CLOSE * pixel and not differences:
        differences.append(f"transform {found.transform}, not {wanted.transform}")
    if differences:
        raise DataError(
            f"{path} lies on another grid than the scene: {'; '.join(differences)}. Warp it to the scene's grid "
            "(nearest neighbour), or give polygons, which fit any grid"
        )


def _shapes(layer: Layer, grid: Grid) -> Burnt | Points:
    source, target = layer.crs, grid.crs
    if (source is None) != (target is None):
        log.warn(
            f"{layer.path if source is None else 'the scene'} has no CRS: labels are taken to lie in its coordinates"
        )
    with _named(layer.path):
        same = source is None or target is None or CRS.from_user_input(source) == CRS.from_wkt(target)
        box = grid.bounds if same else _box_in(grid, str(source))
        shapes = read_shapes(layer, box)
        if not same:
            shapes = shapely.transform(shapes, lambda xy: _moved(xy, str(source), str(target)))
    inside = shapely.transform(shapes, lambda xy: _to_pixels(xy, grid))
    touching = shapely.intersects(inside, shapely.box(0, 0, grid.width, grid.height))
    if not touching.any():
        whose = "the scene's" if same else "their own"
        raise DataError(
            f"{layer.path} does not touch the scene: in {whose} CRS the labels span {_span(layer.bounds)}, the scene "
            f"{_span(box)}"
        )
    return _sorted_out(layer, shapes[touching], inside[touching])


def _sorted_out(layer: Layer, shapes: np.ndarray, inside: np.ndarray) -> Burnt | Points:
    kinds = set(shapely.get_type_id(shapes).tolist())
    if kinds == {POLYGON}:
        return Burnt(layer.path, inside, shapely.STRtree(inside))
    if kinds == {POINT}:
        return Points(layer.path, shapely.get_coordinates(inside), shapely.get_coordinates(shapes))
    names = sorted({shape.geom_type for shape in shapes})
    raise DataError(
        f"{layer.path} holds {' and '.join(names)}: labels are polygons, or points, in a layer of their own"
    )


def _moved(xy: np.ndarray, source: str, target: str) -> np.ndarray:
    moved = warp.transform(CRS.from_user_input(source), CRS.from_wkt(target), xy[:, 0], xy[:, 1])
    return np.asarray(moved, np.float64).T


def _to_pixels(xy: np.ndarray, grid: Grid) -> np.ndarray:
    a, b, c, d, e, f = grid.transform
    inverse = np.linalg.inv(np.array([[a, b], [d, e]]))
    return np.asarray((xy - (c, f)) @ inverse.T)


def _corners(grid: Grid) -> np.ndarray:
    a, b, c, d, e, f = grid.transform
    places = np.array([[0, 0], [grid.width, 0], [0, grid.height], [grid.width, grid.height]], np.float64)
    return np.asarray(places @ np.array([[a, d], [b, e]]) + (c, f))


def _box_in(grid: Grid, crs: str) -> Box:
    """A box in another CRS that holds the grid, with a margin of 1 % for edges that are bent there."""
    left, bottom, right, top = warp.transform_bounds(
        CRS.from_wkt(str(grid.crs)), CRS.from_user_input(crs), *grid.bounds
    )
    if left > right:  # the scene lies across the date line
        left, right = -180.0, 180.0
    x, y = 0.01 * (right - left), 0.01 * (top - bottom)
    return left - x, bottom - y, right + x, top + y


def _span(box: Box) -> str:
    left, bottom, right, top = box
    return f"x {left:.10g} to {right:.10g}, y {bottom:.10g} to {top:.10g}"


def _called(wkt: str) -> str:
    crs = CRS.from_wkt(wkt)
    code = crs.to_epsg()
    return f"EPSG:{code}" if code else wkt[:60]


@contextmanager
def _named(path: Path) -> Iterator[Any]:
    """An error of a transformation between CRSs, with the file it is about."""
    try:
        yield
    except (RasterioError, CRSError, CPLE_BaseError) as error:
        raise DataError(f"{path} cannot be brought to the scene's CRS ({error}): clip it to the scene") from error
