"""Which passes make up a chip."""

from datetime import date

import pytest

from l4s.errors import DataError, RecipeError
from l4s.sar.passes import Event, choose_passes, read_day

EVENT = date(2018, 9, 6)
DAYS = [date(2018, month, day) for month, day in ((9, 13), (8, 24), (9, 1), (9, 25), (9, 6), (8, 12))]


def test_the_nearest_come_first_and_the_day_itself_is_left_out():
    found = choose_passes(DAYS, Event(EVENT, 2), "chip 7")
    assert (found.pre, found.post) == ((2, 1), (0, 3))
    assert found.dates == (("2018-09-01", "2018-08-24"), ("2018-09-13", "2018-09-25"))
    assert choose_passes(DAYS, Event(EVENT), "chip 7").pre == (2,)


def test_too_few_are_told_with_their_dates():
    with pytest.raises(
        DataError, match=r"chip 7 has 2 of 3 passes after 2018-09-06 \(2018-09-13, 2018-09-25; .*--fewer"
    ):
        choose_passes(DAYS, Event(EVENT, 3), "chip 7")
    found = choose_passes(DAYS, Event(EVENT, 4, fewer=True), "chip 7")
    assert (found.pre, found.post) == ((2, 1, 5), (0, 3))
    with pytest.raises(DataError, match=r"chip 7 has 0 of 1 passes before 2018-08-12 \(none; .*check --event"):
        choose_passes(DAYS, Event(date(2018, 8, 12), fewer=True), "chip 7")
    with pytest.raises(DataError, match="all its passes: none"):
        choose_passes([], Event(EVENT), "chip 7")


def test_two_passes_of_a_day_are_not_chosen_between():
    """Where one of them would be taken: others, and the day of the event, are nobody's business."""
    with pytest.raises(
        DataError, match="chip 7 has two passes of 2018-09-13, .*--orbit a or --orbit d .*keep one of them"
    ):
        choose_passes([*DAYS, date(2018, 9, 13)], Event(EVENT), "chip 7")
    twice = [*DAYS, date(2018, 9, 25), date(2018, 8, 24), EVENT, date(2014, 1, 1), date(2014, 1, 1)]
    assert choose_passes(twice, Event(EVENT), "chip 7") == choose_passes(DAYS, Event(EVENT), "chip 7")
    with pytest.raises(DataError, match="two passes of 2018-08-24"):
        choose_passes(twice, Event(EVENT, 2), "chip 7")


def test_dates():
    assert read_day("20180906", "x") == read_day("2018-09-06", "x") == EVENT
    for text in ("2018-13-01", "20181301", "06.09.2018", "", "2018", "soon"):
        with pytest.raises(DataError, match="chip 7: '.*' is no date: write it as 2018-09-06"):
            read_day(text, "chip 7")
    with pytest.raises(RecipeError, match="visits = 0"):
        Event(EVENT, 0)
