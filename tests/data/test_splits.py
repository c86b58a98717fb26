"""How a split is drawn: by class, from the ids alone, the same for ever."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l4s.data.splits import draw_splits, read_splits, write_splits
from l4s.errors import DataError, RecipeError

VALIDATION, TEST = ["landslide-1"], ["landslide-9", "landslide-2"]
IDS = [f"landslide-{k}" for k in range(10)]


def test_the_draw_is_fixed():
    """Runs of years ago must find the patches that they trained on."""
    drawn = draw_splits([IDS], seed=0)
    assert drawn["validation"] == VALIDATION and drawn["test"] == TEST


@given(st.permutations(IDS), st.integers(0, 5))
def test_the_order_of_the_files_does_not_matter(ids, seed):
    assert draw_splits([ids], seed=seed) == draw_splits([IDS], seed=seed)


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 100), st.data())
def test_shares_hold_in_each_class(first, second, train, data):
    validation = data.draw(st.integers(0, 100 - train))
    shares = (train, validation, 100 - train - validation)
    classes = [[f"a{k}" for k in range(first)], [f"b{k}" for k in range(second)]]
    drawn = draw_splits(classes, seed=1, shares=shares)
    assert sorted(sum(drawn.values(), [])) == sorted(sum(classes, []))
    for letter, count in (("a", first), ("b", second)):
        for split, share in zip(drawn, shares, strict=True):
            assert abs(sum(name[0] == letter for name in drawn[split]) - count * share / 100) <= 1


@pytest.mark.parametrize("shares", [(70, 30), (70, 10, 10), (110, -20, 10), (25, 25, 25, 25)])
def test_shares_that_mean_nothing(shares):
    with pytest.raises(RecipeError, match="give three numbers"):
        draw_splits([IDS], seed=0, shares=shares)


def test_what_is_saved_is_read_and_not_overwritten(tmp_path):
    drawn = draw_splits([IDS], seed=0)
    assert read_splits(tmp_path, IDS) is None
    place = write_splits(tmp_path, drawn)
    assert read_splits(tmp_path, IDS) == drawn
    before = {path: path.read_bytes() for path in place.iterdir()}
    write_splits(tmp_path, drawn)
    with pytest.raises(DataError, match="lists other patches"):
        write_splits(tmp_path, draw_splits([IDS], seed=1))
    assert {path: path.read_bytes() for path in place.iterdir()} == before


@pytest.mark.parametrize("changed", [lambda text: text.replace(b"\n", b"\r\n"), lambda text: b"\xe9t\xe9\n" + text])
def test_lists_of_another_program(tmp_path, changed):
    drawn = draw_splits([IDS], seed=0)
    path = write_splits(tmp_path, drawn) / "train.txt"
    path.write_bytes(changed(path.read_bytes()))
    if b"\r" in path.read_bytes():
        write_splits(tmp_path, drawn)
        return
    with pytest.raises(DataError, match="train.txt lists other patches"):
        write_splits(tmp_path, drawn)


def test_one_list_alone_is_an_error(tmp_path):
    write_splits(tmp_path, draw_splits([IDS], seed=0))
    (tmp_path / "splits" / "test.txt").unlink()
    with pytest.raises(
        DataError, match="splits holds train.txt, validation.txt, where train.txt, validation.txt, test.txt"
    ):
        read_splits(tmp_path, IDS)
