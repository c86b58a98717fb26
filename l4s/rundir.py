"""The only place that knows the names inside a run directory, and what makes a step finished.

A step owns a folder and writes `done.json` last. A ProbFile or pseudo-label file is finished once it has its name.
Running the same command again skips what is finished; deleting a folder is how to redo a step.
"""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from l4s.errors import RunError


@dataclass(frozen=True)
class RunDir:
    """One run on disk, or one `cell` of a sweep."""

    root: Path
    cell: str = ""

    @property
    def runs(self) -> Path:
        """The folder that this run and others lie in."""
        return self.root.parent.parent if self.cell else self.root.parent

    @property
    def config(self) -> Path:
        return self.root / "config.json"

    @property
    def environment(self) -> Path:
        return self.root / "env.json"

    @property
    def table(self) -> Path:
        return self.root / "table.json"

    def stats(self, domain: str) -> Path:
        return self.root / "stats" / f"{domain}.json"

    def member(self, round_: int, member: str) -> Path:
        return self.root / f"round-{round_}" / member

    def ensemble(self, round_: int, group: str = "") -> Path:
        return self.root / f"round-{round_}" / "-".join(filter(None, ("ensemble", group)))

    def pseudo(self, round_: int, group: str = "") -> Path:
        return self.root / f"round-{round_}" / "-".join(filter(None, ("pseudo", group)))

    @property
    def submission(self) -> Path:
        return self.root / "submission"

    @staticmethod
    def probs(folder: Path, domain: str, tta: str) -> Path:
        """The ProbFile of a member or an ensemble for a domain under a test-time augmentation."""
        return folder / "probs" / f"{domain}.{tta}.h5"


def reached(point: str) -> None:
    """Named points of a run at which tests stop the process; does nothing."""


def write_atomic(path: Path, data: bytes) -> None:
    """Write a whole file or none of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _part(path)
    with part.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


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


def is_done(folder: Path, fingerprint: str) -> bool:
    """Has this step been finished, with exactly these settings and inputs?

    Raises:
        RunError: it was finished with others; nothing is overwritten.
    """
    done = folder / "done.json"
    if not done.is_file():
        return False
    found = read_json(done).get("fingerprint")
    if found != fingerprint:
        raise RunError(
            f"{folder} was made with other settings or inputs (fingerprint {found}, now {fingerprint}): "
            "delete the folder to redo it, or choose another --run"
        )
    return True


def finish(folder: Path, fingerprint: str, **facts: object) -> None:
    """Mark a step as finished; written after everything else in the folder."""
    write_json(folder / "done.json", {"fingerprint": fingerprint, **facts})


def find_equal(folder: Path, fingerprint: str, root: Path) -> Path | None:
    """The folder of an equal finished step of any run below `root`; None where there is none."""
    for done in sorted(_finished(root)):
        if done.parent != folder and read_json(done).get("fingerprint") == fingerprint:
            return done.parent
    return None


def take_over(other: Path, folder: Path, files: Sequence[str]) -> None:
    """Link the `files` of a finished step into a folder, and finish it."""
    for path in sorted(path for pattern in files for path in other.glob(pattern)):
        link(path, folder / path.name)
    link(other / "done.json", folder / "done.json")


def link(source: Path, target: Path) -> None:
    """A hard link where the file system has them, a copy elsewhere; replaces what was there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = _part(target)
    part.unlink(missing_ok=True)
    try:
        os.link(source, part)
    except OSError:
        shutil.copyfile(source, part)
    part.replace(target)


def _part(path: Path) -> Path:
    """What a file is called while it is written: processes that train members of one run write the same files."""
    return path.with_name(f"{path.name}.{os.getpid()}.part")


def _finished(root: Path) -> Iterator[Path]:
    """`done.json` of every member in runs and sweep cells below a folder of runs."""
    for pattern in ("*/round-*/*/done.json", "*/*/round-*/*/done.json"):
        yield from root.glob(pattern)
