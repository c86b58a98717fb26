"""What a person sees while a step runs: stderr only, the first process only, and no moving bar where there is no terminal."""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

LINE_SECONDS = 30.0  # without a terminal: a line this often

console = Console(stderr=True, quiet=os.environ.get("RANK", "0") != "0", highlight=False)


def info(message: str) -> None:
    """One line of log."""
    console.print(Text(message), soft_wrap=True)  # a path may hold [brackets], which are no markup


def warn(message: str) -> None:
    """One line that should be read."""
    console.print(Text.assemble(("warning:", "yellow"), f" {message}"), soft_wrap=True)


def track(items: Iterable[int], text: str, total: int) -> Iterator[int]:
    """Iterate with a progress bar."""
    with live(text, total) as update:
        for done, item in enumerate(items, 1):
            yield item
            update(done)


@contextmanager
def live(text: str, total: int) -> Iterator[Callable[..., None]]:
    """A bar with ETA; the block gets `update(done, note="")`."""
    if not console.is_terminal:
        yield _lines(text, total)
        return
    what, last = (TextColumn(f"{{task.{field}}}", markup=False) for field in ("description", "fields[note]"))
    columns = (SpinnerColumn(), what, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), last)
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(text, total=total, note="")
        yield lambda done, note="": bar.update(task, completed=done, note=note)


def _lines(text: str, total: int) -> Callable[..., None]:
    started = last = time.monotonic()
    first: int | None = None

    def update(done: int, note: str = "") -> None:
        nonlocal last, first
        now = time.monotonic()
        first = done if first is None else first
        if now - last < LINE_SECONDS:
            return
        last = now
        left = (total - done) * (now - started) / max(done - first, 1)
        info(f"{text} {done}/{total} {note} ETA {left / 60:.1f} min")

    return update
