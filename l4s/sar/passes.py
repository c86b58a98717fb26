"""Which passes of a satellite make up a chip: the nearest before an event and the nearest after it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from l4s.errors import DataError, RecipeError

COMPACT = re.compile(r"[0-9]{8}")


@dataclass(frozen=True)
class Event:
    """An event, and how many passes to take on each side of it. `fewer`: be content with those that there are."""

    day: date
    visits: int = 1
    fewer: bool = False

    def __post_init__(self) -> None:
        if self.visits < 1:
            raise RecipeError(f"visits = {self.visits}: take 1 or more passes before and after the event")


@dataclass(frozen=True)
class Passes:
    """Positions of passes in a list of dates, nearest to the event first, and their dates."""

    pre: tuple[int, ...]
    post: tuple[int, ...]
    dates: tuple[tuple[str, ...], tuple[str, ...]]


def read_day(text: str, where: str) -> date:
    """A date written as 2018-09-06 or 20180906; `where` it stands is named in errors.

    Raises:
        DataError: it is none.
    """
    try:
        if COMPACT.fullmatch(text):
            return date(int(text[:4]), int(text[4:6]), int(text[6:]))
        return date.fromisoformat(text)
    except ValueError as error:
        raise DataError(f"{where}: {text!r} is no date: write it as 2018-09-06 or 20180906") from error


def choose_passes(days: Sequence[date], event: Event, where: str) -> Passes:
    """The passes nearest to an event; one on the day itself may lie on either side of it and is left out.

    Args:
        days: of the passes that there are, in any order.
        where: names the chip in errors.

    Raises:
        DataError: there are fewer passes before or after the event than wanted (with `fewer`: none), or two of the day of
            one that would be taken.
    """
    pre = sorted((k for k, day in enumerate(days) if day < event.day), key=lambda k: days[k], reverse=True)
    post = sorted((k for k, day in enumerate(days) if day > event.day), key=lambda k: days[k])
    for side, found in (("before", pre), ("after", post)):
        if len(found) < (1 if event.fewer else event.visits):
            raise DataError(_missing(where, side, found, days, event))
    first, second = tuple(pre[: event.visits]), tuple(post[: event.visits])
    if twice := [days[k] for k in (*first, *second) if days.count(days[k]) > 1]:
        raise DataError(
            f"{where} has two passes of {twice[0]}, and one is wanted: choose with --orbit a or --orbit d where their orbits "
            "differ, else keep one of them in the source"
        )
    return Passes(first, second, (_dates(first, days), _dates(second, days)))


def _dates(chosen: Sequence[int], days: Sequence[date]) -> tuple[str, ...]:
    return tuple(days[k].isoformat() for k in chosen)


def _missing(where: str, side: str, found: Sequence[int], days: Sequence[date], event: Event) -> str:
    on_side = ", ".join(days[k].isoformat() for k in found) or "none"
    every = ", ".join(day.isoformat() for day in sorted(days)) or "none"
    wanted = "lower --visits, or take what is there with --fewer" if found else "check --event"
    return (
        f"{where} has {len(found)} of {event.visits} passes {side} {event.day.isoformat()} ({on_side}; all its passes: "
        f"{every}): {wanted}"
    )
