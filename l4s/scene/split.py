"""Which windows of a labelled scene train and which test: by halves or a checkerboard, never random neighbours (Kimura 2019)."""

from bisect import bisect_right
from collections.abc import Sequence

from l4s.errors import DataError

SPLITS = ("none", "halves", "blocks")
TRAIN, TEST = "train", "test"


def borders(split: str, height: int, width: int, stride: int, block: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Where the parts of a scene begin and end, along rows and along columns; both ends of the scene are among them.

    `halves` cuts the longer axis once, at the multiple of the stride nearest to its middle. `blocks` cuts both every
    `block` pixels; what is left at the end is a block of its own from half a block on, else it belongs to the last.
    """
    rows: tuple[int, ...] = (0, height)
    columns: tuple[int, ...] = (0, width)
    if split == "halves" and width >= height:
        columns = _halves(width, stride)
    elif split == "halves":
        rows = _halves(height, stride)
    elif split == "blocks":
        rows, columns = _blocks(height, block), _blocks(width, block)
    return rows, columns


def part_of(row: int, column: int, size: int, rows: Sequence[int], columns: Sequence[int], gap: int) -> str | None:
    """`train` (the west or north half, the black squares), `test`, or None for a window too near to a border.

    A window belongs to a part that holds all of it, `gap` pixels or more from every border within the scene.
    """
    first, second = _inside(row, size, rows, gap), _inside(column, size, columns, gap)
    if first is None or second is None:
        return None
    return TEST if (first + second) % 2 else TRAIN


def _halves(length: int, stride: int) -> tuple[int, ...]:
    middle = round(length / 2 / stride) * stride
    if not 0 < middle < length:
        raise DataError(f"{length} pixels cannot be halved at a multiple of the stride {stride}: take a smaller stride")
    return 0, middle, length


def _blocks(length: int, block: int) -> tuple[int, ...]:
    return *range(0, block * max(1, (2 * length + block) // (2 * block)), block), length


def _inside(start: int, size: int, edges: Sequence[int], gap: int) -> int | None:
    place = bisect_right(edges, start) - 1
    near = edges[place] + (gap if place else 0)
    far = edges[place + 1] - (gap if place + 2 < len(edges) else 0)
    return place if near <= start and start + size <= far else None
