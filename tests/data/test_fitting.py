"""Patches of varying size brought to one size and back: what must be the same, and what the filters do."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pydantic import ValidationError

from l4s.data.fitting import Fitting, fit_image, fit_mask, fitting, nearest, resize, restore
from l4s.recipe import DomainConfig, Fit

SIDES = st.integers(1, 24)
SHAPES = st.tuples(SIDES, SIDES)
FITS = st.one_of(
    st.integers(16, 24).map(lambda side: Fit(by="resize", side=side)),
    st.integers(1, 12).map(lambda multiple: Fit(by="pad", multiple=multiple)),
)


def noise(shape, seed=0):
    return np.random.default_rng(seed).random(shape).astype(np.float32)


@given(FITS, st.lists(SHAPES, min_size=1, max_size=4))
def test_everything_comes_back_at_its_own_size(config, shapes):
    to = fitting(config, shapes)
    for shape in shapes:
        image, mask = noise((2, *shape)), np.ones(shape, np.uint8)
        assert fit_image(image, to).shape == (2, to.side, to.side)
        assert fit_mask(mask, to).shape == (to.side, to.side)
        back = restore(noise((to.side, to.side)), shape, to)
        assert back.shape == shape and back.dtype == np.float32
        assert 0 <= back.min() and back.max() <= 1 + 1e-6
        assert (restore(fit_mask(mask, to).astype(np.float32), shape, to) == 1).all()


@given(st.integers(1, 12), st.lists(SHAPES, min_size=1, max_size=4))
def test_padding_gives_back_exactly_what_the_model_said(multiple, shapes):
    to = fitting(Fit(by="pad", multiple=multiple), shapes)
    assert to.side % multiple == 0 and to.side - multiple < max(map(max, shapes)) <= to.side
    said = noise((to.side, to.side))
    for height, width in shapes:
        np.testing.assert_array_equal(restore(said, (height, width), to), said[:height, :width])
        padded = fit_image(noise((3, height, width)), to)
        np.testing.assert_array_equal(restore(padded[0], (height, width), to), noise((3, height, width))[0])
        assert np.isnan(padded).sum() == 3 * (to.side**2 - height * width)
        mask = fit_mask(np.zeros((height, width), np.uint8), to)
        assert (mask == 255).sum() == to.side**2 - height * width


@given(st.floats(0, 1, width=16), SHAPES, SHAPES)
def test_a_constant_map_stays_constant(value, shape, other):
    resized = resize(np.full(shape, value, np.float32), other)
    assert resized.shape == other
    np.testing.assert_array_equal(resized.astype(np.float16), np.float16(value))


WIDE = st.tuples(st.integers(2, 24), st.integers(2, 24))


@given(WIDE, WIDE)
def test_resizing_is_bilinear_with_antialiasing(shape, other):
    """An independent implementation of the same filter, which goes wrong where a plane is one pixel wide."""
    plane = noise(shape)
    wanted = F.interpolate(
        torch.from_numpy(plane)[None, None], size=other, mode="bilinear", align_corners=False, antialias=True
    )
    np.testing.assert_allclose(resize(plane, other), wanted[0, 0].numpy(), atol=2e-6)


def test_shrinking_skips_no_pixel():
    plane = np.zeros((16, 16), np.float32)
    plane[::2, ::2] = 1
    assert resize(plane, (4, 4)) == pytest.approx(np.full((4, 4), 0.25), abs=0.04)


@given(arrays.arrays(bool, st.tuples(SIDES, SIDES)), SHAPES)
def test_missing_values_count_for_nothing(missing, other):
    plane = np.where(missing, np.nan, 3.0).astype(np.float32)
    resized = resize(plane, other)
    known = ~np.isnan(resized)
    assert resized[known] == pytest.approx(3.0, rel=1e-3)
    assert known.all() if not missing.any() else True
    if missing.all():
        assert not known.any()


def test_the_nearest_pixel_is_the_one_that_the_centre_falls_into():
    assert nearest(np.arange(3)[None], (1, 6)).tolist() == [[0, 0, 1, 1, 2, 2]]
    assert nearest(np.arange(6)[None], (1, 2)).tolist() == [[1, 4]]
    assert nearest(np.arange(4)[:, None], (3, 1)).ravel().tolist() == [0, 2, 3]


@given(SHAPES, SHAPES)
def test_masks_keep_their_values(shape, other):
    mask = np.random.default_rng(1).choice(np.array([0, 1, 255], np.uint8), size=shape)
    resized = nearest(mask, other)
    assert resized.shape == other and resized.dtype == np.uint8
    assert set(np.unique(resized)) <= set(np.unique(mask))


def test_padding_is_a_square_for_all():
    assert fitting(Fit(by="pad", multiple=32), [(40, 65), (33, 20)]) == Fitting("pad", 96)
    assert fitting(Fit(by="pad", multiple=32), [(64, 64)]) == Fitting("pad", 64)
    assert fitting(Fit(by="resize", side=20), [(40, 65)]) == Fitting("resize", 20)


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ({"by": "resize"}, "fit by 'resize' needs side"),
        ({"by": "pad"}, "fit by 'pad' needs multiple"),
        ({"by": "pad", "multiple": 32, "side": 64}, "fit by 'pad' does not read side"),
        ({"by": "resize", "side": 64, "multiple": 32}, "does not read multiple"),
        ({"by": "resize", "side": 8}, "greater than or equal to 16"),
        ({"by": "crop"}, "'resize' or 'pad'"),
    ],
)
def test_settings_without_effect(table, told):
    with pytest.raises(ValidationError, match=told):
        Fit.model_validate(table)


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ({"cut": 64, "fit": Fit(by="pad", multiple=2)}, "leave cut or fit out"),
        ({"positives_only": True}, 'read with layout = "bijie" only'),
        ({"split_seed": 1, "layout": "hokkaido"}, 'read with layout = "bijie" only'),
    ],
)
def test_what_a_domain_refuses(table, told):
    with pytest.raises(ValidationError, match=told):
        DomainConfig(role="source", **table)
