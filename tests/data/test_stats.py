"""Statistics against plain numpy over pooled pixels, sub-domains, and what they refuse."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from l4s.data.bands import L4S_BANDS
from l4s.data.stats import constants, descriptors, patch_moments, pool, subdomain_stats
from l4s.errors import DataError, RecipeError
from l4s.recipe import SubDomains


def images(seed=0, count=4, bands=3, size=5, nan=0.0, mean=0.0):
    rng = np.random.default_rng(seed)
    values = rng.normal(mean, 1 + rng.random((count, bands, 1, 1)), (count, bands, size, size)).astype(np.float32)
    values[rng.random(values.shape) < nan] = np.nan
    return values


def moments_of(patches):
    return np.stack([patch_moments(patch) for patch in patches], axis=1)


def pixels(patches, band):
    return np.concatenate([patch[band].ravel() for patch in patches]).astype(np.float64)


@given(st.integers(0, 99), st.integers(1, 6), st.sampled_from([0.0, 0.3]), st.sampled_from([0.0, 1e4, -300.0]))
def test_pooled_moments_are_those_of_all_pixels(seed, count, nan, mean):
    patches = images(seed, count, nan=nan, mean=mean)
    first, std = pool(moments_of(patches))
    for band in range(3):
        values = pixels(patches, band)
        assert first[band] == pytest.approx(np.nanmean(values), rel=1e-9, abs=1e-9)
        assert std[band] == pytest.approx(np.nanstd(values), rel=1e-7)


def test_patches_of_different_sizes_count_by_their_pixels():
    small, large = images(1, 1, size=2)[0], images(2, 1, size=9)[0]
    first, std = pool(moments_of([small, large]))
    values = pixels([small, large], 1)
    assert first[1] == pytest.approx(values.mean()) and std[1] == pytest.approx(values.std())


def test_moments_of_one_patch():
    image = np.array([[[1.0, 3.0], [np.nan, 8.0]], [[np.nan] * 2] * 2, [[7.0] * 2] * 2], np.float32)
    count, mean, variance = patch_moments(image)
    assert count.tolist() == [3, 0, 4]
    assert mean.tolist() == [4.0, 0.0, 7.0]
    np.testing.assert_allclose(variance, [(9 + 1 + 16) / 3, 0, 0])


def test_large_values_with_small_spread_keep_their_precision():
    """Sums of squares would lose it: 1e6 squared swallows a variance of 1 in float32, and of 1e-4 in float64 nearly."""
    image = (1e6 + np.random.default_rng(0).normal(0, 1, (1, 50, 50))).astype(np.float64)
    _, std = pool(patch_moments(image)[:, None])
    assert std[0] == pytest.approx(image.std(), rel=1e-9)


def test_shared_bands_have_the_statistics_of_their_pixels_together():
    patches = images(3, nan=0.2, mean=5.0)
    patches[:, 2] *= 10
    first, std = pool(moments_of(patches), [[0, 2]])
    both = np.concatenate([pixels(patches, 0), pixels(patches, 2)])
    assert first[0] == first[2] == pytest.approx(np.nanmean(both))
    assert std[0] == std[2] == pytest.approx(np.nanstd(both))
    alone = pool(moments_of(patches))
    assert (first[1], std[1]) == (alone[0][1], alone[1][1])


def test_a_constant_band_is_centred_and_not_scaled():
    patches = images()
    patches[:, 1] = 4.25
    first, std = pool(moments_of(patches))
    assert first[1] == 4.25 and std[1] == 1.0


def test_a_band_without_a_valid_pixel_is_named():
    patches = images()
    patches[:, 2] = np.nan
    with pytest.raises(DataError, match="band 2 has no valid pixel in 4 patches"):
        pool(moments_of(patches))


def two_kinds(count=12):
    """Patches of two kinds in turn: dark and bright."""
    return np.stack([images(seed, 1, mean=50.0 * (seed % 2))[0] for seed in range(count)])


def test_without_subdomains_there_is_one():
    moments = moments_of(two_kinds())
    stats = subdomain_stats(moments, [""] * 12, SubDomains())
    first, std = pool(moments)
    assert stats.member.tolist() == [0] * 12
    np.testing.assert_array_equal(stats.mean, first[None])
    np.testing.assert_array_equal(stats.std, std[None])


def test_clusters_find_the_kinds_and_have_their_own_statistics():
    patches = two_kinds()
    stats = subdomain_stats(moments_of(patches), [""] * 12, SubDomains(by="cluster", k=2))
    assert stats.member.tolist() == [0, 1] * 6  # numbered by their first patch
    for kind in (0, 1):
        assert stats.mean[kind, 0] == pytest.approx(pixels(patches[kind::2], 0).mean())
        assert stats.std[kind, 0] == pytest.approx(pixels(patches[kind::2], 0).std(), rel=1e-6)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("k", [2, 3, 5])
def test_clusters_come_again(seed, k):
    moments = moments_of(images(7, 40, mean=3.0))
    config = SubDomains(by="cluster", k=k, seed=seed)
    first, again = (subdomain_stats(moments, [""] * 40, config) for _ in range(2))
    assert first.digest == again.digest
    assert sorted(set(first.member.tolist())) == list(range(k))
    seen = list(dict.fromkeys(first.member.tolist()))
    assert seen == sorted(seen)
    other = subdomain_stats(moments[..., ::-1], [""] * 40, config)  # the order of bands says nothing about patches
    assert other.member.tolist() == first.member.tolist()


def test_every_patch_lies_with_the_nearest_centre():
    moments = moments_of(images(7, 40, mean=3.0))
    member = subdomain_stats(moments, [""] * 40, SubDomains(by="cluster", k=3)).member
    table = descriptors(moments)
    np.testing.assert_allclose(table.mean(0), 0, atol=1e-9)
    np.testing.assert_allclose(table.std(0), 1)
    centres = np.stack([table[member == kind].mean(0) for kind in range(3)])
    distance = ((table[:, None] - centres) ** 2).sum(-1)
    np.testing.assert_array_equal(distance.argmin(1), member)


def test_global_random_numbers_are_left_alone():
    np.random.seed(3)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    subdomain_stats(moments_of(two_kinds()), [""] * 12, SubDomains(by="cluster"))
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


@pytest.mark.parametrize("blend", [0.25, 1.0])
def test_blend_pulls_towards_the_whole_domain(blend):
    moments, regions = moments_of(two_kinds()), ["b", "a"] * 6
    stats = subdomain_stats(moments, regions, SubDomains(by="region", blend=blend))
    whole = pool(moments)
    for row, region in enumerate(("a", "b")):
        own = pool(moments[:, [name == region for name in regions]])
        np.testing.assert_allclose(stats.mean[row], blend * own[0] + (1 - blend) * whole[0])
        np.testing.assert_allclose(stats.std[row], blend * own[1] + (1 - blend) * whole[1])
    assert stats.member.tolist() == [1, 0] * 6


def test_subdomains_that_cannot_be():
    moments = moments_of(images(0, 3))
    with pytest.raises(DataError, match="the domain has no regions"):
        subdomain_stats(moments, [""] * 3, SubDomains(by="region"))
    with pytest.raises(DataError, match="3 patches cannot make k = 4 clusters"):
        subdomain_stats(moments, [""] * 3, SubDomains(by="cluster", k=4))
    same = moments_of(np.repeat(images(0, 1), 5, axis=0))
    with pytest.raises(DataError, match="do not fall into k = 2 clusters"):
        subdomain_stats(same, [""] * 5, SubDomains(by="cluster", k=2))


def test_digests_name_the_numbers():
    moments = moments_of(two_kinds())
    digests = {
        subdomain_stats(part, [""] * part.shape[1], config).digest
        for part in (moments, moments[:, :-1], moments * [[[1]], [[1]], [[2]]])
        for config in (SubDomains(), SubDomains(by="cluster"), SubDomains(by="cluster", blend=0.5))
    }
    assert len(digests) == 9


def test_published_constants_by_band():
    mean, std = constants("official", ("dem", "b1"))
    assert mean.tolist() == [0.7819, -0.4914] and std.tolist() == [1.2913, 0.9325]
    mean, std = constants("imagenet", ("b4", "b2"))
    np.testing.assert_allclose(mean, [0.485 * 255, 0.406 * 255])
    np.testing.assert_allclose(std, [0.229 * 255, 0.225 * 255])
    assert len(constants("official", L4S_BANDS)[0]) == 14
    with pytest.raises(
        RecipeError, match="normalise = 'imagenet' has no constants for band 'dem', only for b4, b3, b2"
    ):
        constants("imagenet", ("b4", "dem"))
