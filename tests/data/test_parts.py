"""Parts of a split: the paper's numbers, disjoint, and the same for each domain that takes one."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from l4s.data.parts import take_parts
from l4s.data.patch import PatchRef
from l4s.errors import DataError
from l4s.recipe import DomainConfig, Parts

TABLE_A1 = {"pretrain": 0.6, "train": 0.2, "validation": 0.1, "test": 0.1}


def patches(count):
    return [PatchRef(str(number), number, Path(f"image_{number}.h5"), None) for number in range(1, count + 1)]


def numbers(count, *take, **config):
    return [ref.number for ref in take_parts(patches(count), Parts(**{"shares": TABLE_A1, "take": take} | config))]


@pytest.mark.parametrize("by", ["random", "blocks"])
def test_the_papers_table(by):
    sizes = [len(numbers(552, name, by=by)) for name in TABLE_A1]
    assert sizes == [331, 110, 55, 56]
    kaikoura = {"train": 0.75, "validation": 0.125, "test": 0.125}
    assert [len(numbers(2174, name, by=by, shares=kaikoura)) for name in kaikoura] == [1630, 272, 272]


@given(st.integers(20, 200), st.integers(0, 9), st.sampled_from(["random", "blocks"]))
def test_parts_are_disjoint_and_whole(count, seed, by):
    seeds = {"seed": seed} if by == "random" else {}
    parts = [numbers(count, name, by=by, **seeds) for name in TABLE_A1]
    assert sorted(number for part in parts for number in part) == list(range(1, count + 1))
    assert all(part == sorted(part) for part in parts)
    together = numbers(count, "pretrain", "validation", by=by, **seeds)
    assert together == sorted(parts[0] + parts[2])


def test_random_parts_are_drawn_by_the_seed():
    assert numbers(100, "test") == numbers(100, "test") != numbers(100, "test", seed=1)


def test_blocks_are_contiguous_and_have_gaps():
    parts = [numbers(100, name, by="blocks", gap=3) for name in TABLE_A1]
    assert parts == [[*range(1, 61)], [*range(64, 81)], [*range(84, 91)], [*range(94, 101)]]


def test_a_part_is_the_region_of_its_patches():
    taken = take_parts(patches(20), Parts(shares=TABLE_A1, take=("train", "test"), by="blocks"))
    assert [ref.region for ref in taken] == ["train"] * 4 + ["test"] * 2


def test_a_part_of_nothing():
    with pytest.raises(DataError, match="part 'test' gets none of 20 patches"):
        numbers(20, "test", by="blocks", gap=2)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"shares": {"a": 0.5, "b": 0.4}, "take": ("a",)}, "add up to 1"),
        ({"shares": TABLE_A1, "take": ("tst",)}, "did you mean 'test'"),
        ({"shares": TABLE_A1, "take": ("test",), "gap": 2}, "does not read gap"),
        ({"shares": TABLE_A1, "take": ("test",), "by": "blocks", "seed": 1}, "does not read seed"),
    ],
)
def test_parts_that_cannot_be(config, message):
    with pytest.raises(ValidationError, match=message):
        Parts(**config)


def test_a_hold_out_names_a_part_that_is_taken():
    parts = Parts(shares=TABLE_A1, take=("pretrain", "validation"))
    DomainConfig(role="source", parts=parts, holdout={"by": "region", "regions": ("validation",)})
    with pytest.raises(ValidationError, match="holdout names region 'test'"):
        DomainConfig(role="source", parts=parts, holdout={"by": "region", "regions": ("test",)})
    with pytest.raises(ValidationError, match="leave one of them out"):
        DomainConfig(role="source", parts=parts, regions={"a": (1, 2)})
