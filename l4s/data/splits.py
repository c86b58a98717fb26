"""Splits of a release that has none: lists of ids in `splits/*.txt`, and how they are drawn (Lissak 2024: 70/10/20)."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from l4s.data.patch import tolerated
from l4s.errors import DataError, RecipeError
from l4s.files import write_atomic

SPLITS = ("train", "validation", "test")
SHARES = (70, 10, 20)  # per cent; the paper does not say
FOLDER = "splits"


def draw_splits(classes: Sequence[Sequence[str]], *, seed: int, shares: Sequence[int] = SHARES) -> dict[str, list[str]]:
    """Draw train, validation and test of each class by its share.

    Ids are put in the order of a hash of seed and id: the same on every machine and with every version of a library,
    whatever the order of the files.

    Args:
        classes: the ids of each class.
        shares: per cent of each split, 100 together.

    Raises:
        RecipeError: the shares are no three numbers that add up to 100.
    """
    if len(shares) != len(SPLITS) or min(shares) < 0 or sum(shares) != 100:
        raise RecipeError(f"shares are {list(shares)}: give three numbers, of {', '.join(SPLITS)}, that add up to 100")
    drawn: dict[str, list[str]] = {split: [] for split in SPLITS}
    for ids in classes:
        shuffled = sorted(ids, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest())
        ends = [round(len(ids) * sum(shares[:k]) / 100) for k in range(len(SPLITS) + 1)]
        for split, first, last in zip(SPLITS, ends[:-1], ends[1:], strict=True):
            drawn[split] += shuffled[first:last]
    return drawn


def read_splits(folder: Path, ids: Sequence[str]) -> dict[str, list[str]] | None:
    """The splits that `folder/splits/{train,validation,test}.txt` list, one id or one `class/stem(.png)` a line.

    Args:
        ids: all patches; those that no list names are in no split.

    Returns:
        The ids of each split; None where there are no lists.

    Raises:
        DataError: a list is missing beside others, names an unknown patch, or one that was named before.
    """
    place = folder / FOLDER
    found = {path.name: path for path in sorted(place.iterdir()) if not tolerated(path)} if place.is_dir() else {}
    if not found:
        return None
    wanted = [f"{split}.txt" for split in SPLITS]
    if sorted(found) != sorted(wanted):
        raise DataError(
            f"{place} holds {', '.join(found)}, where {', '.join(wanted)} are needed: rename or remove them"
        )
    known, seen = set(ids), dict[str, str]()
    return {split: _listed(found[f"{split}.txt"], known, seen) for split in SPLITS}


def _listed(path: Path, known: set[str], seen: dict[str, str]) -> list[str]:
    """The ids of one list; `seen` says where each id was named, and grows."""
    listed = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is no readable text ({error}): list one id a line") from error
    for number, line in enumerate(lines, 1):
        name = line.strip().removesuffix(".png").replace("/", "-", 1)
        if not name:
            continue
        where = f"{path}, line {number}: {line.strip()!r}"
        if name not in known:
            raise DataError(f"{where} is no patch of this data set: write an id or class/stem.png")
        if name in seen:
            raise DataError(f"{where} was named before, in {seen[name]}: name each patch once")
        seen[name] = f"{path.name}, line {number}"
        listed.append(name)
    return listed


def write_splits(folder: Path, splits: Mapping[str, Sequence[str]]) -> Path:
    """Write the three lists below `folder`, ids in the order given, and return where.

    Lists that are there with the same contents are left alone.

    Raises:
        DataError: other lists lie there.
    """
    texts = {folder / FOLDER / f"{split}.txt": "".join(f"{name}\n" for name in splits[split]) for split in SPLITS}
    for path, text in texts.items():
        if path.is_file() and path.read_bytes().replace(b"\r\n", b"\n") != text.encode():
            raise DataError(f"{path} lists other patches: keep it, or remove the folder {path.parent} to draw again")
    for path, text in texts.items():
        write_atomic(path, text.encode())
    return folder / FOLDER
