"""Files that are written whole or not at all, whoever is stopped or writes the same one meanwhile."""

import json
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from typing import Any

from l4s.errors import RunError


def write_atomic(path: Path, data: bytes) -> None:
    """Write a whole file or none of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = part(path)
    with beside.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A file to write in place of `path`, which takes its name when the block ends without an error.

    Processes that write the same file do not meet, and the last one's stays. What killed ones of this machine left goes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f"{escape(path.name)}.*.part"):
        if abandoned(left):
            left.unlink(missing_ok=True)
    written = part(path)
    try:
        yield written
        _replace_durably(written, path)
    finally:
        written.unlink(missing_ok=True)


def _replace_durably(written: Path, path: Path) -> None:
    """Give a written file its name: its content is on the disk before the name is, the name before any `done.json`."""
    _sync(written)
    os.replace(written, path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def unfinished(folder: Path) -> Iterator[Path]:
    """A new folder to fill in place of `folder`, which `appear` gives its name; if nothing does, it is deleted.

    It is hidden beside `folder`, so that what a killed process leaves there is no data to any reader; the next one of this
    machine deletes it. Processes that make the same folder do not meet.

    Args:
        folder: absolute, since `.` has no name.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    hidden = folder.with_name(f".{folder.name}")
    for left in folder.parent.glob(f"{escape(hidden.name)}.*.part"):
        if abandoned(left):
            shutil.rmtree(left, ignore_errors=True)
    made = part(hidden)
    made.mkdir()
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def appear(made: Path, folder: Path) -> None:
    """Give a finished folder its name, where there is nothing or an empty folder.

    Raises:
        OSError: something is there, put by a process that was faster.
    """
    if folder.exists():
        folder.rmdir()
    made.replace(folder)


def write_json(path: Path, value: object) -> None:
    """JSON with sorted keys, so that equal values are equal bytes."""
    write_atomic(path, (json.dumps(value, sort_keys=True, indent=1, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        RunError: the file is missing or is not a JSON object.
    """
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise RunError(f"cannot read {path}: {error}") from error
    if not isinstance(value, dict):
        raise RunError(f"{path} holds a {type(value).__name__}, not a JSON object")
    return value


def identity(path: Path) -> list[object]:
    """What changes when a file does, without reading it: its name, size in bytes, and time in nanoseconds."""
    about = path.stat()
    return [path.name, about.st_size, about.st_mtime_ns]


def link(source: Path, target: Path) -> None:
    """A hard link where the file system has them, a copy elsewhere; replaces what was there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = part(target)
    beside.unlink(missing_ok=True)
    try:
        os.link(source, beside)
    except OSError:
        shutil.copyfile(source, beside)
    beside.replace(target)


def part(path: Path) -> Path:
    """What a file is called while it is written: processes that train members of one run write the same files."""
    return path.with_name(f"{path.name}.{socket.gethostname()}.{os.getpid()}.part")  # containers have equal numbers


def abandoned(path: Path) -> bool:
    """Was a file of the name that `part` gives written by a process of this machine that is no more?"""
    number = path.name.removesuffix(".part").rpartition(".")[2]
    if not number.isdigit() or not path.name.endswith(f".{socket.gethostname()}.{number}.part"):
        return False
    try:
        os.kill(int(number), 0)  # sends nothing
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return int(number) == os.getpid()  # a number that was given again: this process cleans, and writes nothing
