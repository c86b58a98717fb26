"""One chip file as Böhm 2022 works on them, read without unpickling anything.

A chip is `<id>.npz`, whose `arr_0` (V, H, W) holds V planes, and `<id>.metadata.pkl`, whose `variables` name them:
`TS::vv::20180824` for a pass, `TP::...` for a pair of passes, `ST::landslides` for what has no time.
"""

import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from l4s.errors import DataError
from l4s.sar.metadata import read_metadata

SUFFIX = ".metadata.pkl"
LARGEST = 2**30  # bytes of one chip; 400 planes of 128 x 128 pixels take 26 million
LARGEST_CODE = 10**6  # of the EPSG; more digits than Python writes are an error that it raises late
BROKEN = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error, RuntimeError, MemoryError)


@dataclass(frozen=True, eq=False)
class Source:
    """One upstream chip: its planes (V, H, W), where each is among `variables`, and where it lies on the map.

    `bounds`: least x and y, largest x and y, in `crs`; None where the metadata do not say.
    """

    name: str
    planes: np.ndarray
    place: Mapping[str, int]
    bounds: tuple[float, float, float, float] | None
    crs: str


def read_chip(folder: Path, name: str) -> Source:
    """Read one upstream chip; nothing of it is unpickled.

    Raises:
        DataError: a file is broken, or the planes are not those that the metadata name.
    """
    path = folder / f"{name}.npz"
    planes = _planes(path)
    metadata = read_metadata(folder / f"{name}{SUFFIX}")
    variables = metadata.get("variables")
    if not isinstance(variables, list) or not all(isinstance(each, str) for each in variables):
        raise DataError(f"{folder / name}{SUFFIX} has no list `variables` that names the planes: download it again")
    if len(variables) != len(planes) or len(set(variables)) != len(variables):
        raise DataError(
            f"{path} has {len(planes)} planes, but its metadata name {len(set(variables))} different ones "
            f"in a list of {len(variables)}"
        )
    place = {variable: k for k, variable in enumerate(variables)}
    return Source(name, planes, place, _bounds(metadata.get("bounds"), path), _crs(metadata.get("crs"), path))


def _planes(path: Path) -> np.ndarray:
    try:
        _refuse_large(path)
        with np.load(path, allow_pickle=False) as file:
            planes: np.ndarray = file["arr_0"]
    except DataError:
        raise
    except BROKEN as error:
        raise DataError(f"{path} cannot be read as an array `arr_0` of numbers ({error}): download it again") from error
    if planes.ndim != 3 or planes.dtype.kind not in "fiub" or not planes.size:
        raise DataError(f"{path} holds {planes.dtype} of shape {planes.shape}; (planes, H, W) of numbers is needed")
    return planes


def _refuse_large(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        size = sum(member.file_size for member in archive.infolist())
    if size > LARGEST:
        raise DataError(f"{path} unpacks to {size:,} bytes, where a chip takes at most {LARGEST:,}: download it again")


def _bounds(value: object, path: Path) -> tuple[float, float, float, float] | None:
    """Upstream they are a dict whose values are left, bottom, right and top."""
    if value is None:
        return None
    sides = list(value.values()) if isinstance(value, dict) else value
    if isinstance(sides, list | tuple) and len(sides) == 4 and all(_on_a_map(each) for each in sides):
        left, bottom, right, top = (float(each) for each in sides)
        return left, bottom, right, top
    raise DataError(f"the metadata of {path} have bounds that are not four numbers: left, bottom, right and top")


def _crs(value: object, path: Path) -> str:
    """A text such as EPSG:32654, or the number in it; "" where the metadata do not say."""
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value < LARGEST_CODE:
        return str(value)
    raise DataError(f"the metadata of {path} have a crs that is neither a text nor an EPSG code: download them again")


def _on_a_map(value: object) -> bool:
    return isinstance(value, int | float) and abs(value) < 1e12
