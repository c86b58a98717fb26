"""Structural similarity against scikit-image, and what it must do at its ends."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from skimage.metrics import structural_similarity

from l4s.errors import RunError
from l4s.ssim import blur, ssim_map


def pair(seed, size=(24, 31), roughness=0.1):
    """A smooth image and a noisy version of it, as (1, 2, H, W) float32 in [0, 1]."""
    rng = np.random.default_rng(seed)
    smooth = np.stack([gaussian_filter(rng.random(size), 2) for _ in range(2)])
    smooth = (smooth - smooth.min()) / (smooth.max() - smooth.min())
    noisy = np.clip(smooth + roughness * rng.standard_normal(smooth.shape), 0, 1)
    return (torch.from_numpy(image[None].astype(np.float32)) for image in (smooth, noisy))


def reference(x, y, data_range):
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "full": True}
    return structural_similarity(x.double().numpy(), y.double().numpy(), data_range=data_range, **options)[1]


@given(st.integers(0, 200), st.sampled_from([0.0, 0.01, 0.3]), st.sampled_from([1.0, 255.0, 6.0]))
def test_every_place_is_scikit_image_s(seed, roughness, scale):
    x, y = (image * scale for image in pair(seed, roughness=roughness))
    found = ssim_map(x, y, scale)
    assert found.dtype == torch.float32 and found.shape == x.shape
    for band in range(2):
        wanted = reference(x[0, band], y[0, band], scale)
        np.testing.assert_allclose(found[0, band, 5:-5, 5:-5], wanted[5:-5, 5:-5], atol=1e-5)


def test_the_mean_is_over_all_places_of_an_image():
    x, y = pair(3)
    both = ssim_map(torch.cat([x, y]), torch.cat([y, y])).mean((1, 2, 3))
    assert both.shape == (2,)
    assert float(both[0]) == pytest.approx(float(ssim_map(x, y).mean()), rel=1e-6)
    assert float(both[1]) == pytest.approx(1.0, abs=1e-6)


def test_flat_images_differ_by_their_light_alone():
    one, other = torch.full((1, 1, 16, 16), 0.25), torch.full((1, 1, 16, 16), 0.75)
    wanted = (2 * 0.25 * 0.75 + 1e-4) / (0.25**2 + 0.75**2 + 1e-4)
    torch.testing.assert_close(ssim_map(one, other), torch.full((1, 1, 16, 16), wanted))


def test_gradients_are_finite_even_where_nothing_varies():
    x = torch.zeros(1, 1, 16, 16)
    y = torch.zeros(1, 1, 16, 16, requires_grad=True)
    (1 - ssim_map(x, y)).mean().backward()
    assert y.grad.isfinite().all()


def test_autocast_does_not_reach_it():
    x, y = pair(1)
    exact = ssim_map(x, y)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ssim_map(x, y), exact)
        rounded = ssim_map(x, y.bfloat16())
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, exact, atol=0.05, rtol=0)


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0])
def test_blur_is_a_gaussian_mean_under_reflection(sigma):
    values = torch.randn(2, 3, 12, 15, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = blur(values, sigma)
    reach = max(1, round(2 * sigma))
    for row, band in ((0, 0), (1, 2)):
        wanted = gaussian_filter(values[row, band].numpy(), sigma, mode="mirror", radius=reach)
        np.testing.assert_allclose(found[row, band], wanted, atol=1e-12)
    assert blur(values, 0) is values


def test_images_smaller_than_the_window_are_refused():
    small = torch.zeros(1, 1, 5, 20)
    with pytest.raises(RunError, match="5 x 20 pixels are too small for a window that reaches 5"):
        ssim_map(small, small)
