"""A Sentinel-2 product and a DEM become a scene as the release's patches are: 14 bands in its order and units.

The release holds Level-1C reflectance x 10,000, slope in degrees and elevation in metres, each band divided by the
organisers' mean, at 10 m.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from l4s import log
from l4s.data.bands import L4S_BANDS
from l4s.data.spectra import IMG_MEAN
from l4s.data.terrain import PIXEL
from l4s.errors import DataError, RecipeError
from l4s.scene.product import Product, find_product
from l4s.scene.raster import (
    LARGEST_CACHE,
    Grid,
    Reader,
    Scene,
    covers,
    metres_per_unit,
    open_scene,
    read_tags,
    reading,
    same_crs,
    units,
    warping,
    write_cog,
)
from l4s.scene.resample import enlarge, horn
from l4s.scene.result import KIND

ROWS = 120  # of a strip; a tile's strip of 14 bands is 74 MB
SATURATED = 65_535  # a special value of the format, no measurement
DARKEST = 20.0  # no strip of a real image is darker everywhere; reflectance from 0 to 1 is
NEAR = 1e-3  # pixels that corners may lie apart
IN_METRES = [(1.0, 0.0, unit) for unit in ("", "m", "metre", "metres", "meter", "meters")]  # what a DEM may say
SCENE = "scene"  # what the tag `KIND` of a converted scene says


@dataclass(frozen=True)
class Converted:
    """What was written: size in pixels, share of valid pixels, and what was taken from where.

    `offset` is what was added to every band's numbers (where bands differ: the range as text), `b10` the constant that
    fills B10, None where the product has it.
    """

    out: Path
    height: int
    width: int
    valid: float
    level: str
    baseline: str
    offset: float | str
    offset_from: str
    b10: float | None

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self) | {"out": str(self.out)}


def convert(
    paths: Sequence[Path],
    dem: Path,
    out: Path,
    *,
    order: Sequence[str] = (),
    offset: float | None = None,
    b10: float | None = None,
) -> Converted:
    """Write the 14-band scene of a product: float32, NaN where any band has no data or is saturated.

    Bands of 20 and 60 m are interpolated bilinearly to the 10 m of B02, the DEM likewise from whatever grid and CRS it
    has; the slope is Horn's. Numbers below zero after the offset count as zero. Memory holds one strip of rows.

    Args:
        paths, order: as `find_product` wants them.
        dem: elevation in metres; a raster of one band, or with a band `dem`.
        offset: added to every number, instead of what the product's metadata say. Since baseline 04.00 it is -1000.
        b10: fills B10 with a constant (reflectance x 10,000) where a product has none, as those of Level-2A.

    Raises:
        DataError: bands are missing or do not lie on one another, the offset is not known, there is no B10, the DEM
            does not cover the scene, or nothing is valid.
    """
    product = find_product(paths, order)
    added, said = _offsets(product, offset)
    _check_b10(product, b10)
    grid = _grid(product)
    factors = [_factor(source, grid) for source in product.sources]
    ground = _ground(dem, grid)
    if out.absolute() in [path.absolute() for path in (dem, *(source.path for source in product.sources))]:
        raise DataError(f"{out} is one of the files to convert: choose another name")
    if out.exists() and read_tags(out).get(KIND) != SCENE:
        raise DataError(f"{out} is there already and no scene made by this command: choose another name, or delete it")
    level, baseline = (product.metadata.level, product.metadata.baseline) if product.metadata else ("", "")
    log.info(f"{len(product.bands)} bands, {level or 'level not stated'}, offset {_range(added)} ({said})")
    counted: list[int] = []
    strips = _strips(product.sources, factors, ground, grid, added, b10, counted)
    tags = {
        KIND: SCENE,
        "L4S_SOURCE": f"Sentinel-2 {level} {baseline} offset {_range(added)}".replace("  ", " "),
    }
    write_cog(out, grid, strips, dtype="float32", nodata=float("nan"), bands=L4S_BANDS, tags=tags)
    valid = sum(counted) / (grid.height * grid.width)
    return Converted(out, grid.height, grid.width, valid, level, baseline, _range(added), said, b10)


def _offsets(product: Product, offset: float | None) -> tuple[dict[str, float], str]:
    """What is added to the numbers of each band, and who says so."""
    if offset is not None:
        return dict.fromkeys(product.bands, offset), "--offset"
    if product.metadata is None:
        raise DataError(
            "no MTD_MSIL1C.xml or MTD_MSIL2A.xml lies beside the bands, so their offset is not known: say --offset -1000 "
            "for products of baseline 04.00 or later (made since 25 January 2022), --offset 0 for older or corrected ones"
        )
    if missing := [band for band in product.bands if band not in product.metadata.offsets]:
        raise DataError(f"{product.metadata.path} has no offset of band {missing[0]}: say it with --offset")
    return {band: product.metadata.offsets[band] for band in product.bands}, product.metadata.path.name


def _range(added: Mapping[str, float]) -> float | str:
    low, high = min(added.values()), max(added.values())
    return low if low == high else f"{low:g} to {high:g}"


def _check_b10(product: Product, b10: float | None) -> None:
    if "b10" in product.bands and b10 is not None:
        raise RecipeError("--b10 has no effect: the product has a band B10")
    if "b10" not in product.bands and b10 is None:
        raise DataError(
            "the product has no band B10 (Level-2A has none, and the release is Level-1C): give Level-1C, or fill it with "
            f"--b10 {IMG_MEAN[9]:.2f} (its mean in the release) or --b10 0 for models that can do without"
        )
    if b10 is not None and b10 < 0:
        raise RecipeError(f"--b10 {b10:g} is negative; it is a reflectance x 10,000")


def _grid(product: Product) -> Grid:
    """The grid of B02. Raises DataError where it is not north-up with 10 m pixels in metres."""
    scene = product.source("b2")
    a, b, _, d, e, _ = scene.grid.transform
    if scene.grid.crs is None:
        raise DataError(f"{scene.path} has no CRS: give it one with `gdal_edit.py -a_srs EPSG:326xx`")
    if metres_per_unit(scene.grid.crs) != 1.0 or (b, d) != (0, 0) or abs(a - PIXEL) > 1e-6 or abs(e + PIXEL) > 1e-6:
        raise DataError(
            f"{scene.path} has pixels of {a:g} x {-e:g} in units of its CRS, where B02's grid of {PIXEL:g} m, north up, is "
            "wanted: give the 10 m file, or `gdalwarp -t_srs EPSG:326xx -tr 10 10` (the UTM zone)"
        )
    return scene.grid


def _factor(source: Scene, grid: Grid) -> int:
    """How many 10 m pixels a pixel of a band is long. Raises DataError where the band does not lie on `grid`."""
    factor = round(source.grid.transform[0] / PIXEL)
    if not same_crs(source.grid.crs, grid.crs):
        raise DataError(f"{source.path} has another CRS than B02: give the bands of one tile")
    fits = (source.grid.height * factor, source.grid.width * factor) == (grid.height, grid.width)
    wanted = (factor * grid.transform[0], 0.0, grid.transform[2], 0.0, factor * grid.transform[4], grid.transform[5])
    if not fits or not np.allclose(source.grid.transform, wanted, rtol=0, atol=NEAR * PIXEL):
        raise DataError(
            f"{source.path} covers {_extent(source.grid)} with {source.grid.height} x {source.grid.width} pixels, which "
            f"does not divide B02's {_extent(grid)} with {grid.height} x {grid.width}: give the bands of one tile, cut alike"
        )
    return factor


def _extent(grid: Grid) -> str:
    left, bottom, right, top = grid.bounds
    return f"x {left:.10g} to {right:.10g}, y {bottom:.10g} to {top:.10g}"


def _ground(path: Path, grid: Grid) -> Scene:
    """The band of elevation. Raises DataError where it is not known which, not in metres, or does not cover `grid`."""
    scene = open_scene(path)
    if len(scene.bands) > 1 and "dem" not in scene.bands:
        raise DataError(f"{path} has {len(scene.bands)} bands, and none is called dem: give a raster of one band")
    if len(scene.bands) > 1:
        scene = open_scene(path, ["dem"])
    if scene.grid.crs is None:
        raise DataError(f"{path} has no CRS, so where it lies is not known: give it one with `gdal_edit.py -a_srs`")
    if (meant := units(scene)) not in IN_METRES:
        raise DataError(
            f"{path} says that its heights are stored as scale {meant[0]:g}, offset {meant[1]:g}, unit {meant[2] or 'm'!r}, where "
            "metres are wanted: `gdal_translate -unscale -ot Float32`, and multiply by the length of the unit"
        )
    if not covers(scene, grid):
        raise DataError(
            f"{path} covers {_extent(scene.grid)} in its CRS, which is not all of the scene: get a larger DEM"
        )
    return scene


def _strips(
    sources: Sequence[Scene],
    factors: Sequence[int],
    ground: Scene,
    grid: Grid,
    added: Mapping[str, float],
    b10: float | None,
    counted: list[int],
) -> Iterator[np.ndarray]:
    """Strips (14, rows, W) from top to bottom; `counted` gets their numbers of valid pixels."""
    around = grid.cut(-1, -1, grid.height + 2, grid.width + 2)
    offset = np.array([added.get(band, 0.0) for band in L4S_BANDS[:12]], np.float32)[:, None, None]
    mean = IMG_MEAN.astype(np.float32)[:, None, None]
    with ExitStack() as opened:
        # blocks of JPEG 2000 are a thousand rows high: every band's stay in memory until the strips have left them
        readers = [opened.enter_context(reading(source, cache=LARGEST_CACHE)) for source in sources]
        elevation = opened.enter_context(warping(ground, around))
        for number in log.track(range(-(-grid.height // ROWS)), "converting", -(-grid.height // ROWS)):
            top = number * ROWS
            rows = min(ROWS, grid.height - top)
            strip = np.full((14, rows, grid.width), b10 or 0.0, np.float32)
            strip[12], strip[13] = _terrain(elevation, grid, top, rows)
            valid = np.isfinite(strip[12:]).all(0)
            for reader, factor in zip(readers, factors, strict=True):
                places = [L4S_BANDS.index(band) for band in reader.scene.bands]
                strip[places], seen = _rows(reader, factor, top, rows)
                valid &= seen
            if not any(counted) and valid.any():
                _check_scale(sources[0].path, float(strip[:12, valid].max()))
            strip[:12] = np.maximum(strip[:12] + offset, 0.0)
            strip /= mean
            strip[:, ~valid] = np.nan
            counted.append(int(valid.sum()))
            yield strip
    if not any(counted):
        raise DataError(
            f"no pixel of {sources[0].path} and {ground.path} is valid in every band: they hold nothing to convert"
        )


def _terrain(elevation: Reader, grid: Grid, top: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Slope and elevation of some rows; where the DEM ends with the scene, it goes on as straight as it came."""
    dem, known = elevation.window(top, 0, rows + 2, grid.width + 2)
    dem[:, ~known] = np.nan
    (dem,) = dem
    ends = [dem.T, dem[:, ::-1].T]
    ends += [dem] if top == 0 else []
    ends += [dem[::-1]] if top + rows == grid.height else []
    for lines in ends:  # views: writing to one is writing to `dem`
        np.copyto(lines[0], 2 * lines[1] - lines[2], where=np.isnan(lines[0]))
    return horn(dem), dem[1:-1, 1:-1]


def _rows(reader: Reader, factor: int, top: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of some rows of the 10 m grid as stored, (bands, rows, W), and which were measured."""
    low, high = top // factor, -(-(top + rows) // factor)
    if factor > 1:
        low, high = max(low - 1, 0), min(high + 1, reader.scene.grid.height)
    image, valid = reader.window(low, 0, high - low, reader.scene.grid.width)
    valid &= (image != 0).all(0)
    if reader.scene.dtype == "uint16":
        valid &= (image != SATURATED).all(0)
    return (image, valid) if factor == 1 else enlarge(image, valid, factor, top - low * factor, rows)


def _check_scale(path: Path, brightest: float) -> None:
    if brightest < DARKEST:
        raise DataError(
            f"the largest number of {path} and its other bands is {brightest:g}, where reflectance x 10,000 is wanted: "
            "multiply the bands by 10,000 first"
        )
