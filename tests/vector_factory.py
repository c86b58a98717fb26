"""Results of scenes for tests: rasters of probability and masks, and vector files as geometries and columns."""

from pathlib import Path

import numpy as np
import pyogrio
import shapely
from scene_factory import NORTH_UP, UTM54

from l4s.scene.raster import Grid, write_cog


def write_codes(path: Path, codes: np.ndarray, *, crs=UTM54, transform=NORTH_UP, band="probability", **tags) -> Path:
    """Codes (H, W) uint8 as `l4s scene predict` stores probabilities; or a mask, with another name of the band."""
    grid = Grid(*codes.shape, crs, transform)
    scale = 1 / 254 if band == "probability" else 1.0
    tags = {"L4S_KIND": "probability", "L4S_STEP": "1"} | tags
    write_cog(
        path, grid, [codes[None].astype(np.uint8)], dtype="uint8", nodata=255, bands=(band,), scale=scale, tags=tags
    )
    return path


def write_mask(path: Path, mask: np.ndarray, **about) -> Path:
    return write_codes(path, mask, band="landslide", **about)


def write_vector(path: Path, shapes, crs=UTM54, layer="labels", append=False) -> Path:
    """Geometries of shapely as a vector file."""
    shapes = np.array(shapes, object)
    kind = shapes[0].geom_type if len({shape.geom_type for shape in shapes}) == 1 else "Unknown"
    drivers = {".gpkg": "GPKG", ".geojson": "GeoJSON", ".shp": "ESRI Shapefile"}
    pyogrio.raw.write(
        path,
        shapely.to_wkb(shapes),
        [np.arange(len(shapes))],
        ["n"],
        layer=layer,
        driver=drivers[path.suffix],
        geometry_type=kind,
        crs=crs,
        append=append,
    )
    return path


def read_vector(path: Path):
    """The CRS, the geometries and the columns by name of a vector file."""
    meta, _, raw, columns = pyogrio.raw.read(path)
    return meta["crs"], shapely.from_wkb(raw), dict(zip(meta["fields"].tolist(), columns, strict=True))


def pixel_box(row: float, column: float, height: float, width: float, transform=NORTH_UP):
    """The polygon on the map of a box of pixels."""
    a, b, c, d, e, f = transform
    box = shapely.box(column, row, column + width, row + height)
    return shapely.transform(box, lambda xy: xy @ np.array([[a, d], [b, e]]) + (c, f))
