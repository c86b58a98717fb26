"""Scenes on disk: GeoTIFFs with bands by name, read by windows and written whole or not at all."""

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio._err import CPLE_BaseError  # what transformations and the writing of COGs raise; it has no public name
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader
from rasterio.shutil import copy as copy_raster
from rasterio.transform import Affine
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform_bounds
from rasterio.windows import Window

from l4s import log
from l4s.errors import DataError, did_you_mean
from l4s.files import identity, part, whole

MIB = 2**20
SMALLEST_CACHE, LARGEST_CACHE = 64 * MIB, 512 * MIB  # GDAL's own default is 5 % of the machine
EXACT = 0.01  # pixels that a reprojection may be off; GDAL's own is 0.125, which shows as steps in a slope
FINE = 3  # pixels of a scene along one of the grid, from which on they are averaged, not picked
SIDECARS = (".aux.xml", ".ovr")  # what other programs add beside a raster without changing a pixel
NEAR = 1e-9  # share of an extent that is rounding
WARP_IT = "warp it to the scene's CRS first (`gdalwarp -t_srs EPSG:326xx`, the UTM zone)"


@dataclass(frozen=True)
class Grid:
    """Where pixels lie: `height`, `width`, the CRS as WKT (None: unknown), and the affine map from (column, row).

    `transform` is (a, b, c, d, e, f) with x = a * column + b * row + c and y = d * column + e * row + f.
    """

    height: int
    width: int
    crs: str | None
    transform: tuple[float, float, float, float, float, float]

    def coarser(self, step: int, height: int, width: int) -> "Grid":
        """The grid of `height` x `width` squares of `step` pixels a side, from the same corner."""
        a, b, c, d, e, f = self.transform
        return Grid(height, width, self.crs, (a * step, b * step, c, d * step, e * step, f))

    def cut(self, row: int, column: int, height: int, width: int) -> "Grid":
        """The grid of a window."""
        a, b, c, d, e, f = self.transform
        corner = (a * column + b * row + c, d * column + e * row + f)
        return Grid(height, width, self.crs, (a, b, corner[0], d, e, corner[1]))

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Least x and y and greatest x and y of the corners: left, bottom, right, top."""
        a, b, c, d, e, f = self.transform
        corners = [(row, column) for row in (0, self.height) for column in (0, self.width)]
        x = [a * column + b * row + c for row, column in corners]
        y = [d * column + e * row + f for row, column in corners]
        return min(x), min(y), max(x), max(y)


@dataclass(frozen=True)
class Scene:
    """A raster file and the bands that are read of it: `bands` by name, at the 1-based positions `index`.

    `dtype` holds the values of all of them. `parts` are other files that pixels come from: of a mosaic (VRT), or its mask.
    """

    path: Path
    grid: Grid
    bands: tuple[str, ...]
    index: tuple[int, ...]
    dtype: str
    nodata: float | None
    parts: tuple[Path, ...] = ()

    @property
    def identity(self) -> list[object]:
        """What changes when the file does, or what it is put together of, or what a sidecar says; without reading pixels.

        Statistics and overviews that other programs put beside it change nothing.
        """
        made_of = [identity(path) for path in (self.path, *self.parts) if path.is_file()]
        return [made_of, list(self.index), list(self.bands), repr(self.nodata), *astuple(self.grid)]


@dataclass(frozen=True)
class Reader:
    """An open scene. GDAL's handles are not to be shared between threads or over a fork."""

    scene: Scene
    source: DatasetReader
    masked: bool  # may pixels be missing otherwise than as NaN?
    own_mask: bool = False  # because of a mask or an alpha band, whatever nodata is

    def window(self, row: int, column: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """The pixels of a window that lies inside the scene.

        Returns:
            image (C, height, width) float32 in file units, 0 where not valid; valid (height, width) bool: no band is
            nodata, NaN or infinite there.

        Raises:
            DataError: the file is damaged there.
        """
        values, valid = self.stored(row, column, height, width)
        return values.astype(np.float32, copy=False), valid

    def stored(self, row: int, column: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """The same, but whole numbers in the file's own dtype, which takes less memory.

        Raises:
            DataError: the file is damaged there.
        """
        image = self.values(row, column, height, width)
        valid = np.ones(image.shape[1:], bool)
        if image.dtype.kind not in "iub":
            image = image.astype(np.float32, copy=False)
            valid = np.isfinite(image).all(0)
        if self.masked:
            window = Window(column, row, width, height)
            with _named(self.scene.path, f"rows {row} to {row + height}"):
                valid &= (self.source.read_masks(list(self.scene.index), window=window) > 0).all(0)
        if not valid.all():
            image[:, ~valid] = 0
        return image, valid

    def small(
        self, row: int, column: int, height: int, width: int, shape: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """A window shrunk to `shape`, each pixel a mean of those under it, or of the file's own overviews.

        Returns:
            image (C, *shape) float32, 0 where not valid; valid (*shape) bool.

        Raises:
            DataError: the file is damaged there.
        """
        at = Window(column, row, width, height)
        with _named(self.scene.path, f"rows {row} to {row + height}"):
            found = self._read(at, out_shape=shape, resampling=Resampling.average, masked=self.masked)
        image = np.asarray(np.ma.filled(found.astype(np.float32), np.nan))
        valid = np.asarray(np.isfinite(image).all(0))
        image[:, ~valid] = 0.0
        return image, valid

    def unmasked(self, row: int, column: int, height: int, width: int) -> np.ndarray:
        """Where the file's own mask or alpha lets a window's pixels stand, (height, width) bool; nodata does not count.

        Raises:
            DataError: the file is damaged there.
        """
        if not self.own_mask:
            return np.ones((height, width), bool)
        with _named(self.scene.path, f"rows {row} to {row + height}"):
            return np.asarray(self.source.dataset_mask(window=Window(column, row, width, height)) > 0)

    def values(self, row: int, column: int, height: int, width: int) -> np.ndarray:
        """The same window as stored, (C, height, width) of the scene's dtype.

        Raises:
            DataError: the file is damaged there.
        """
        with _named(self.scene.path, f"rows {row} to {row + height}"):
            return np.asarray(self._read(Window(column, row, width, height)))

    def _read(self, window: Window, **how: Any) -> Any:
        """(C, ...) of the scene's dtype; masked where that is asked for."""
        index = self.scene.index
        if len({self.source.dtypes[place - 1] for place in index}) == 1:
            return self.source.read(list(index), window=window, **how)
        # rasterio refuses to read bands of several types together
        return np.ma.stack([self.source.read(k, window=window, **how).astype(self.scene.dtype) for k in index])


def open_scene(path: Path, bands: Sequence[str] | None = None, order: Sequence[str] = ()) -> Scene:
    """Look at a raster file without reading its pixels.

    Args:
        bands: names of the bands wanted, in the order wanted; None for all of the file.
        order: names of the file's bands in file order, where it does not name them itself. A file without names that
            has as many bands as are wanted holds those, in that order.

    Raises:
        DataError: no raster, a wanted band is missing, or the bands cannot be told by name.
    """
    with _environment(SMALLEST_CACHE), _opened(path) as source:
        names = _names(path, source, bands, order)
        wanted = tuple(names if bands is None else bands)
        if missing := [name for name in wanted if name not in names]:
            near = did_you_mean(missing[0], names).partition(" (")[0]  # the bands follow, in file order
            raise DataError(f"{path} has no band {missing[0]!r}{near}; it has {', '.join(names)}")
        crs = source.crs.to_wkt() if source.crs else None
        grid = Grid(source.height, source.width, crs, tuple(source.transform)[:6])
        index = tuple(names.index(name) + 1 for name in wanted)
        kind = np.result_type(*(source.dtypes[place - 1] for place in index))
        beside = [Path(name) for name in source.files if not name.endswith(SIDECARS)]
        return Scene(
            path, grid, wanted, index, str(kind), source.nodata, tuple(file for file in beside if file != path)
        )


def read_tags(path: Path) -> dict[str, str]:
    """The tags of a raster file: what `write_cog` was given, and GDAL's own.

    Raises:
        DataError: no raster.
    """
    with _environment(SMALLEST_CACHE), _opened(path) as source:
        return dict(source.tags())


def units(scene: Scene) -> tuple[float, float, str]:
    """What the values of a scene's first band mean, as its file says: times a scale, plus an offset, in a unit.

    The unit is in small letters, and empty where the file names none.

    Raises:
        DataError: no raster.
    """
    with _environment(SMALLEST_CACHE), _opened(scene.path) as source:
        place = scene.index[0] - 1
        return source.scales[place], source.offsets[place], (source.units[place] or "").strip().lower()


def picture_shape(path: Path) -> tuple[int, int]:
    """Height and width of a small raster file, a GeoTIFF or PNG.

    Raises:
        DataError: no such raster.
    """
    with _environment(SMALLEST_CACHE), _small(path) as source:
        return source.height, source.width


def read_picture(path: Path, most: int) -> tuple[np.ndarray, float | None]:
    """A small raster file, a GeoTIFF or PNG, as stored, without alpha.

    Args:
        most: pixels that it may have.

    Returns:
        (C, H, W) of the file's dtype, and the value that stands for missing ones, None where there is none.

    Raises:
        DataError: no such raster, a damaged or a larger one.
    """
    with _environment(SMALLEST_CACHE), _small(path) as source:
        if source.height * source.width * source.count > most * 4:
            raise DataError(
                f"{path} is {source.width} x {source.height} pixels of {source.count} bands, more than a patch can have: "
                "cut it, or map it as a scene"
            )
        with _named(path, "reading"):
            colours = [
                band for band, kind in zip(source.indexes, source.colorinterp, strict=True) if kind != ColorInterp.alpha
            ]
            return np.asarray(source.read(colours)), source.nodata


@contextmanager
def reading(scene: Scene, cache: int = SMALLEST_CACHE) -> Iterator[Reader]:
    """Open a scene for reading by windows. GDAL keeps about one row of the file's blocks in memory, or `cache` bytes.

    Raises:
        DataError: the file cannot be opened any more.
    """
    with _environment(SMALLEST_CACHE), _opened(scene.path) as source:
        height = max(shape[0] for shape in source.block_shapes)
        row = height * source.width * sum(np.dtype(kind).itemsize for kind in source.dtypes)
        rasterio.env.setenv(GDAL_CACHEMAX=min(max(cache, 2 * row), LARGEST_CACHE))
        kinds = {flag for flags in source.mask_flag_enums for flag in flags}
        own = not kinds.isdisjoint({MaskFlags.per_dataset, MaskFlags.alpha})
        yield Reader(scene, source, masked=kinds != {MaskFlags.all_valid}, own_mask=own)


@contextmanager
def warping(scene: Scene, grid: Grid) -> Iterator[Reader]:
    """Open a scene as if it lay on `grid`: interpolated bilinearly where it is read, float32, NaN outside and at nodata.

    Raises:
        DataError: the file cannot be opened any more.
    """
    with _environment(LARGEST_CACHE), _opened(scene.path) as source:
        kind = np.dtype(source.dtypes[scene.index[0] - 1])
        void = source.nodata
        if void is None and kind.kind != "u":  # none is declared: what no height is; 0 is that of the sea
            void = np.nan if kind.kind == "f" else np.iinfo(kind).min
        about: dict[str, Any] = {"transform": Affine(*grid.transform), "height": grid.height, "width": grid.width}
        about |= {"src_nodata": void, "nodata": np.nan}
        about |= {"resampling": rasterio.enums.Resampling.bilinear, "dtype": "float32", "tolerance": EXACT}
        left, _, right, _ = transform_bounds(grid.crs, source.crs, *grid.bounds)
        if (right - left) / abs(scene.grid.transform[0]) < FINE * grid.width:
            # GDAL widens its kernel wherever pixels are finer than the grid's, which bends planes where they hardly are
            about |= {"XSCALE": "1", "YSCALE": "1"}
        with WarpedVRT(source, crs=grid.crs, **about) as warped:
            yield Reader(scene, warped, masked=False)


def same_crs(one: str | None, other: str | None) -> bool:
    """Do two CRS mean the same, however they are written? Unknown ones are the same."""
    if one is None or other is None:
        return one is other
    return bool(rasterio.crs.CRS.from_user_input(one) == rasterio.crs.CRS.from_user_input(other))


def metres_per_unit(crs: str) -> float | None:
    """How long a unit of a CRS is; None where it is geographic, with degrees."""
    known = rasterio.crs.CRS.from_user_input(crs)
    return float(known.linear_units_factor[1]) if known.is_projected else None


def covers(scene: Scene, grid: Grid) -> bool:
    """Does the extent of a scene hold a grid, whatever the CRS of each (both known)?

    Raises:
        DataError: it cannot be told: no coordinates lead from the one CRS to the other, or they jump at the date line.
    """
    larger = scene.grid
    try:
        left, bottom, right, top = transform_bounds(grid.crs, larger.crs, *grid.bounds)
    except CPLE_BaseError as error:
        raise DataError(f"{scene.path} has a CRS that the scene's cannot be brought to ({error}): {WARP_IT}") from error
    if left > right:
        raise DataError(f"the scene lies across the date line, where the degrees of {scene.path} jump: {WARP_IT}")
    near = NEAR * max(larger.bounds[2] - larger.bounds[0], larger.bounds[3] - larger.bounds[1])
    within = (left - larger.bounds[0], bottom - larger.bounds[1], larger.bounds[2] - right, larger.bounds[3] - top)
    return bool(min(within) >= -near)


def write_cog(
    path: Path,
    grid: Grid,
    rows: Iterable[np.ndarray],
    *,
    dtype: str,
    nodata: float | None,
    bands: Sequence[str],
    scale: float = 1.0,
    overviews: str = "average",
    tags: Mapping[str, str] = {},
) -> None:
    """Write a tiled, compressed Cloud Optimized GeoTIFF with overviews, whole or not at all.

    Args:
        rows: strips (C, h, width) of the whole raster from top to bottom, any h.
        scale: stored value times this is the value meant.
        overviews: how GDAL makes the smaller pictures: `average`, `mode`, `nearest`.

    Raises:
        DataError: the strips do not fill the grid, or there is no room for the file.
    """
    with whole(path) as cog, _environment(SMALLEST_CACHE, sidecars=False):
        plain = part(path.with_name(f"{path.name}.plain"))
        try:
            _write_plain(plain, grid, rows, dtype=dtype, nodata=nodata, bands=bands, scale=scale, tags=tags)
            predictor = "FLOATING_POINT" if np.dtype(dtype).kind == "f" else "STANDARD"
            options = {"compress": "DEFLATE", "predictor": predictor, "blocksize": 512, "bigtiff": "IF_SAFER"}
            copy_raster(plain, cog, driver="COG", overview_resampling=overviews.upper(), **options)
            with rasterio.open(cog) as written:  # GDAL says nothing of a last block for which the disk had no room
                written.read(window=Window(grid.width - 1, grid.height - 1, 1, 1))
        except (RasterioError, CPLE_BaseError, SystemError) as error:
            raise DataError(f"{path} cannot be written ({error}): is there room on the disk?") from error
        finally:
            plain.unlink(missing_ok=True)


def _write_plain(
    path: Path,
    grid: Grid,
    rows: Iterable[np.ndarray],
    *,
    dtype: str,
    nodata: float | None,
    bands: Sequence[str],
    scale: float,
    tags: Mapping[str, str],
) -> None:
    about: dict[str, Any] = {"driver": "GTiff", "dtype": dtype, "nodata": nodata, "bigtiff": "IF_SAFER"}
    shape = {"height": grid.height, "width": grid.width, "count": len(bands)}
    top = 0
    with rasterio.open(path, "w", crs=grid.crs, transform=Affine(*grid.transform), **about, **shape) as target:
        target.descriptions = tuple(bands)
        target.scales = (scale,) * len(bands)
        target.update_tags(**tags)
        for strip in rows:
            if strip.shape[0] != len(bands) or strip.shape[2] != grid.width or top + strip.shape[1] > grid.height:
                raise DataError(f"{path}: a strip of shape {strip.shape} does not fit at row {top} of {shape}")
            target.write(strip.astype(dtype, copy=False), window=Window(0, top, grid.width, strip.shape[1]))
            top += strip.shape[1]
    if top != grid.height:
        raise DataError(f"{path}: strips of {top} rows do not fill {grid.height}")


def _names(path: Path, source: DatasetReader, bands: Sequence[str] | None, order: Sequence[str]) -> tuple[str, ...]:
    if order:
        if len(set(order)) != len(order):
            raise DataError(f"{', '.join(order)} names a band twice: name each band of {path} once, in file order")
        if len(order) != source.count:
            raise DataError(f"{path} has {source.count} bands, but {len(order)} names are given: {', '.join(order)}")
        return tuple(order)
    described = [(name or "").strip() for name in source.descriptions]
    if all(described) and len(set(described)) == source.count:
        return tuple(described)
    if bands is None:
        return tuple(f"band{number}" for number in source.indexes)
    for number, name in enumerate(described):
        if name in bands and source.count == len(bands) and bands.index(name) != number:
            raise DataError(
                f"{path} names only some of its bands, and band {number + 1} is {name}, where {bands[number]} is wanted: name "
                "all in file order with --bands"
            )
    if source.count == len(bands):
        log.warn(
            f"{path} does not name its bands: taken as {', '.join(bands)}, in this order; name them in the file if it is another"
        )
        return tuple(bands)
    raise DataError(
        f"{path} has {source.count} bands without names, where {len(bands)} are wanted ({', '.join(bands)}): name the "
        "file's bands in file order with --bands"
    )


@contextmanager
def _opened(path: Path) -> Iterator[DatasetReader]:
    if not path.is_file():
        raise DataError(f"there is no file {path}")
    with _named(path, "opening"):
        source = rasterio.open(path)
    with source:
        if not source.count:
            inner = ", ".join(name.rpartition(":")[2] for name in source.subdatasets) or "none"
            raise DataError(f"{path} holds no band itself (arrays in it: {inner}): store the one wanted as a GeoTIFF")
        yield source


@contextmanager
def _small(path: Path) -> Iterator[DatasetReader]:
    """A raster that needs no georeference, of the format that its name says: others may name files to read instead."""
    with _named(path, "opening"), warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        source = rasterio.open(path, driver="PNG" if path.suffix.lower() == ".png" else "GTiff")
    with source:
        if source.subdatasets:
            raise DataError(f"{path} holds several pages: store one picture with all its channels")
        yield source


@contextmanager
def _named(path: Path, what: str) -> Iterator[None]:
    """An error of GDAL, with the file it is about."""
    try:
        yield
    except RasterioError as error:
        raise DataError(f"{path} cannot be read ({what}: {error}): copy or download it again") from error


def _environment(cache: int, *, sidecars: bool = True) -> Any:
    """GDAL's settings. Sidecars (.aux.xml) hold nodata of JPEG 2000, names and CRS; what is written needs none."""
    return rasterio.Env(GDAL_CACHEMAX=cache, GDAL_PAM_ENABLED="YES" if sidecars else "NO", GDAL_NUM_THREADS="1")
