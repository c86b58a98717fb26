"""Masks that somebody made, read to be scored: a submission's zip, or a folder of `mask_<id>.h5`."""

import io
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from l4s.errors import DataError
from l4s.rundir import CONFIG
from l4s.submit import BROKEN_HDF5, KEY, MEMBER_NAME, own_dataset, read_members


def read_masks(path: Path) -> dict[str, np.ndarray]:
    """Masks in a zip, or in the `*.h5` of a folder, called `mask_<id>.h5`: id -> (H, W) uint8.

    A zip is of unknown origin: it is read in memory and within bounds, and holds such files at its root and nothing else.

    Raises:
        DataError: other names, repeated ids, broken files, a missing key `mask`, types other than uint8, or content that
            lies in other files.
    """
    masks: dict[str, np.ndarray] = {}
    for name, content in read_members(path) if path.is_file() else _files(path):
        match = MEMBER_NAME.fullmatch(name)
        if match is None:
            raise DataError(f"{path}: {name} is not called mask_<id>.h5; name every mask with the id of its image")
        masks[match[1]] = _read_mask(f"{path}: {name}", content)
    if not masks:
        if (path / CONFIG).is_file():
            raise DataError(f"{path} is a run: give one of its probs/*.h5, or use `l4s report {path}`")
        raise DataError(f"{path} holds no mask_<id>.h5")
    return masks


def _files(path: Path) -> Iterator[tuple[str, Path]]:
    if not path.is_dir():
        raise DataError(f"{path} does not exist; a zip or a folder of mask_<id>.h5 was expected there")
    return ((file.name, file) for file in sorted(path.glob("*.h5")))


def _read_mask(where: str, content: bytes | Path) -> np.ndarray:
    try:
        with h5py.File(content if isinstance(content, Path) else io.BytesIO(content), "r") as file:
            dataset = own_dataset(file)
            if len(dataset.shape or ()) != 2 or dataset.dtype != np.uint8:
                raise DataError(f"must hold {KEY!r}, (H, W) uint8; found {dataset.dtype} {dataset.shape}")
            return np.asarray(dataset[()])
    except DataError as error:
        raise DataError(f"{where}: {error}") from error
    except BROKEN_HDF5 as error:
        raise DataError(f"{where} cannot be read as HDF5, make it again ({error})") from error
