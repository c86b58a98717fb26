"""Vector files: polygons and points of GeoPackages, GeoJSON and shapefiles; the only importer of pyogrio."""

import json
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import shapely
from pyogrio.errors import DataLayerError, DataSourceError
from rasterio.crs import CRS

from l4s.errors import DataError

DRIVERS = {".gpkg": "GPKG", ".geojson": "GeoJSON", ".json": "GeoJSON", ".shp": "ESRI Shapefile"}
"""How a file ends -> what GDAL calls its format."""
BEGINNINGS = {"GPKG": b"SQLite format 3\0", "GeoJSON": b"{", "ESRI Shapefile": b"\x00\x00\x27\x0a"}
"""GDAL goes by content, and some formats point at other files and hosts: it is not shown those."""
LAYER = "landslides"
NO_DATE = "1980-01-01T00:00:00.000Z"  # GeoPackages hold the time of writing: equal content, equal bytes
BROKEN = (DataSourceError, DataLayerError, shapely.errors.GEOSException)
Put = Callable[[np.ndarray, Mapping[str, np.ndarray]], None]


@dataclass(frozen=True)
class Layer:
    """A layer of a vector file: its CRS (None: unknown) and the box around it, (left, bottom, right, top) in that CRS."""

    path: Path
    name: str
    crs: str | None
    bounds: tuple[float, float, float, float]


def open_layer(path: Path, name: str | None = None) -> Layer:
    """Look at a vector file; `name` chooses among several layers.

    Raises:
        DataError: no such file or layer, another format, a layer without features or geometry.
    """
    if not path.is_file():
        raise DataError(f"there is no file {path}")
    if path.suffix.lower() not in DRIVERS:
        raise DataError(f"{path} ends in {path.suffix!r}: polygons and points are read from {', '.join(DRIVERS)}")
    driver = DRIVERS[path.suffix.lower()]
    with path.open("rb") as file:
        if not file.read(1024).removeprefix(b"\xef\xbb\xbf").lstrip(b" \t\r\n").startswith(BEGINNINGS[driver]):
            raise DataError(f"{path} is no {driver} file: name it as what it is, or copy it again")
    with _named(path):
        name = _layer(path, name)
        info = pyogrio.read_info(path, layer=name, force_feature_count=True, force_total_bounds=True)
    if info["driver"] != driver:
        raise DataError(f"{path} is no {driver} file but {info['driver']}: name it as what it is")
    if not info["features"] or info["total_bounds"] is None or not np.isfinite(info["total_bounds"]).all():
        raise DataError(f"{path}: the layer {name!r} holds no feature with a geometry")
    left, bottom, right, top = (float(side) for side in info["total_bounds"])
    return Layer(path, name, _known(info["crs"]), (left, bottom, right, top))


def read_shapes(layer: Layer, box: tuple[float, float, float, float] | None = None) -> np.ndarray:
    """The geometries of a layer, or those that reach into a box (in its CRS): single polygons and points.

    Collections are taken apart, heights and empty geometries left out.

    Returns:
        (N,) objects of shapely.

    Raises:
        DataError: the file is damaged there.
    """
    with _named(layer.path):
        raw = pyogrio.raw.read(layer.path, layer=layer.name, columns=[], force_2d=True, bbox=box)[2]
        found = shapely.from_wkb(raw)
    found = np.atleast_1d(np.asarray(found, object))
    while (shapely.get_type_id(found) > 3).any():  # a collection may hold collections
        found = shapely.get_parts(found)
    return np.asarray(found[~(shapely.is_missing(found) | shapely.is_empty(found))])


