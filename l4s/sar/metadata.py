"""Metadata of radar chips, which others have pickled: read here without running anything."""

from pathlib import Path
from typing import Any

from l4s.errors import DataError
from l4s.sar.plain import parse

LARGEST = 2**20  # bytes; the metadata of a chip take a few thousand


def read_metadata(path: Path) -> dict[str, Any]:
    """The metadata of a chip: a dict of numbers, strings, True, False, None, and lists, tuples and dicts of these.

    Numbers of numpy count as plain ones: their bytes are read here, numpy is not asked.

    Raises:
        DataError: the file is larger than a MiB, broken, no dict with strings as keys, or holds anything else.
    """
    try:
        size = path.stat().st_size
        data = path.read_bytes() if size <= LARGEST else b""
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error})") from error
    if size > LARGEST:
        raise DataError(f"{path} has {size:,} bytes; the metadata of a chip have at most {LARGEST:,}")
    value = parse(data, str(path))
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise DataError(
            f"{path} holds a {type(value).__name__}; the metadata of a chip are a dict with strings as keys"
        )
    return value
