"""Is a Zarr store safe to open? Some of its filters unpickle, and it names them itself: only those known here may be used."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from l4s.errors import DataError

METADATA = ("zarr.json", ".zarray", ".zgroup", ".zmetadata")
LARGEST = 2**26  # bytes of one of them
PLACES = ("compressor", "filters", "codecs", "index_codecs")
KNOWN = {
    *("blosc", "zlib", "gzip", "zstd", "lz4", "bz2", "lzma", "shuffle", "bytes", "endian", "transpose"),
    *("crc32", "crc32c", "adler32", "fletcher32", "delta", "fixedscaleoffset", "quantize", "packbits", "astype"),
    *("bitround", "sharding_indexed", "vlen-utf8", "vlen-bytes", "pcodec", "zfpy"),
}
"""Filters and compressors that turn bytes into numbers and texts, and do nothing else."""
HEADER = 16  # bytes before what blosc packed; the last four are the length of it all


def check_store(folder: Path) -> list[Path]:
    """The files of a Zarr store, once its metadata have been found to name known filters alone.

    Raises:
        DataError: it is no Zarr store, names another filter, holds a link, whose other end nobody has looked at, or a
            chunk that is cut short, beyond whose end blosc would read.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder: unpack the cube, and give its .zarr folder")
    inside = sorted(folder.rglob("*"))
    if link := next((path for path in inside if path.is_symlink()), None):
        raise DataError(f"{link} is a link, which a store does not need; nothing was read: unpack the cube again")
    files = [path for path in inside if path.is_file()]
    metadata = [path for path in files if path.name.lower() in METADATA]  # some file systems ignore case
    if not any(path.parent == folder for path in metadata):
        raise DataError(f"{folder} is no Zarr store: it has none of {', '.join(METADATA)}")
    arrays = []
    for path in metadata:
        about, names = _read(path)
        for name in names:
            if name.removeprefix("numcodecs.") not in KNOWN:
                raise DataError(
                    f"{path} names the filter {name!r}, which is not known to be harmless; nothing was read"
                )
        if _packed_by_blosc(about):
            arrays.append(path.parent)
    for chunk in files:
        if not chunk.name.startswith(".") and chunk not in metadata and any(each in chunk.parents for each in arrays):
            _check_length(chunk)
    return files


def _packed_by_blosc(array: Any) -> bool:
    """Is blosc the last to touch an array's chunks? In the second format the `compressor`, in the third the last codec."""
    if not isinstance(array, dict):
        return False
    codecs = array.get("codecs")
    last = codecs[-1] if isinstance(codecs, list) and codecs else array.get("compressor")
    return bool(last) and "blosc" in (name.removeprefix("numcodecs.") for name in _names(last))


def _check_length(chunk: Path) -> None:
    with chunk.open("rb") as file:
        header = file.read(HEADER)
    size = chunk.stat().st_size
    if len(header) < HEADER or (told := int.from_bytes(header[-4:], "little")) > size:
        whole = f"of {told:,}" if len(header) == HEADER else "and no header"
        raise DataError(f"{chunk} cannot be read: it is cut short, {size:,} bytes {whole}: unpack the cube again")


def _read(path: Path) -> tuple[Any, list[str]]:
    """What a metadata file says, and the filters that it names."""
    size = path.stat().st_size
    if size > LARGEST:
        raise DataError(f"{path} has {size:,} bytes; metadata have at most {LARGEST:,}")
    try:
        about = json.loads(path.read_bytes())
        return about, sorted(set(_filters(about)))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is no JSON of a store ({error}): unpack the cube again") from error


def _filters(value: Any) -> Iterator[str]:
    """Every filter that is named anywhere in a piece of metadata."""
    if isinstance(value, list):
        for item in value:
            yield from _filters(item)
    elif isinstance(value, dict):
        for place in PLACES:
            named = value.get(place) or []
            for each in named if isinstance(named, list) else [named]:
                yield from _names(each)
        for item in value.values():
            yield from _filters(item)


def _names(codec: Any) -> list[str]:
    """What a filter is called: the second format reads `id`, the third `name`, and nothing keeps them the same."""
    words = [codec[key] for key in ("id", "name") if key in codec] if isinstance(codec, dict) else [codec]
    return [str(word).lower() for word in words or [None]]
