"""Masks from probabilities, against a flood fill by hand."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from l4s.data.probs import open_probs, write_probs
from l4s.errors import DataError, RecipeError
from l4s.postprocess import masks, to_mask


def slow_mask(probs: np.ndarray, threshold: float, min_area: int) -> np.ndarray:
    """Reference: one flood fill over the eight neighbours for every pixel."""
    left = {(int(y), int(x)) for y, x in np.ndindex(probs.shape) if float(probs[y, x]) >= threshold}
    mask = np.zeros(probs.shape, np.uint8)
    while left:
        component, todo = set(), [left.pop()]
        while todo:
            y, x = todo.pop()
            component.add((y, x))
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            todo += near
        if len(component) >= min_area:
            mask[tuple(zip(*component, strict=True))] = 1
    return mask


PROBS = arrays(np.float16, st.tuples(st.integers(1, 7), st.integers(1, 7)), elements=st.floats(0, 1, width=16))


@given(PROBS, st.floats(0.01, 0.99), st.integers(0, 6))
def test_equals_the_flood_fill(probs: np.ndarray, threshold: float, min_area: int) -> None:
    mask = to_mask(probs, threshold, min_area)
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, slow_mask(probs, threshold, min_area))


def test_threshold_is_inclusive_and_not_rounded_to_float16() -> None:
    # The float16 nearest to 0.1 is 0.09998, the one nearest to 0.7 is 0.7002.
    probs = np.array([[0.1, 0.5, 0.7]], np.float16)
    assert to_mask(probs, 0.1).tolist() == [[0, 1, 1]]
    assert to_mask(probs, 0.5).tolist() == [[0, 1, 1]]
    assert to_mask(probs, 0.7).tolist() == [[0, 0, 1]]


def test_corners_connect_and_small_components_go() -> None:
    probs = np.array([[1, 0, 0, 0, 1], [0, 1, 0, 0, 1], [0, 0, 1, 0, 0]], np.float16)
    assert to_mask(probs, 0.5, 3).tolist() == [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 1, 0, 0]]
    assert to_mask(probs, 0.5, 2).tolist() == probs.astype(int).tolist()
    assert to_mask(probs, 0.5, 4).sum() == 0


@pytest.mark.parametrize("threshold", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_senseless_thresholds(threshold: float) -> None:
    with pytest.raises(RecipeError, match="threshold"):
        to_mask(np.zeros((2, 2), np.float16), threshold)


def test_senseless_area_and_rank() -> None:
    with pytest.raises(RecipeError, match="min_area is -1"):
        to_mask(np.zeros((2, 2), np.float16), 0.5, -1)
    with pytest.raises(DataError, match=r"\(4,\)"):
        to_mask(np.zeros(4, np.float16), 0.5)


@pytest.mark.parametrize("kind", ["probability", "score"])
def test_masks_keep_ids_and_order(tmp_path: Path, kind: str) -> None:
    path, values = tmp_path / "p.h5", np.random.default_rng(0).random((3, 4, 5)).astype(np.float16)
    origin = {"member": "a", "fingerprint": "f", "domain": "d", "tta": "none", "kind": kind}
    with write_probs(path, ids=["10", "9", "x"], shape=values.shape, **origin) as writer:
        writer.put(0, values)
    probs = open_probs(path)
    found = list(masks(probs, 0.5, 2))
    assert [id for id, _ in found] == ["10", "9", "x"]
    for (_, mask), value in zip(found, values, strict=True):
        np.testing.assert_array_equal(mask, slow_mask(value, 0.5, 2))
    with pytest.raises(RecipeError):
        masks(probs, 2.0)  # at the call, without asking for a mask
