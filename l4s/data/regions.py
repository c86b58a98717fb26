"""Regions: names for ranges of ids, first and last included, that share no id."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

from l4s.errors import DataError

Regions = Mapping[str, tuple[int, int]]


def read_regions(texts: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Regions written as `name=first-last`, one or several with commas in each text.

    Raises:
        DataError: a text is of another form, or as `check_regions`.
    """
    found: list[tuple[str, tuple[int, int]]] = []
    for text in ",".join(texts).split(",") if texts else ():
        name, _, span = text.partition("=")
        first, _, last = span.partition("-")
        if not name or not first.isdigit() or not last.isdigit() or int(first) > int(last):
            raise DataError(f"region {text!r} is not name=first-last, such as iburi=3037-3184")
        if name in dict(found):
            raise DataError(f"region {name!r} is given twice: give it one range")
        found.append((name, (int(first), int(last))))
    check_regions(dict(found))
    return dict(found)


def check_regions(regions: Regions) -> None:
    """Refuse ranges that mean nothing.

    Raises:
        DataError: a region ends before it begins, or two hold the same id.
    """
    ranges = sorted((first, last, name) for name, (first, last) in regions.items())
    for first, last, name in ranges:
        if first > last:
            raise DataError(f"region {name!r} ends before it begins: {first} to {last}; write it as (first, last)")
    for (_, last, name), (first, _, other) in pairwise(ranges):
        if first <= last:
            raise DataError(f"regions {name!r} and {other!r} both hold id {first}: make their ranges disjoint")


def region_of(number: int, regions: Regions) -> str | None:
    """The region that an id lies in; None where it is in none of them."""
    return next((name for name, (first, last) in regions.items() if first <= number <= last), None)
