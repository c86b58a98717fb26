"""Scale promotion: grids against slow references, crops that stay together, and the way back."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from l4s.errors import RecipeError
from l4s.promote import demote, promote


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(count: int = 2, height: int = 8, width: int = 8, bands: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    source = generator(9)
    image = torch.randn(count, bands, height, width, generator=source)
    target = (torch.rand(count, height, width, generator=source) > 0.5).float()
    return image, target, torch.rand(count, height, width, generator=source)


def slow_bilinear(plane: np.ndarray, height: int, width: int) -> np.ndarray:
    """Centre-aligned bilinear interpolation, pixel by pixel; outside the centres the border value holds."""
    out = np.zeros((height, width))
    for i in range(height):
        for j in range(width):
            y = min(max((i + 0.5) * plane.shape[0] / height - 0.5, 0.0), plane.shape[0] - 1.0)
            x = min(max((j + 0.5) * plane.shape[1] / width - 0.5, 0.0), plane.shape[1] - 1.0)
            top, left = int(y), int(x)
            below, right = min(top + 1, plane.shape[0] - 1), min(left + 1, plane.shape[1] - 1)
            a, b = y - top, x - left
            upper = (1 - b) * plane[top, left] + b * plane[top, right]
            out[i, j] = (1 - a) * upper + a * ((1 - b) * plane[below, left] + b * plane[below, right])
    return out


def test_scale_1_without_crop_returns_the_same_objects() -> None:
    tensors = batch()
    state = generator()
    out = promote(*tensors, scale=1.0, crop=None, generator=state)
    assert all(a is b for a, b in zip(out, tensors, strict=True))
    assert torch.equal(state.get_state(), generator().get_state())


@pytest.mark.parametrize(("scale", "size"), [(4.0, (24, 20)), (2.5, (15, 12)), (1.3, (8, 6)), (2, (12, 10))])
def test_equals_slow_references(scale: float, size: tuple[int, int]) -> None:
    image, target, weight = batch(height=6, width=5)
    big, big_target, big_weight = promote(image, target, weight, scale=scale, crop=None, generator=generator())
    assert big.shape == (2, 3, *size)
    for n in range(2):
        for band in range(3):
            expected = slow_bilinear(image[n, band].double().numpy(), *size)
            assert np.allclose(big[n, band].numpy(), expected, atol=1e-5)
        for plane, promoted in ((target[n], big_target[n]), (weight[n], big_weight[n])):
            # the native pixel that the centre (i + 1/2) / size lies in
            expected = [
                [plane[int((i + 0.5) / size[0] * 6), int((j + 0.5) / size[1] * 5)] for j in range(size[1])]
                for i in range(size[0])
            ]
            assert np.array_equal(promoted.numpy(), np.array(expected, dtype=np.float32))


def test_128_to_320_keeps_values_and_shares() -> None:
    image, target, weight = batch(1, 128, 128, 1)
    big, big_target, big_weight = promote(image, target, weight, scale=2.5, crop=None, generator=generator())
    assert big.shape == (1, 1, 320, 320) and big_target.shape == big_weight.shape == (1, 320, 320)
    assert set(big_target.unique().tolist()) == {0.0, 1.0}
    # two native pixels become exactly five: columns 0 1 and 2 3 4, or 0 1 2 and 3 4
    columns = torch.arange(128.0).expand(1, 128, 128)
    _, wide, _ = promote(image, columns, weight, scale=2.5, crop=None, generator=generator())
    values, counts = torch.unique_consecutive(wide[0, 0], return_counts=True)
    assert torch.equal(values, columns[0, 0])
    assert (counts.reshape(-1, 2).sum(1) == 5).all()


@pytest.mark.parametrize("factor", [2, 4])
def test_demote_inverts_the_nearest_planes_and_is_the_block_mean(factor: int) -> None:
    image, target, weight = batch(height=6, width=8)
    _, big_target, big_weight = promote(image, target, weight, scale=float(factor), crop=None, generator=generator())
    assert torch.equal(demote(big_target, (6, 8)), target)
    assert torch.allclose(demote(big_weight, (6, 8)), weight, atol=1e-7)
    probs = torch.rand(2, 6 * factor, 8 * factor, generator=generator(), dtype=torch.float64)
    small = demote(probs, (6, 8))
    assert small.shape == (2, 6, 8) and small.dtype == torch.float64
    for i in range(6):
        for j in range(8):
            block = probs[:, i * factor : (i + 1) * factor, j * factor : (j + 1) * factor]
            assert torch.allclose(small[:, i, j], block.mean((1, 2)), rtol=0, atol=1e-15)


def test_x4_block_mean_is_exact_in_float32() -> None:
    # multiples of 1/16: sums of sixteen are exact
    probs = torch.randint(0, 17, (2, 32, 32), generator=generator()).float() / 16
    assert torch.equal(demote(probs, (8, 8)), probs.reshape(2, 8, 4, 8, 4).mean((2, 4)))


def test_demote_between_sizes_averages_the_pixels_that_touch() -> None:
    probs = torch.rand(1, 10, 10, generator=generator(), dtype=torch.float64)
    small = demote(probs, (4, 4))  # native pixel 1 spans 2.5 .. 5.0: promoted pixels 2, 3, 4
    assert small[0, 0, 1].item() == pytest.approx(probs[0, 0:3, 2:5].mean().item())
    assert demote(torch.full((1, 10, 10), 0.3), (4, 4)).allclose(torch.tensor(0.3))
    assert demote(probs, (10, 10)) is probs


def coordinates(count: int, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """The same distinct number at each pixel of image, target and weight; never 0."""
    numbers = torch.arange(1.0, 1 + count * size * size).reshape(count, size, size)
    return torch.stack([numbers, -numbers], 1), numbers.clone(), numbers.clone()


def test_crops_stay_together_and_differ_between_samples() -> None:
    image, target, weight = coordinates(6, 12)
    out_image, out_target, out_weight = promote(image, target, weight, scale=1.0, crop=5, generator=generator())
    assert out_image.shape == (6, 2, 5, 5)
    assert torch.equal(out_image[:, 0], out_target) and torch.equal(out_image[:, 1], -out_target)
    assert torch.equal(out_weight, out_target)
    corners = set()
    for n in range(6):
        top, left = divmod(int(out_target[n, 0, 0]) - 1 - n * 144, 12)
        assert torch.equal(out_target[n], target[n, top : top + 5, left : left + 5])
        corners.add((top, left))
    assert len(corners) > 1


def test_every_place_of_the_crop_is_drawn() -> None:
    image, target, weight = coordinates(200, 4)
    _, cropped, _ = promote(image, target, weight, scale=1.0, crop=3, generator=generator())
    first = (cropped[:, 0, 0] - 1) % 16
    assert set(first.tolist()) == {0.0, 1.0, 4.0, 5.0}


def test_scaled_image_and_planes_stay_aligned_under_the_crop() -> None:
    # a ramp is reproduced by bilinear interpolation, so the nearest plane is never further off than half a pixel
    ramp = torch.arange(16.0).expand(3, 16, 16)
    image = torch.stack([ramp, ramp.transpose(1, 2)], 1)
    for seed in range(5):
        out, across, down = promote(image, ramp, ramp.transpose(1, 2), scale=2.5, crop=20, generator=generator(seed))
        assert (out[:, 0] - across).abs().max() <= 0.5 + 1e-5
        assert (out[:, 1] - down).abs().max() <= 0.5 + 1e-5


@pytest.mark.parametrize("scale", [1.0, 1.5])
def test_smaller_than_the_crop_is_padded_with_ignored_pixels(scale: float) -> None:
    image, target, weight = coordinates(2, 6)
    size = round(6 * scale)
    plain = promote(image, target, weight, scale=scale, crop=None, generator=generator())
    padded = promote(image, target, weight, scale=scale, crop=11, generator=generator())
    for before, after in zip(plain, padded, strict=True):
        assert after.shape[-2:] == (11, 11)
        assert torch.equal(after[..., :size, :size], before)
        assert not after[..., size:, :].any() and not after[..., :, size:].any()


def test_one_side_padded_the_other_cropped() -> None:
    image, target, weight = batch(3, height=4, width=12)
    out, _, out_weight = promote(image, target, weight, scale=1.0, crop=8, generator=generator())
    assert out.shape == (3, 3, 8, 8)
    assert (out_weight[:, :4] > 0).all() and not out_weight[:, 4:].any()


def test_draws_come_from_the_generator_alone() -> None:
    image, target, weight = batch(4, 16, 16)

    def run(seed: int) -> tuple[Tensor, ...]:
        torch.manual_seed(seed + 100)
        return promote(image, target, weight, scale=(1.0, 3.0), crop=10, generator=generator(seed))

    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = promote(image, target, weight, scale=(1.0, 3.0), crop=10, generator=generator(1))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first, run(1), strict=True))
    assert not torch.equal(first[0], run(2)[0])


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), low=st.floats(0.5, 2.0), width=st.floats(0.0, 2.0))
def test_drawn_scales_lie_in_the_range(seed: int, low: float, width: float) -> None:
    tensors = batch(1, 16, 16, 1)
    image, target, _ = promote(*tensors, scale=(low, low + width), crop=None, generator=generator(seed))
    assert round(16 * low) <= image.shape[-1] <= round(16 * (low + width))
    assert image.shape[-2:] == target.shape[-2:]


def test_drawn_scales_cover_the_range() -> None:
    tensors = batch(1, 16, 16, 1)
    sizes = [
        promote(*tensors, scale=(1.0, 3.0), crop=None, generator=generator(seed))[0].shape[-1] for seed in range(60)
    ]
    assert min(sizes) < 20 and max(sizes) > 44 and abs(sum(sizes) / 60 - 32) < 4


@pytest.mark.parametrize(
    ("scale", "crop", "message"),
    [
        (0.0, None, "scale = 0.0"),
        (-1.0, None, "scale = -1.0"),
        (float("nan"), None, "scale = nan"),
        ((3.0, 1.0), None, r"scale = \(3.0, 1.0\).*\(smallest, largest\)"),
        (1.0, 0, "crop = 0 must be at least 1"),
    ],
)
def test_impossible_settings_are_refused(scale: float, crop: int | None, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        promote(*batch(), scale=scale, crop=crop, generator=generator())
