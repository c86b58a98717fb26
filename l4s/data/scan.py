"""Every file below a data folder, sorted leniently: patches by split, and whatever does not belong."""

import os
import re
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from l4s.data.folders import (
    DRAWN_SEED,
    bijie_folder,
    bijie_patches,
    bijie_splits,
    hokkaido,
    holds_pictures,
    picture_folder,
)
from l4s.data.labels import LABELS, labels_beside
from l4s.data.patch import SPLIT_OF, PatchRef, tolerated
from l4s.data.pictures import IMAGES
from l4s.data.readers import IMAGE_FOLDERS, MASK_FOLDERS, NAME
from l4s.data.splits import FOLDER as LISTS
from l4s.data.splits import SHARES, read_splits
from l4s.errors import DataError

NUMBER = re.compile(r"[0-9]+")
Found = tuple[str, str, Path | None, str]
"""What is wrong with a name or a place: kind, where, path (None: the whole split), detail."""


@dataclass
class Split:
    """The patches of one folder, images and masks by integer id.

    `where` is the folder relative to the data folder, without the `img`, `mask` or `images` of its layout; `named` is
    `train`, `validation` or `test` where the folder has one of the names of these, else "". `pictures` are the patches
    where they are pictures, and empty for HDF5; the ids of pictures count them, and `where` may be a split that is drawn.
    `labels` are those of whole patches, by integer id, where a `labels.csv` is read in place of masks.
    """

    where: str
    images: dict[int, Path] = field(default_factory=dict)
    masks: dict[int, Path] = field(default_factory=dict)
    pictures: tuple[PatchRef, ...] = ()
    labels: dict[int, int] = field(default_factory=dict)

    @property
    def named(self) -> str:
        return SPLIT_OF.get(Path(self.where).name, "")

    @property
    def dems(self) -> dict[int, Path]:
        """The files of heights beside pictures."""
        return {ref.number: ref.dem for ref in self.pictures if ref.dem}

    @property
    def background(self) -> set[int]:
        """Pictures that need no mask: no landslide is in them."""
        return {ref.number for ref in self.pictures if ref.background}


Pictures = tuple[list[Split], list[Found]]  # of one folder


@dataclass(frozen=True)
class Scan:
    """All splits by `where`, and what is wrong with names and places."""

    splits: dict[str, Split]
    faults: tuple[Found, ...]


def scan(root: Path) -> Scan:
    """Sort all files below `root`, whatever their layout; every layout of `l4s.data.readers` is understood."""
    splits: dict[str, Split] = {}
    faults: list[Found] = []
    pictures = _picture_folders(root)
    for folder, reads in pictures.items():
        found, told = _read(folder, str(folder.relative_to(root)), reads)
        splits |= {split.where: split for split in found}
        faults += told
    for folder in _folders(root, pictures):
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
    read, told = _read_labels(splits)
    faults = [each for each in faults if each[2] not in read]
    return Scan(splits, (*faults, *told, *_ambiguous(root, splits)))


def _read_labels(splits: dict[str, Split]) -> tuple[set[Path], list[Found]]:
    """Give splits the labels of whole patches that their readers find; the files that hold them, and what is wrong."""
    read: set[Path] = set()
    told: list[Found] = []
    for where, split in splits.items():
        refs = split.pictures or tuple(
            PatchRef(str(number), number, path, split.masks.get(number)) for number, path in split.images.items()
        )
        found = len(told)
        try:
            split.labels = labels_beside(refs) if refs else {}
        except DataError as error:
            told.append(("refused by the reader", where, None, str(error)))
        if split.labels or len(told) > found:
            near = [folder / LABELS for folder in refs[0].image.parents[1:3]]
            read.add(next(path for path in near if path.is_file()))
    return read, told


def _picture_folders(root: Path) -> dict[Path, Callable[[Path, str], Pictures]]:
    """The folders at or below `root` that hold pictures, none of them in another, and how each is read."""
    found: dict[Path, Callable[[Path, str], Pictures]] = {}
    for folder in _folders(root, found):
        if bijie_folder(folder) == folder:
            found[folder] = _bijie
        elif _holds_pictures(folder, root):
            found[folder] = _hokkaido
    return found


def _read(folder: Path, where: str, reads: Callable[[Path, str], Pictures]) -> Pictures:
    try:
        return reads(folder, where)
    except DataError as error:  # names and places that do not go together: nothing can be said of the files
        return [], [("refused by the reader", where, None, str(error))]


def _bijie(folder: Path, where: str) -> Pictures:
    """Train, validation and test of a folder of classes, listed or drawn, as far as any picture is in them."""
    every = bijie_patches(folder)
    splits = bijie_splits(folder, every)
    found: list[Found] = []
    if read_splits(folder, [ref.id for ref in every]) is None:
        shares = "/".join(map(str, SHARES))
        found.append(("drawn split", where, None, f"no lists lie in {LISTS}/: {shares} by class, seed {DRAWN_SEED}"))
    if left := len(every) - sum(map(len, splits.values())):
        found.append(("in no list", where, None, f"{left} of {len(every)} pictures"))
    return [_pictures(str(Path(where, name)), refs) for name, refs in splits.items() if refs], found


def _hokkaido(folder: Path, where: str) -> Pictures:
    """A folder of pictures, with masks and DEMs, is one split."""
    return [_pictures(where, hokkaido(folder, ".") or ())], []


def _pictures(where: str, refs: tuple[PatchRef, ...]) -> Split:
    masks = {ref.number: ref.mask for ref in refs if ref.mask}
    return Split(where, {ref.number: ref.image for ref in refs}, masks, refs)


def _holds_pictures(folder: Path, root: Path) -> bool:
    """Is it a split of pictures? Those that lie openly are meant where they are the data folder, or its train."""
    there = [folder / name for name in IMAGES if (folder / name).is_dir()]
    if there:
        return any(map(holds_pictures, there))
    named = folder == root or (folder.parent == root and folder.name in SPLIT_OF)
    return named and picture_folder(folder) is not None


def _folders(root: Path, taken: Container[Path]) -> Iterator[Path]:
    """`root` and every folder below it but those taken, in order; links to folders are followed once."""
    seen: set[str] = set()
    for name, folders, _files in os.walk(root, followlinks=True):
        folder = Path(name)
        folders[:] = sorted(each for each in folders if not tolerated(folder / each))
        real = os.path.realpath(name)
        if real in seen or folder in taken:
            folders.clear()
            continue
        seen.add(real)
        yield folder
        if folder in taken:  # only now: the caller has looked at it
            folders.clear()


def _split_of(folder: Path) -> str:
    """`TrainData/img`, `TrainData/mask` -> `TrainData`; `images/train`, `annotations/train` -> `train`."""
    parts = list(folder.parts)
    roles = [row for row, part in enumerate(parts) if part in (*IMAGE_FOLDERS, *MASK_FOLDERS)]
    if roles:
        parts.pop(roles[-1])
    return "/".join(parts) or "."


def _sort(split: Split, path: Path) -> Iterator[Found]:
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


def _ambiguous(root: Path, splits: dict[str, Split]) -> Iterator[Found]:
    """Two folders side by side that both mean `train`, or another split."""
    known: dict[tuple[Path, str], str] = {}
    for where, split in splits.items():
        other = known.setdefault((Path(where).parent, split.named or where), where)
        if other != where:
            yield "two folders for one split", where, root / where, f"both {other} and {where} mean {split.named}"
