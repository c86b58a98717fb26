"""A scene cut into windows, and what is said of each put together again, a row of windows at a time.

Memory holds the strip under one row of windows, the next one, which a thread reads meanwhile, and one strip of sums.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np

from l4s import tiles
from l4s.scene.raster import Reader, Scene, reading
from l4s.scene.result import encode

T = TypeVar("T")


@dataclass(frozen=True)
class Layout:
    """Square windows of `size` pixels over `height` x `width`, `stride` apart.

    With `patch` each window says one value, which becomes one pixel of the result; windows then start at multiples of
    the stride and the last are padded. Without, each says a value for each of its pixels, which overlap and blend.
    """

    height: int
    width: int
    size: int
    stride: int
    patch: bool = False

    @cached_property
    def rows(self) -> tuple[int, ...]:
        """The first pixel row of each row of windows."""
        return self._along(self.height)

    @cached_property
    def columns(self) -> tuple[int, ...]:
        """The first pixel column of each column of windows."""
        return self._along(self.width)

    @property
    def step(self) -> int:
        """Pixels of the scene along one pixel of the result."""
        return self.stride if self.patch else 1

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the result."""
        return (len(self.rows), len(self.columns)) if self.patch else (self.height, self.width)

    @property
    def firsts(self) -> tuple[int, ...]:
        """The first of the result's rows that each row of windows finishes."""
        return tuple(range(len(self.rows))) if self.patch else self.rows

    def before(self, place: int) -> int:
        """The row of windows to begin with, to finish the rows of `place`."""
        return place if self.patch else tiles.lead(self.rows, self.size, place)

    def _along(self, length: int) -> tuple[int, ...]:
        return tiles.cells(length, self.stride) if self.patch else tiles.starts(length, self.size, self.stride)


@dataclass(frozen=True)
class Strip:
    """The pixels under a row of windows: image (C, h, width) as stored, 0 where not valid; valid (h, width) bool.

    `top` is its first row in the scene; h is less than a window's size only at the lower edge.
    """

    top: int
    image: np.ndarray
    valid: np.ndarray

    @property
    def bottom(self) -> int:
        return self.top + len(self.valid)

    def seen(self, columns: Sequence[int], size: int) -> list[int]:
        """Which of the windows at `columns` hold a valid pixel."""
        width = self.valid.shape[1]
        count = np.concatenate([[0], np.cumsum(self.valid.any(0))])
        return [place for place, left in enumerate(columns) if count[min(left + size, width)] > count[left]]

    def cut(self, columns: Sequence[int], size: int) -> tuple[np.ndarray, np.ndarray]:
        """The windows at these columns: images (B, C, size, size) float32 and valid (B, size, size) bool.

        What lies beyond the scene mirrors what the window has of it.
        """
        images = np.empty((len(columns), len(self.image), size, size), np.float32)
        valid = np.empty((len(columns), size, size), bool)
        for place, left in enumerate(columns):
            image, known = self.image[:, :size, left : left + size], self.valid[:size, left : left + size]
            if known.shape != (size, size):
                rows, across = np.ix_(*(tiles.reflected(length, size) for length in known.shape))
                image, known = image[:, rows, across], known[rows, across]
            images[place], valid[place] = image, known
        return images, valid


Answer = Callable[[Strip, Sequence[int]], Iterator[tuple[int, np.ndarray]]]
"""Of a strip and the places of some columns of windows: (place, (size, size) or () float32 in [0, 1]) of each."""


def predict_rows(scene: Scene, layout: Layout, places: range, answer: Answer) -> Iterator[tuple[int, np.ndarray]]:
    """The rows of the result that the rows of windows `places` finish, each as soon as it is finished.

    Windows without a valid pixel are not asked about: no pixel that counts lies under them.

    Yields:
        the place, and (h, result's width) uint8.
    """
    begin = layout.before(places.start)
    every = range(begin, places.stop)
    finish = _patches if layout.patch else _Blend(layout)
    with closing(ahead(lambda: strips(scene, layout, every))) as under:
        for place, strip in zip(every, under, strict=True):
            rows = finish(layout, place, strip, answer)
            if place >= places.start:
                yield place, rows


def _patches(layout: Layout, place: int, strip: Strip, answer: Answer) -> np.ndarray:
    """One row of the result: the value of each window."""
    values, valid = np.zeros(len(layout.columns), np.float32), np.zeros(len(layout.columns), bool)
    for column, value in answer(strip, strip.seen(layout.columns, layout.size)):
        values[column], valid[column] = value, True
    return encode(values, valid)[None]


class _Blend:
    """Overlapping windows blended: the sums of the rows that the next windows still add to."""

    def __init__(self, layout: Layout) -> None:
        self.down = tiles.blend(layout.rows, layout.size, layout.height)
        self.across = tiles.blend(layout.columns, layout.size, layout.width)
        self.ends = tiles.ends(layout.rows, layout.height)
        self.sums = np.zeros((layout.size, max(layout.width, layout.size)), np.float32)

    def __call__(self, layout: Layout, place: int, strip: Strip, answer: Answer) -> np.ndarray:
        """Add a row of windows; the rows that it finishes."""
        down = self.down[place][:, None]
        for column, probs in answer(strip, strip.seen(layout.columns, layout.size)):
            left = layout.columns[column]
            self.sums[:, left : left + layout.size] += probs * down * self.across[column]
        done = self.ends[place] - strip.top
        finished = encode(self.sums[:done, : layout.width], strip.valid[:done])
        self.sums[: layout.size - done] = self.sums[done:]
        self.sums[layout.size - done :] = 0
        return finished


def strips(scene: Scene, layout: Layout, places: range) -> Generator[Strip]:
    """The strip under each row of windows in turn; every pixel row is read once."""
    with reading(scene) as reader:
        held: Strip | None = None
        for place in places:
            top = layout.rows[place]
            held = _read(reader, top, min(top + layout.size, layout.height), held)
            yield held


def _read(reader: Reader, top: int, bottom: int, held: Strip | None) -> Strip:
    """The rows from `top` to `bottom`; those that the strip above holds are taken from it."""
    width = reader.scene.grid.width
    if held is None or held.bottom <= top:
        return Strip(top, *reader.stored(top, 0, bottom - top, width))
    image, valid = held.image[:, top - held.top :], held.valid[top - held.top :]
    if held.bottom < bottom:
        fresh = reader.stored(held.bottom, 0, bottom - held.bottom, width)
        image, valid = np.concatenate([image, fresh[0]], axis=1), np.concatenate([valid, fresh[1]])
    return Strip(top, image, valid)


def ahead(items: Callable[[], Generator[T]]) -> Generator[T]:
    """Run an iterator in a thread of its own, one item ahead of its reader."""
    with ThreadPoolExecutor(1, "l4s-ahead") as thread:
        source = items()  # nothing of it runs yet: all that it opens and closes is that thread's
        coming = thread.submit(next, source, None)
        try:
            while (item := coming.result()) is not None:
                coming = thread.submit(next, source, None)
                yield item
        finally:
            thread.submit(source.close)
