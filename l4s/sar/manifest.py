"""Where converted radar chips come from: `sar.json` beside them, written last, so that a folder with it is whole."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from l4s import rundir
from l4s.errors import DataError, RunError
from l4s.files import appear, read_json, unfinished, write_json

NAME = "sar.json"


@dataclass(frozen=True)
class Converted:
    """A folder of radar chips: its bands, how many chips and how many of them with landslides, and what was left out.

    `dropped` counts, by reason, what the source held beside them; it is None where everything was there already.
    """

    folder: Path
    bands: tuple[str, ...]
    chips: int
    landslides: int
    labels: str
    dropped: Mapping[str, int] | None

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return vars(self) | {"folder": str(self.folder)}


Fill = Callable[[Path], tuple[Sequence[Mapping[str, Any]], Mapping[str, int]]]
"""Writes the chips below a folder; gives what the manifest says of each, and how much was left out for which reason."""


def write_once(out: Path, about: Mapping[str, Any], source: object, fill: Fill) -> Converted:
    """Write a folder of chips, which appears when it is whole; one made of the same source in the same way stays.

    Args:
        about: what the manifest says of all chips: at least `bands` and `labels`.
        source: what identifies the source, JSON-able.

    Raises:
        DataError: something else lies at `out`, or nothing is left of the source.
    """
    out = out.resolve()  # `.` has neither a name nor a folder to lie in
    fingerprint = hashlib.sha256(json.dumps([about, source], sort_keys=True).encode()).hexdigest()[:16]
    if (there := _there(out, fingerprint)) is not None:
        return _summary(out, there, None)
    with unfinished(out) as part:
        chips, dropped = fill(part)
        if not chips:
            raise DataError(f"no chip is left (left out: {', '.join(f'{n} for {why}' for why, n in dropped.items())})")
        manifest = {**about, "fingerprint": fingerprint, "chips": list(chips)}
        write_json(part / NAME, manifest)
        rundir.reached("sar.manifest")
        return _summary(out, _placed(part, out, manifest), dropped)


def identity(paths: Sequence[Path], root: Path) -> list[list[object]]:
    """Names below `root`, sizes and times of files."""
    return [[str(path.relative_to(root)), path.stat().st_size, path.stat().st_mtime_ns] for path in sorted(paths)]


def _placed(part: Path, out: Path, manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    """Give a whole folder its name, unless another process was faster; the manifest of the one that is there."""
    try:
        appear(part, out)
    except OSError:
        if (there := _there(out, manifest["fingerprint"])) is None:
            raise
        return there
    return manifest


def _summary(folder: Path, manifest: Mapping[str, Any], dropped: Mapping[str, int] | None) -> Converted:
    chips = manifest["chips"]
    positive = sum(chip["landslide"] > 0 for chip in chips)
    return Converted(folder, tuple(manifest["bands"]), len(chips), positive, manifest["labels"], dropped)


def _there(out: Path, fingerprint: str) -> Mapping[str, Any] | None:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    try:
        found = read_json(out / NAME)
    except RunError:
        found = {}
    if found.get("fingerprint") != fingerprint:
        raise DataError(
            f"{out} is there and was not made of these files with these options: delete it, or choose another folder"
        )
    return found
