"""Small scenes for tests: an array as a GeoTIFF with names, nodata, a CRS and 10 m pixels."""

from pathlib import Path

import numpy as np

from l4s.scene.raster import Grid, Scene, open_scene, write_cog

UTM54 = "EPSG:32654"
NORTH_UP = (10.0, 0.0, 500_000.0, 0.0, -10.0, 4_700_000.0)


def write_scene(
    path: Path,
    image: np.ndarray,
    bands: tuple[str, ...] = ("b4", "b3", "b2"),
    *,
    nodata: float | None = None,
    crs: str | None = UTM54,
    transform: tuple[float, float, float, float, float, float] = NORTH_UP,
) -> Scene:
    """An image (C, H, W) of any dtype as a scene."""
    grid = Grid(image.shape[1], image.shape[2], crs, transform)
    write_cog(path, grid, [image], dtype=str(image.dtype), nodata=nodata, bands=bands)
    return open_scene(path)