@contextmanager
def write_shapes(path: Path, crs: str | None) -> Iterator[Put]:
    """Write polygons in batches, whole or not at all: `with write_shapes(...) as put: put(polygons, columns)`.

    `polygons` are (N,) objects of shapely and `columns` maps each name to (N,) numbers; every batch has the same
    names. `put` at least once, with arrays of no length for an empty file. Equal batches make equal bytes.
    GeoJSON keeps the CRS of the coordinates in its `crs` member, which GDAL reads but RFC 7946 no longer has.

    Raises:
        DataError: another format, a CRS that GeoJSON cannot name, or the file cannot be written.
    """
    if path.suffix not in WRITERS:
        raise DataError(f"{path} ends in {path.suffix!r}: polygons are written to {' or '.join(WRITERS)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        with _named(path), WRITERS[path.suffix](part, crs) as put:
            yield put
        part.replace(path)
    finally:
        for left in (part, part.with_name(part.name + "-journal")):
            left.unlink(missing_ok=True)


@contextmanager
def _geopackage(path: Path, crs: str | None) -> Iterator[Put]:
    begun = False

    def put(polygons: np.ndarray, columns: Mapping[str, np.ndarray]) -> None:
        nonlocal begun
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that there is no CRS is said once, where it matters
            pyogrio.raw.write(
                path,
                shapely.to_wkb(polygons),
                list(columns.values()),
                list(columns),
                layer=LAYER,
                driver="GPKG",
                geometry_type="Polygon",
                crs=crs,
                append=begun,
            )
        begun = True

    before = pyogrio.get_gdal_config_option("OGR_CURRENT_DATE")
    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": NO_DATE})
    try:
        yield put
    finally:
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": before})


@contextmanager
def _geojson(path: Path, crs: str | None) -> Iterator[Put]:
    """GDAL appends to GeoJSON by reading it all again, and rounds coordinates: a few lines of text do neither."""
    head = {"type": "FeatureCollection", "name": LAYER} | ({"crs": _geojson_crs(crs)} if crs else {})
    with path.open("w", encoding="utf-8") as file:
        file.write(json.dumps(head)[:-1] + ', "features": [')
        comma = "\n"

        def put(polygons: np.ndarray, columns: Mapping[str, np.ndarray]) -> None:
            nonlocal comma
            rows = zip(*(values.tolist() for values in columns.values()), strict=True)
            for text, row in zip(shapely.to_geojson(polygons).tolist(), rows, strict=True):
                properties = json.dumps(dict(zip(columns, row, strict=True)), allow_nan=False)
                file.write(f'{comma}{{"type": "Feature", "properties": {properties}, "geometry": {text}}}')
                comma = ",\n"

        yield put
        file.write("\n]}\n")


WRITERS: dict[str, Callable[[Path, str | None], Any]] = {".gpkg": _geopackage, ".geojson": _geojson}


def _geojson_crs(crs: str) -> dict[str, Any]:
    code = CRS.from_user_input(crs).to_epsg(confidence_threshold=100)
    if code is None:
        raise DataError("GeoJSON can name a CRS by its EPSG code alone, and the scene's has none: write a .gpkg")
    # 4326 itself means latitude first, and the coordinates here are longitude first
    name = "urn:ogc:def:crs:OGC:1.3:CRS84" if code == 4326 else f"urn:ogc:def:crs:EPSG::{code}"
    return {"type": "name", "properties": {"name": name}}


def _layer(path: Path, name: str | None) -> str:
    layers = [str(layer) for layer, kind in pyogrio.list_layers(path) if kind is not None]
    if name is None and len(layers) == 1:
        return layers[0]
    if name not in layers:
        what = f"no layer {name!r}" if name else "no single layer of geometries"
        raise DataError(f"{path} has {what}; it has {', '.join(layers) or 'none'}: choose with --layer")
    return name


def _known(crs: str | None) -> str | None:
    # GeoPackages without a CRS say so by one of two CRSs of that name
    return None if crs is None or "Undefined " in crs else crs


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """An error of GDAL or GEOS, with the file it is about."""
    try:
        yield
    except BROKEN as error:
        raise DataError(f"{path}: {error}: copy or make it again") from error
