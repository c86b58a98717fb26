"""What the readers of all layouts share: a patch's files, the folders of splits, and files that systems leave behind."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from l4s.errors import DataError, RunError
from l4s.files import read_json

FOLDERS: dict[str, dict[str, tuple[str, ...]]] = {
    "official": {"train": ("TrainData",), "validation": ("ValidData",), "test": ("TestData",)},
    "huggingface": {"train": ("train",), "validation": ("validation",), "test": ("test",)},
    "split-folders": {"train": ("train",), "validation": ("validation", "valid", "val"), "test": ("test",)},
    "hokkaido": {"train": ("train",), "validation": ("validation", "valid", "val"), "test": ("test",)},
}
"""Layout -> split -> the names its folder may have."""

SPLIT_OF = {name: split for folders in FOLDERS.values() for split, names in folders.items() for name in names}
"""Every name of a split -> `train`, `validation` or `test`."""

IGNORED = 255
"""In a mask: nobody knows whether this is landslide, and the pixel counts nowhere."""

TOLERATED = ("Thumbs.db", "desktop.ini", "__MACOSX")
SIDECARS = (".aux.xml", ".ovr", ".pgw", ".tfw", ".wld", ".prj")  # what GIS programs lay beside a picture


@dataclass(frozen=True)
class PatchRef:
    """One patch: its id as written in the file name, the same as an integer, its files, its region ("" if none).

    `square` is (side, row, column) of the part of its files that it is; None where it is all of them. `dem` is the file
    of the heights beside a picture, None where there is none. A patch that is `background` throughout has no mask file.
    `label` is 1 or 0 where the patch is labelled as a whole (`labels.csv`) and no pixel of it is; None elsewhere.
    """

    id: str
    number: int
    image: Path
    mask: Path | None
    region: str = ""
    square: tuple[int, int, int] | None = None
    dem: Path | None = None
    background: bool = False
    label: int | None = None

    @property
    def labelled(self) -> bool:
        """Is it known what each pixel is?"""
        return self.background or self.mask is not None


def cut_of(patch: PatchRef) -> dict[str, Any]:
    """What `l4s data chip` says of the cut of a scene that a patch belongs to (`manifest.json`); {} of any other patch."""
    try:
        found = read_json(patch.image.resolve().parent.parent.parent / "manifest.json")
    except RunError:  # somebody else's file of that name, or none
        return {}
    return found if {"scene", "bands", "fingerprint"} <= found.keys() else {}


def natural(text: str) -> tuple[list[str | int], str]:
    """A sort key that puts 9 before 10: text and numbers alternate, so that only equal kinds meet."""
    return [int(piece) if row % 2 else piece for row, piece in enumerate(re.split(r"([0-9]+)", text))], text


def tolerated(path: Path) -> bool:
    """Is this a file or folder that systems or GIS programs leave behind, and no part of the data?"""
    return path.name.startswith(".") or path.name in TOLERATED or path.name.endswith(SIDECARS)


def only_folder(parent: Path, names: Sequence[str]) -> Path | None:
    """The folder in `parent` that has one of these names; None where there is none.

    Raises:
        DataError: there are two.
    """
    there = [parent / name for name in names if (parent / name).is_dir()]
    if len(there) > 1:
        both = " and ".join(path.name for path in there)
        raise DataError(f"{parent} holds {both}, which mean the same: rename one, or name the folder itself as `split`")
    return there[0] if there else None


def split_folder(parent: Path, layout: str, split: str) -> Path | None:
    """The folder of a named split in `parent`; None where there is none, or where `split` is no named one."""
    return only_folder(parent, FOLDERS[layout][SPLIT_OF[split]]) if split in SPLIT_OF else None
