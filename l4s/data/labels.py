"""One label for a whole patch: from its mask, or, where only points are known, from a `labels.csv`."""

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import TypeVar

import numpy as np

from l4s.data.patch import FOLDERS, IGNORED, PatchRef
from l4s.data.pictures import IMAGES, is_picture
from l4s.data.readers import IMAGE_FOLDERS
from l4s.errors import DataError

LABELS = "labels.csv"
HEADER = ("id", "label", "x", "y")
K = TypeVar("K")


def patch_label(mask: np.ndarray, positive_share: float) -> np.ndarray:
    """Is a patch one of a landslide? Kimura 2019 does not say from how many pixels on: the share is our choice.

    Args:
        mask: (H, W) uint8 in {0, 1, 255 = ignored}.
        positive_share: of the valid pixels; from here on the label is 1. At 0 any landslide pixel makes it 1.

    Returns:
        () uint8: 0 or 1, or 255 where no pixel is valid.
    """
    valid, landslide = np.count_nonzero(mask != IGNORED), np.count_nonzero(mask == 1)
    if not valid:
        return np.array(IGNORED, np.uint8)
    return np.array(landslide > 0 and landslide >= positive_share * valid, np.uint8)


def patch_labels(masks: np.ndarray, positive_share: float) -> np.ndarray:
    """`patch_label` of each of (N, H, W) masks, read one by one: (N,) uint8."""
    return np.array([patch_label(mask, positive_share) for mask in masks], np.uint8)


def read_labels(path: Path) -> dict[int, int]:
    """The labels of a `labels.csv` by the integer ids of patches: 1 where a landslide lies in the patch, else 0.

    Its first line is `id,label,x,y`, or `id,label`; x and y, where the landslide lies, are not read.

    Raises:
        DataError: it is no such table, a label is neither 0 nor 1, or an id is no integer or given twice.
    """
    return _read(path, lambda text: int(text) if text.isascii() and text.isdigit() else None, "number")


def read_picture_labels(path: Path) -> dict[str, int]:
    """The same of pictures, whose ids are words: the names of their files without `.png`.

    Raises:
        DataError: it is no such table, a label is neither 0 nor 1, or an id is empty or given twice.
    """
    return _read(path, lambda text: text or None, "id")


def _read(path: Path, key: Callable[[str], K | None], what: str) -> dict[K, int]:
    """Labels by what `key` makes of the first word of each line, None where it is no id."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = list(csv.reader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as a table ({error}): its first line is {','.join(HEADER)}") from error
    if not lines or tuple(lines[0]) not in (HEADER, HEADER[:2]):
        raise DataError(f"{path} begins with {','.join(lines[0]) if lines else 'nothing'}, not with {','.join(HEADER)}")
    found: dict[K, int] = {}
    for number, line in enumerate(lines[1:], 2):
        patch = key(line[0]) if len(line) == len(lines[0]) else None
        if patch is None or line[1] not in ("0", "1"):
            raise DataError(
                f"{path}, line {number}: {','.join(line)!r} is not the {what} of a patch and a label, 0 or 1"
            )
        if patch in found:
            raise DataError(f"{path}, line {number}: patch {line[0]} has a label already: keep one of the lines")
        found[patch] = int(line[1])
    return found


def write_labels(path: Path, rows: Sequence[tuple[str, int, float, float]]) -> None:
    """Write id, label, x and y of patches as `read_labels` takes them."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([HEADER, *rows])


def labels_beside(patches: Sequence[PatchRef]) -> dict[int, int]:
    """The patch labels of patches without masks, by number; none where patches have masks, or no file labels them.

    `labels.csv` lies beside the folder of images, or above that, beside `TrainData` and `TestData`, as `l4s data chip`
    writes it for points. Its lines name patches by integer ids, and pictures by their ids, which have no integer in them.
    A patch without a line is not labelled.

    Args:
        patches: all that lie in a folder.

    Raises:
        DataError: some patches have masks and others patch labels, the file is broken, or a line names no picture.
    """
    pictures = is_picture(patches[0].image)
    places = _near(patches[0].image.parent, IMAGES if pictures else IMAGE_FOLDERS)
    path = next((place / LABELS for place in places if (place / LABELS).is_file()), None)
    if path is None or all(patch.mask for patch in patches):
        return {}
    if masked := next((patch for patch in patches if patch.mask), None):
        raise DataError(f"{path} labels whole patches, but {masked.mask} labels pixels: keep the masks, or the table")
    if pictures:
        named = read_picture_labels(path)
        if path.parent == places[0]:  # one further above is of several folders
            _refuse_strange(path, named, patches)
        return {patch.number: named[patch.id] for patch in patches if patch.id in named}
    labels = read_labels(path)
    return {patch.number: labels[patch.number] for patch in patches if patch.number in labels}


def _refuse_strange(path: Path, labels: Mapping[str, int], patches: Sequence[PatchRef]) -> None:
    """An id that is written in another way would leave its picture unlabelled without a word."""
    ids = [patch.id for patch in patches]
    if strange := [name for name in labels if name not in set(ids)]:
        more = f" and {len(strange) - 1} more" if strange[1:] else ""
        near = get_close_matches(strange[0], ids, n=1)
        raise DataError(
            f"{path} labels {strange[0]!r}{more}, but {patches[0].image.parent} holds no picture of that name"
            + (f", did you mean {near[0]!r}?" if near else "")
            + f"; write the names of files without {patches[0].image.suffix}, or take the line out"
        )


def with_labels(patches: Sequence[PatchRef]) -> tuple[PatchRef, ...]:
    """The same patches with the labels that `labels_beside` finds."""
    labels = labels_beside(patches)
    return tuple(replace(patch, label=labels[patch.number]) if patch.number in labels else patch for patch in patches)


def _near(images: Path, names: Sequence[str]) -> Sequence[Path]:
    """Where a table of labels for a folder of images, which has one of these names, may lie."""
    if images.name not in names:
        return ()
    splits = {name for names in FOLDERS["official"].values() for name in names}
    return (images.parent, images.parent.parent) if images.parent.name in splits else (images.parent,)
