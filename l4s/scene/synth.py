"""Generated scenes with labels: for demonstrations, tests and measurements that need a whole scene and its truth."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import shapely
from rasterio import band
from rasterio.features import shapes

from l4s.data.patch import IGNORED
from l4s.data.terrain import PIXEL
from l4s.errors import DataError, RecipeError
from l4s.scene.landscape import STRIP, Strip, landscape, texture
from l4s.scene.raster import Grid, open_scene, read_tags, reading, write_cog
from l4s.scene.vector import WRITERS, open_layer, read_shapes, write_shapes

VERSION = 1  # raised when equal arguments would give other bytes
BANDS = ("b2", "b3", "b4", "b8")  # those that Sentinel-2 samples at 10 m
CRS = "EPSG:32654"
CORNER = (500_000.0, 4_700_000.0)
TAG, SUMMARY = "L4S_SYNTH", "L4S_SUMMARY"


@dataclass(frozen=True)
class Pair:
    """A scene on disk, its mask and its polygons; shares of valid pixels, and of landslide among them; `count` polygons."""

    scene: Path
    mask: Path
    labels: Path
    height: int
    width: int
    valid: float
    landslide: float
    count: int

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self) | {name: str(getattr(self, name)) for name in ("scene", "mask", "labels")}


def write_scene_pair(
    out: Path,
    labels: Path | None = None,
    *,
    height: int,
    width: int,
    seed: int = 0,
    bands: Sequence[str] = BANDS,
    plain: bool = False,
) -> Pair:
    """Write a generated scene and its landslides; what is there already, made with the same arguments, is left alone.

    The same arguments give the same bytes on one machine with one number of threads (`OMP_NUM_THREADS`): the linear algebra
    library cuts its sums by them.

    `out` is uint16 at 10 m, reflectance x 10,000, with a tilted footprint and 0 around it. The landslides, about 2 % of
    the pixels, come as `<out>-mask.tif` (0, 1, 255 outside) and as polygons, which follow the mask's pixels.

    Args:
        labels: a .gpkg or .geojson to write; default `<out>-labels.gpkg`.
        bands: some of b2, b3, b4, b8.
        plain: texture and blobs instead of a landscape: for scenes that are only to be large.

    Raises:
        RecipeError: an argument is out of range. DataError: one of the three files is something else.
    """
    if not bands or len(set(bands)) != len(bands) or not set(bands) <= set(BANDS):
        raise RecipeError(f"bands = {', '.join(bands)}: some of {', '.join(BANDS)}, each once, can be generated")
    if min(height, width) < 16 or seed < 0:
        raise RecipeError(
            f"a scene of {height} x {width} with seed {seed}: sides from 16 and seeds from 0 can be generated"
        )
    mask = out.with_name(f"{out.stem}-mask.tif")
    labels = labels or out.with_name(f"{out.stem}-labels.gpkg")
    if labels.suffix not in WRITERS:
        raise RecipeError(f"labels {labels} end in {labels.suffix!r}: polygons are written to {' or '.join(WRITERS)}")
    arguments = json.dumps([VERSION, seed, height, width, [*bands], plain])
    held = _held(out, arguments), _held(mask, arguments), labels.is_file()
    if labels.exists() and not held[1]:
        raise DataError(f"{labels} is there, and was not made with {mask}: choose another name or delete it")
    if not all(held):
        strips = (texture if plain else landscape)(seed, height, width, bands)
        grid = Grid(height, width, CRS, (PIXEL, 0.0, CORNER[0], 0.0, -PIXEL, CORNER[1]))
        _write((out, mask, labels), grid, bands, strips, arguments)
    valid, landslide = json.loads(read_tags(mask)[SUMMARY])
    count = len(read_shapes(open_layer(labels))) if landslide else 0
    return Pair(out, mask, labels, height, width, valid, landslide, count)


def _held(out: Path, arguments: str) -> bool:
    """Is this raster there already? Raises DataError where another file is."""
    if not out.exists():
        return False
    if read_tags(out).get(TAG) != arguments:
        raise DataError(f"{out} was made with other arguments, or is something else: choose another name or delete it")
    return True


def _write(
    files: tuple[Path, Path, Path], grid: Grid, bands: Sequence[str], strips: Iterator[Strip], arguments: str
) -> None:
    """Write the scene, its mask and its polygons; the scene gets its name last, so that it tells that all are there."""
    out, mask, labels = files
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.", suffix=".part") as folder:
        place = Path(folder)
        truth = np.memmap(place / "mask", np.uint8, "w+", shape=(grid.height, grid.width))
        counted = np.zeros(2, np.int64)
        rows = _images(strips, truth, counted)
        about = {TAG: arguments}
        write_cog(place / "scene.tif", grid, rows, dtype="uint16", nodata=0, bands=bands, tags=about)
        valid, landslide = counted.tolist()
        about |= {SUMMARY: json.dumps([valid / truth.size, landslide / max(valid, 1)]), "L4S_KIND": "mask"}
        rows = (truth[None, top : top + STRIP] for top in range(0, grid.height, STRIP))
        write_cog(
            place / "mask.tif", grid, rows, dtype="uint8", nodata=255, bands=["landslide"], overviews="mode", tags=about
        )
        _write_polygons(place / "mask.tif", place / labels.name)
        os.replace(place / "mask.tif", mask)
        shutil.move(place / labels.name, labels)  # it may lie on another disk
        os.replace(place / "scene.tif", out)


def _images(strips: Iterator[Strip], truth: np.ndarray, counted: np.ndarray) -> Iterator[np.ndarray]:
    """The images of the strips; their masks go to `truth`, numbers of valid and of landslide pixels to `counted`."""
    top = 0
    for image, mask in strips:
        truth[top : top + len(mask)] = mask
        counted += ((mask != IGNORED).sum(), (mask == 1).sum())
        top += len(mask)
        yield image


def _write_polygons(mask: Path, out: Path) -> None:
    """The landslides of a mask as polygons along the borders of pixels; GDAL reads it row by row."""
    with reading(open_scene(mask)) as reader:
        pixels = band(reader.source, 1)
        found = shapes(pixels, mask=pixels, transform=reader.source.transform)
        polygons = np.array([shapely.geometry.shape(outline) for outline, value in found if value == 1], object)
    with write_shapes(out, CRS) as put:
        put(polygons, {"id": np.arange(1, len(polygons) + 1), "area": shapely.area(polygons)})
