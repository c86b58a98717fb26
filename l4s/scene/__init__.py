"""Whole scenes: georeferenced images that no memory holds, read and written by windows."""

from l4s.errors import DataError

try:
    import pyogrio  # noqa: F401
    import rasterio  # noqa: F401
    import shapely  # noqa: F401
except ImportError as error:
    raise DataError("scenes need rasterio, pyogrio and shapely: install them with `pip install 'l4s[geo]'`") from error
