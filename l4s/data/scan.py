"""Every file below a data folder, sorted leniently: patches by split, and whatever does not belong."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from l4s.data.readers import IMAGE_FOLDERS, MASK_FOLDERS, NAME, SPLITS, tolerated

NUMBER = re.compile(r"[0-9]+")


@dataclass
class Split:
    """The patches of one folder, images and masks by integer id.

    `where` is the folder relative to the data folder, without the `img`, `mask` or `images` of its layout; `named` is
    `train`, `validation` or `test` where the folder has one of the names of these, else "".
    """

    where: str
    images: dict[int, Path] = field(default_factory=dict)
    masks: dict[int, Path] = field(default_factory=dict)

    @property
    def named(self) -> str:
        return SPLITS.get(Path(self.where).name, "")


@dataclass(frozen=True)
class Scan:
    """All splits by `where`, and what is wrong with names and places: (kind, where, path, detail)."""

    splits: dict[str, Split]
    faults: tuple[tuple[str, str, Path, str], ...]


def scan(root: Path) -> Scan:
    """Sort all files below `root`, whatever their layout; every layout of `l4s.data.readers` is understood."""
    splits: dict[str, Split] = {}
    faults: list[tuple[str, str, Path, str]] = []
    for folder in _folders(root):
        where = _split_of(folder.relative_to(root))
        entries = [path for path in sorted(folder.iterdir()) if not tolerated(path)]
        patches = [path for path in entries if NAME.fullmatch(path.name) and path.is_file()]
        for path in patches:
            faults += _sort(splits.setdefault(where, Split(where)), path)
        holds_patches = bool(patches) or folder.name in (*IMAGE_FOLDERS, *MASK_FOLDERS)
        # A folder of patches holds nothing else; the readers refuse it. `images/train` is a folder of folders.
        for path in entries:
            if path not in patches and not (path.is_dir() and (not patches or path.name in MASK_FOLDERS)):
                kind = "foreign file" if holds_patches else "other file"
                faults.append((kind, where, path, _advice(path) if holds_patches else ""))
    return Scan(splits, (*faults, *_ambiguous(root, splits)))


def _folders(root: Path) -> Iterator[Path]:
    """`root` and every folder below it, in order; links to folders are followed once."""
    seen: set[str] = set()
    for name, folders, _files in os.walk(root, followlinks=True):
        folder = Path(name)
        folders[:] = sorted(each for each in folders if not tolerated(folder / each))
        real = os.path.realpath(name)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        yield folder


def _split_of(folder: Path) -> str:
    """`TrainData/img`, `TrainData/mask` -> `TrainData`; `images/train`, `annotations/train` -> `train`."""
    parts = list(folder.parts)
    roles = [row for row, part in enumerate(parts) if part in (*IMAGE_FOLDERS, *MASK_FOLDERS)]
    if roles:
        parts.pop(roles[-1])
    return "/".join(parts) or "."


def _sort(split: Split, path: Path) -> Iterator[tuple[str, str, Path, str]]:
    match = NAME.fullmatch(path.name)
    assert match is not None
    kind, number = match[1], int(match[2])
    other = (split.images if kind == "image" else split.masks).setdefault(number, path)
    if other is not path:
        yield "same id", split.where, path, f"has the id of {other.parent.name}/{other.name}"


def _advice(path: Path) -> str:
    """What a stray file was probably meant to be called."""
    numbers = NUMBER.findall(path.stem)
    kind = "mask" if "mask" in path.stem.lower() else "image"
    if path.suffix.lower() in (".h5", ".hdf5", ".he5") and len(numbers) == 1:
        return f"rename it to {kind}_{int(numbers[0])}.h5 if it is a patch"
    return ""


def _ambiguous(root: Path, splits: dict[str, Split]) -> Iterator[tuple[str, str, Path, str]]:
    """Two folders side by side that both mean `train`, or another split."""
    known: dict[tuple[Path, str], str] = {}
    for where, split in splits.items():
        other = known.setdefault((Path(where).parent, split.named or where), where)
        if other != where:
            yield "two folders for one split", where, root / where, f"both {other} and {where} mean {split.named}"
