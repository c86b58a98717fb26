"""Windows over a scene: every pixel is covered, and blending adds up to one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from l4s import tiles


@st.composite
def axes(draw):
    """Length, window and stride of an axis; the stride is at most a window."""
    size = draw(st.integers(1, 40))
    return draw(st.integers(1, 150)), size, draw(st.integers(1, size))


@pytest.mark.parametrize(
    ("length", "size", "stride", "wanted"),
    [
        (10, 4, 2, (0, 2, 4, 6)),
        (11, 4, 2, (0, 2, 4, 6, 7)),  # the last is snapped to the edge
        (10, 4, 4, (0, 4, 6)),
        (4, 4, 2, (0,)),
        (3, 4, 2, (0,)),  # what lies beyond is padding
        (5, 4, 4, (0, 1)),
    ],
)
def test_where_windows_start(length, size, stride, wanted):
    assert tiles.starts(length, size, stride) == wanted


@given(axes())
def test_every_pixel_is_covered_and_none_beyond(axis):
    length, size, stride = axis
    first = tiles.starts(length, size, stride)
    covered = np.zeros(max(length, size), int)
    for start in first:
        covered[start : start + size] += 1
    assert covered.min() >= 1 and first[-1] + size == max(length, size)
    assert all(0 < b - a <= stride for a, b in zip(first, first[1:], strict=False))


@given(axes())
def test_cells_lie_at_multiples_of_the_stride(axis):
    length, _, stride = axis
    assert tiles.cells(length, stride) == tuple(place for place in range(length) if place % stride == 0)


def test_the_bell_is_a_raised_cosine_that_is_nowhere_zero():
    np.testing.assert_allclose(tiles.bell(4), [0.14644661, 0.85355339, 0.85355339, 0.14644661])
    places = (np.arange(512) + 0.5) / 512
    np.testing.assert_allclose(tiles.bell(512), 0.5 - 0.5 * np.cos(2 * np.pi * places), atol=1e-12)
    assert tiles.bell(1) == 1 and tiles.bell(4096).astype(np.float32).min() > 0


@given(axes())
def test_the_blend_adds_up_to_one_and_is_nowhere_zero(axis):
    length, size, stride = axis
    first = tiles.starts(length, size, stride)
    shares = tiles.blend(first, size, length)
    assert shares.dtype == np.float32 and shares.shape == (len(first), size) and shares.min() > 0
    total = np.zeros(max(length, size), np.float32)
    for start, share in zip(first, shares, strict=True):
        total[start : start + size] += share
    np.testing.assert_allclose(total, 1, atol=1e-6)


@given(axes(), axes(), st.floats(0, 1))
def test_windows_that_say_one_constant_blend_to_it(down, across, value):
    height, width = down[0], across[0]
    rows, columns = (tiles.starts(*axis) for axis in (down, across))
    vertical, horizontal = tiles.blend(rows, down[1], height), tiles.blend(columns, across[1], width)
    total = np.zeros((max(height, down[1]), max(width, across[1])), np.float32)
    for row, above in zip(rows, vertical, strict=True):
        for column, beside in zip(columns, horizontal, strict=True):
            total[row : row + down[1], column : column + across[1]] += np.float32(value) * np.outer(above, beside)
    np.testing.assert_allclose(total, value, atol=2e-6)


def test_shares_are_those_of_the_bells():
    """Two windows of four pixels, two apart: at the third pixel the first has bell[2], the second bell[0]."""
    shares = tiles.blend((0, 2), 4, 6)
    edge, middle = tiles.bell(4)[:2]
    np.testing.assert_allclose(shares[0], [1, 1, middle / (middle + edge), edge / (edge + middle)], atol=1e-7)
    np.testing.assert_allclose(shares[1], shares[0][::-1], atol=1e-7)


@given(axes())
def test_rows_are_final_when_no_later_window_touches_them(axis):
    length, size, stride = axis
    first = tiles.starts(length, size, stride)
    ends = tiles.ends(first, length)
    assert ends[-1] == length
    for place, start in enumerate(first):
        later = min((other for other in first[place + 1 :]), default=length)
        assert ends[place] == later
        touching = [other for other in range(place + 1) if first[other] < ends[place] and first[other] + size > start]
        assert tiles.lead(first, size, place) == touching[0]
        assert touching == list(range(touching[0], place + 1))


@given(st.integers(1, 12), st.integers(1, 50))
def test_padding_mirrors_what_there_is(length, size):
    values = np.arange(length)
    there, beyond = values[:size], max(size - length, 0)
    wanted = np.pad(there, (0, beyond), mode="reflect" if length > 1 else "edge")
    assert values[tiles.reflected(length, size)].tolist() == wanted.tolist()


@given(st.integers(0, 100), st.integers(1, 12))
def test_shards_take_every_place_once(count, shards):
    ranges = [tiles.shard(count, index, shards) for index in range(shards)]
    assert [place for each in ranges for place in each] == list(range(count))
    assert max(map(len, ranges)) - min(map(len, ranges)) <= 1
