"""Zarr cubes of radar passes and landslides (Zenodo 10.5281/zenodo.7248056)."""

import lzma
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from l4s import log
from l4s.errors import DataError
from l4s.sar.layout import POLARISATIONS, amplitudes
from l4s.sar.passes import read_day

if TYPE_CHECKING:
    from xarray import DataArray, Dataset

ORBIT = "sat:orbit_state"
LONGEST = 200_000  # pixels along a side, and passes; a store that promises more is broken
DAMAGED = (OSError, ValueError, RuntimeError, KeyError, MemoryError, EOFError, zlib.error, lzma.LZMAError)
"""Whatever filters say of damaged bytes."""


@dataclass(frozen=True, eq=False)
class Cube:
    """An open cube.

    `data`: VV and VH, each (T, H, W), north up, west on the left; `mask`: (H, W) uint8 {0, 1}; `days` of the T passes.
    `orbits` of the passes in small letters, such as `ascending` or `a`; None where the cube does not say. `x`, `y`: the
    middles of columns and rows on the map, None where the cube has none.
    """

    path: Path
    data: Mapping[str, "DataArray"]
    mask: np.ndarray
    days: tuple[date, ...]
    orbits: tuple[str, ...] | None
    x: np.ndarray | None
    y: np.ndarray | None

    def read(self, steps: Sequence[int], rows: slice, columns: slice) -> np.ndarray:
        """(T, 2, h, w) float32 of these passes; raises DataError for values that are no amplitudes."""
        parts = [self.data[name].isel(timestep=list(steps), y=rows, x=columns) for name in POLARISATIONS]
        return amplitudes(np.stack([_values(self.path, part) for part in parts], axis=1), str(self.path))


def open_cube(path: Path, orbit: str | None = None) -> Cube:
    """Open a store that `check_store` found harmless; warns of chunks that it does not have.

    Raises:
        DataError: it cannot be read, lacks a variable, or has no pass of this orbit; or the extra `sar` is not installed.
    """
    try:
        import xarray
        import zarr
    except ImportError as error:
        raise DataError("cubes need the extra `sar`: pip install 'l4s[sar]'") from error
    try:
        cube, store = xarray.open_zarr(path, chunks=None), zarr.open_group(path, mode="r")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} cannot be opened ({error}): unpack the cube again") from error
    _refuse_other(path, cube)
    _warn_of_gaps(path, cast(Any, store))
    if orbit is not None:
        cube = cube.isel(timestep=_of_orbit(path, cube, orbit))
    y = cube["y"].values if "y" in cube.coords else None
    if y is not None and len(y) > 1 and y[0] < y[-1]:
        cube, y = cube.isel(y=slice(None, None, -1)), y[::-1]
    x = cube["x"].values if "x" in cube.coords else None
    if x is not None and len(x) > 1 and x[0] > x[-1]:
        cube, x = cube.isel(x=slice(None, None, -1)), x[::-1]
    mask = np.nan_to_num(_values(path, cube["landslides"].transpose("y", "x"))) > 0  # NaN is background
    data = {name: cube[name].transpose("timestep", "y", "x") for name in POLARISATIONS}
    return Cube(path, data, mask.astype(np.uint8), _days(path, cube), _orbits(path, cube), x, y)


def _refuse_other(path: Path, cube: "Dataset") -> None:
    wanted = {**dict.fromkeys(POLARISATIONS, {"timestep", "y", "x"}), "landslides": {"y", "x"}}
    for name, dims in wanted.items():
        if name not in cube or set(cube[name].dims) != dims:
            found = f"over {', '.join(map(str, cube[name].dims))}" if name in cube else "missing"
            there = ", ".join(map(str, cube.data_vars)) or "none"
            raise DataError(
                f"{path}: {name} over {', '.join(sorted(dims))} is needed, it is {found} (variables: {there})"
            )
        if cube[name].dtype.kind not in "fiub" or max(cube[name].shape) > LONGEST:
            raise DataError(f"{path}: {name} is {cube[name].dtype} of shape {cube[name].shape}; numbers are needed")


def _warn_of_gaps(path: Path, store: Mapping[str, Any]) -> None:
    """A chunk that is not there reads as empty: writers leave those out, and half an archive lacks others, too."""
    for name in (*POLARISATIONS, "landslides"):
        array = store[name]
        missing = array.nchunks - array.nchunks_initialized
        if missing:
            log.warn(
                f"{path}: {missing} of {array.nchunks} chunks of {name} do not exist and read as {array.fill_value}; writers "
                "leave out empty ones, but if the cube was downloaded or unpacked in part, do it again"
            )


def _values(path: Path, part: "DataArray") -> np.ndarray:
    try:
        return np.asarray(part.values)
    except DAMAGED as error:
        raise DataError(f"{path}: {part.name} cannot be read ({error}): unpack the cube again") from error


def _orbits(path: Path, cube: "Dataset") -> tuple[str, ...] | None:
    if ORBIT not in cube or cube[ORBIT].dims != ("timestep",):
        return None
    states = _values(path, cube[ORBIT]).tolist()
    return tuple(str(value.decode() if isinstance(value, bytes) else value).lower() for value in states)


def _of_orbit(path: Path, cube: "Dataset", orbit: str) -> list[int]:
    states = _orbits(path, cube)
    if states is None:
        raise DataError(f"{path} has no {ORBIT} over timestep to choose passes by: leave --orbit out")
    if chosen := [k for k, state in enumerate(states) if state[:1] == orbit]:
        return chosen
    raise DataError(f"{path} has no pass of orbit {orbit!r}: its {ORBIT} are {', '.join(sorted(set(states)))}")


def _days(path: Path, cube: "Dataset") -> tuple[date, ...]:
    if "timestep" not in cube.coords:
        raise DataError(f"{path} has no coordinate timestep, so that its passes have no dates")
    values = cube["timestep"].values
    if values.dtype.kind == "M":
        return tuple(read_day(str(value)[:10], f"{path}, timestep") for value in values.astype("M8[D]"))
    return tuple(read_day(str(value)[:10], f"{path}, timestep") for value in values.tolist())
