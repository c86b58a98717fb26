"""One label for a whole patch: from its mask, or, where only points are known, from a `labels.csv`."""

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from l4s.data.readers import FOLDERS, IMAGE_FOLDERS, PatchRef
from l4s.errors import DataError

IGNORED = 255
READ_WHOLE = ("classify", "score")  # tasks that read one label a patch, or none
LABELS = "labels.csv"
HEADER = ("id", "label", "x", "y")


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
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = list(csv.reader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as a table ({error}): its first line is {','.join(HEADER)}") from error
    if not lines or tuple(lines[0]) not in (HEADER, HEADER[:2]):
        raise DataError(f"{path} begins with {','.join(lines[0]) if lines else 'nothing'}, not with {','.join(HEADER)}")
    found: dict[int, int] = {}
    for number, line in enumerate(lines[1:], 2):
        if len(line) != len(lines[0]) or not (line[0].isascii() and line[0].isdigit()) or line[1] not in ("0", "1"):
            raise DataError(
                f"{path}, line {number}: {','.join(line)!r} is not the number of a patch and a label, 0 or 1"
            )
        if found.setdefault(int(line[0]), int(line[1])) != int(line[1]) or len(found) < number - 1:
            raise DataError(f"{path}, line {number}: patch {line[0]} has a label already: keep one of the lines")
    return found


def write_labels(path: Path, rows: Sequence[tuple[str, int, float, float]]) -> None:
    """Write id, label, x and y of patches as `read_labels` takes them."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([HEADER, *rows])


def labels_beside(patches: Sequence[PatchRef]) -> dict[int, int]:
    """The patch labels of patches without masks, by integer id; none where patches have masks, or no file labels them.

    `labels.csv` lies beside the folder of images, or above that, beside `TrainData` and `TestData`, as `l4s data chip`
    writes it for points.

    Raises:
        DataError: some patches have masks and others patch labels, or the file is broken.
    """
    path = next((place / LABELS for place in _near(patches[0].image.parent) if (place / LABELS).is_file()), None)
    if path is None or all(patch.mask for patch in patches):
        return {}
    if masked := next((patch for patch in patches if patch.mask), None):
        raise DataError(f"{path} labels whole patches, but {masked.mask} labels pixels: keep the masks, or the table")
    labels = read_labels(path)
    return {patch.number: labels[patch.number] for patch in patches if patch.number in labels}


def with_labels(patches: Sequence[PatchRef]) -> tuple[PatchRef, ...]:
    """The same patches with the labels that `labels_beside` finds."""
    labels = labels_beside(patches)
    return tuple(replace(patch, label=labels[patch.number]) if patch.number in labels else patch for patch in patches)


def _near(images: Path) -> Sequence[Path]:
    """Where a table of labels for a folder of images may lie."""
    if images.name not in IMAGE_FOLDERS:
        return ()
    splits = {name for names in FOLDERS["official"].values() for name in names}
    return (images.parent, images.parent.parent) if images.parent.name in splits else (images.parent,)
