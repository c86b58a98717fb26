"""Parts of a split: the paper's numbers, disjoint, and the same for each domain that takes one."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from data_factory import write_h5
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from l4s import log
from l4s.data import parts
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
    dealt = [numbers(count, name, by=by, **seeds) for name in TABLE_A1]
    assert sorted(number for part in dealt for number in part) == list(range(1, count + 1))
    assert all(part == sorted(part) for part in dealt)
    together = numbers(count, "pretrain", "validation", by=by, **seeds)
    assert together == sorted(dealt[0] + dealt[2])


def labelled(landslide):
    return [replace(ref, label=int(some)) for ref, some in zip(patches(len(landslide)), landslide, strict=True)]


@pytest.mark.parametrize(("data", "seed"), [(0, 0), (1, 0), (2, 3)])
def test_drawn_parts_are_balanced_like_the_whole(data, seed):
    """The paper's 552 chips, half of them with landslides, in any order: each part is half, to within a chip."""
    landslide = np.random.default_rng(data).permutation(552) < 276
    for name, size in zip(TABLE_A1, (331, 110, 55, 56), strict=True):
        taken = take_parts(labelled(landslide), Parts(shares=TABLE_A1, take=(name,), seed=seed))
        assert len(taken) == size and abs(sum(ref.label for ref in taken) - size / 2) <= 1


@given(st.lists(st.sampled_from([0, 1, None]), min_size=20, max_size=200), st.integers(0, 9))
def test_any_labels_are_spread_evenly(labels, seed):
    refs = [replace(ref, label=label) for ref, label in zip(patches(len(labels)), labels, strict=True)]
    dealt = {name: take_parts(refs, Parts(shares=TABLE_A1, take=(name,), seed=seed)) for name in TABLE_A1}
    assert sorted(ref.number for part in dealt.values() for ref in part) == list(range(1, len(labels) + 1))
    for part in dealt.values():
        for label in (0, 1, None):
            wanted = labels.count(label) * len(part) / len(labels)
            assert abs([ref.label for ref in part].count(label) - wanted) < 2


def test_labels_come_from_masks_too_and_are_read_once(tmp_path, monkeypatch):
    refs = []
    for ref in patches(40):
        mask = np.zeros((4, 4), np.uint8)
        mask[0, 0] = 1 if ref.number <= 20 else 255
        refs.append(replace(ref, mask=write_h5(tmp_path / f"mask_{ref.number}.h5", "mask", mask)))
    refs.append(replace(refs[0], id="41", number=41, mask=None, background=True))
    half = Parts(shares={"a": 0.5, "b": 0.5}, take=("a",))
    taken = take_parts(refs, half, cache=tmp_path / "cache")
    assert len(taken) == 20 and sum(ref.number <= 20 for ref in taken) == 10
    monkeypatch.setattr(parts, "read_mask", lambda *_: pytest.fail("a mask was read"))
    assert take_parts(refs, half, cache=tmp_path / "cache") == taken
    monkeypatch.undo()
    write_h5(tmp_path / "mask_1.h5", "mask", np.zeros((4, 4), np.uint8))  # read anew where a file has changed
    assert parts.with_landslides(refs, None, None, tmp_path / "cache") == [False, *[True] * 19, *[False] * 21]
    other = parts.with_landslides(refs, (255,), (1,), tmp_path / "cache")
    assert other == [*[False] * 20, *[True] * 20, False]


def test_blocks_that_differ_are_told(monkeypatch):
    told = []
    monkeypatch.setattr(log, "warn", told.append)
    half = {"shares": {"a": 0.5, "b": 0.5}, "take": ("a",), "by": "blocks"}
    take_parts(labelled([True, False] * 10), Parts(**half))
    take_parts(patches(20), Parts(**half))
    assert told == []
    take_parts(labelled([True] * 10 + [False] * 10), Parts(**half))
    assert "a 100%, b 0%" in told[0]


def test_random_parts_are_drawn_by_the_seed():
    assert numbers(100, "test") == numbers(100, "test") != numbers(100, "test", seed=1)


def test_blocks_are_contiguous_and_have_gaps():
    dealt = [numbers(100, name, by="blocks", gap=3) for name in TABLE_A1]
    assert dealt == [[*range(1, 61)], [*range(64, 81)], [*range(84, 91)], [*range(94, 101)]]


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
    some = Parts(shares=TABLE_A1, take=("pretrain", "validation"))
    DomainConfig(role="source", parts=some, holdout={"by": "region", "regions": ("validation",)})
    with pytest.raises(ValidationError, match="holdout names region 'test'"):
        DomainConfig(role="source", parts=some, holdout={"by": "region", "regions": ("test",)})
    with pytest.raises(ValidationError, match="leave one of them out"):
        DomainConfig(role="source", parts=some, regions={"a": (1, 2)})
