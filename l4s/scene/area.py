"""The true area of a scene's pixels: in the plane of a map, or on the ellipsoid where pixels are degrees."""

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from rasterio.crs import CRS

from l4s import log
from l4s.errors import DataError
from l4s.scene.raster import Grid

ELLIPSOID = re.compile(r'(?:SPHEROID|ELLIPSOID)\["[^"]*",\s*([0-9.eE+]+),\s*([0-9.eE+]+)')
SQUARE_MM = 1e-6  # square metres


@dataclass(frozen=True, eq=False)
class Areas:
    """Areas that add up without rounding: a pixel of row r has `weights[r]` times `unit` square metres.

    `weights` (H,) int64. In the plane all are 1 and `unit` is the pixel's area; on the ellipsoid `unit` is a square
    millimetre. `metre` is how many units of the CRS a metre is; None where it depends on the place. Where nothing says how
    long a unit is, `known` is False, and square metres are squared units.
    """

    weights: np.ndarray
    unit: float
    metre: float | None
    known: bool = True


def pixel_areas(grid: Grid, name: str) -> Areas:
    """Areas of the pixels of a grid; `name` is what a warning calls the file.

    The plane of a projected CRS is taken as it is: exact in equal-area projections, within 0.1 % in a UTM zone, far off
    in Web Mercator. Without a CRS, areas are in squared units of the file, and a warning says so.

    Raises:
        DataError: a geographic CRS whose grid is rotated.
    """
    a, b, _, d, e, _ = grid.transform
    crs = CRS.from_wkt(grid.crs) if grid.crs else None
    if crs is not None and crs.is_geographic:
        if b or d:
            raise DataError(f"{name} is a rotated grid of degrees, whose areas are not known: reproject it, say to UTM")
        return Areas(_ellipsoid_weights(grid, crs), SQUARE_MM, None)
    known = crs is not None and crs.is_projected
    metres = float(crs.linear_units_factor[1]) if crs is not None and known else 1.0
    if not known:
        log.warn(f"{name} has no CRS with units: areas and lengths are in the units of its coordinates, not metres")
    return Areas(np.ones(grid.height, np.int64), abs(a * e - b * d) * metres**2, 1 / metres, known)


def _ellipsoid_weights(grid: Grid, crs: CRS) -> np.ndarray:
    """Square millimetres of a pixel of each row: the difference of two zones of the ellipsoid (Snyder 1987, 3-12)."""
    a, _, _, _, e, top = grid.transform
    radians = float(crs.units_factor[1])
    zone = _zone(crs)
    edges = np.array([zone(latitude) for latitude in (top + e * np.arange(grid.height + 1)) * radians])
    areas = np.abs(np.diff(edges)) * abs(a) * radians
    return np.rint(areas / SQUARE_MM).astype(np.int64)


def _zone(crs: CRS) -> Callable[[float], float]:
    """The area from the equator to a latitude (radians), per radian of longitude, in square metres."""
    found = ELLIPSOID.search(crs.to_wkt())
    if found is None:
        raise DataError(f"the CRS {crs.to_wkt()[:60]}... names no ellipsoid: reproject the scene, say to UTM")
    axis, inverse = float(found[1]), float(found[2])
    flattening = 1 / inverse if inverse else 0.0
    e2 = flattening * (2 - flattening)
    e = float(np.sqrt(e2))

    def zone(latitude: float) -> float:
        sine = float(np.sin(latitude))
        log_term = float(np.arctanh(e * sine)) / e if e else sine
        return axis**2 * (1 - e2) / 2 * (sine / (1 - e2 * sine**2) + log_term)

    return zone
