"""Domains: what is held out, what is predicted, and the affine map to every normalisation."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from data_factory import RGB, write_data, write_h5, write_images, write_split
from hypothesis import given
from hypothesis import strategies as st
from picture_factory import RGB as COLOURS
from picture_factory import save, write_bijie

from l4s.data.bands import Bands
from l4s.data.domain import affine, open_domain, split, standardised
from l4s.data.patch import PatchRef
from l4s.data.readers import find_patches, read_image
from l4s.data.stats import constants
from l4s.errors import DataError, RecipeError
from l4s.load import parse_recipe, resolved
from l4s.recipe import DomainConfig, HoldOut


def refs(numbers, places=None):
    places = places or [""] * len(numbers)
    return [PatchRef(str(n), n, Path(f"image_{n}.h5"), None, place) for n, place in zip(numbers, places, strict=True)]


def cut(numbers, places=None, **holdout):
    """Ids to train on, ids held out."""
    train, heldout = split("home", refs(numbers, places), HoldOut(**holdout))
    assert train.dtype == heldout.dtype == np.int64
    return [numbers[row] for row in train], [numbers[row] for row in heldout]


def test_nothing_is_held_out_by_default():
    assert cut([1, 2, 5]) == ([1, 2, 5], [])


def test_ids_with_a_gap():
    numbers = [1, 2, 3, 5, 6, 7, 8, 9, 12, 20, 21, 22]
    assert cut(numbers, by="ids", ranges=((6, 8), (21, 99)))[1] == [6, 7, 8, 21, 22]
    train, heldout = cut(numbers, by="ids", ranges=((6, 8), (21, 99)), gap=3)
    assert heldout == [6, 7, 8, 21, 22]
    assert train == [1, 2, 12]  # 3 and 5 lie within 3 of 6, 9 of 8, 20 of 21; 12 is 4 away


def test_a_block_is_the_last_share_of_each_region():
    numbers = [*range(1, 11), *range(50, 54)]
    regions = ["a"] * 10 + ["b"] * 4
    train, heldout = cut(numbers, regions, by="block", share=0.25)
    assert heldout == [9, 10, 53]  # round(2.5) = 2 of ten, 1 of four
    assert train == [1, 2, 3, 4, 5, 6, 7, 8, 50, 51, 52]
    train, heldout = cut(numbers, regions, by="block", share=0.25, gap=2)
    assert heldout == [9, 10, 53] and train == [1, 2, 3, 4, 5, 6, 50]


def test_a_gap_ends_where_its_region_does():
    numbers, regions = [1, 2, 3, 4, 5, 6], ["a", "a", "a", "b", "b", "b"]
    assert cut(numbers, regions, by="ids", ranges=((3, 3),), gap=2) == ([4, 5, 6], [3])
    assert cut(numbers, regions, by="ids", ranges=((3, 4),), gap=1) == ([1, 6], [3, 4])


def test_a_block_of_bijie_holds_patches_of_both_classes(tmp_path):
    patches = find_patches(write_bijie(tmp_path, 10, 5), ".", layout="bijie")
    train, heldout = split("home", patches, HoldOut(by="block", share=0.2))
    assert [patches[row].id for row in heldout] == ["landslide-p9", "landslide-p10", "non-landslide-p5"]
    assert len(train) == 12


def test_a_block_of_a_domain_without_regions_counts_patches_and_not_ids():
    assert cut([1, 2, 30, 400, 5000], by="block", share=0.4) == ([1, 2, 30], [400, 5000])


def test_whole_regions():
    assert cut([1, 2, 3, 4], ["a", "b", "a", "c"], by="region", regions=("a", "c")) == ([2], [1, 3, 4])


def test_random_patches_are_seeded():
    numbers = list(range(40))
    train, heldout = cut(numbers, by="random", share=0.25)
    assert len(heldout) == 10 and sorted(train + heldout) == numbers
    assert cut(numbers, by="random", share=0.25) == (train, heldout)
    assert cut(numbers, by="random", share=0.25, seed=1)[1] != heldout


@given(
    st.lists(st.integers(0, 60), min_size=1, max_size=25, unique=True).map(sorted),
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20)), min_size=1, max_size=3),
    st.integers(0, 5),
)
def test_train_heldout_and_gap_by_the_letter(numbers, starts, gap):
    ranges = tuple((first, first + length) for first, length in starts)
    held = [n for n in numbers if any(a <= n <= b for a, b in ranges)]
    far = [n for n in numbers if all(min(abs(n - i) for i in range(a, b + 1)) > gap for a, b in ranges)]
    if held:
        assert cut(numbers, by="ids", ranges=ranges, gap=gap) == (far, held)


@pytest.mark.parametrize(
    "holdout",
    [
        {"by": "ids", "ranges": ((50, 60),)},
        {"by": "block", "share": 0.05},
        {"by": "random", "share": 0.05},
        {"by": "region", "regions": ("x",)},
    ],
)
def test_a_hold_out_of_nothing_is_refused(holdout):
    with pytest.raises(DataError, match=f"holdout by '{holdout['by']}' holds out none of 4 patches"):
        cut([1, 2, 3, 4], **holdout)


# --- opening


@pytest.fixture
def data(tmp_path):
    return write_data(tmp_path / "data")


def opened(data, name="home", config=None, bands=RGB, **settings):
    settings = {"role": "source", "split": "train"} | settings
    return open_domain(name, config or DomainConfig(**settings), bands, data, data.parent / "cache")


def test_a_source_and_a_target(data):
    home = opened(data, holdout=HoldOut(by="ids", ranges=((7, 8),), gap=1))
    assert (len(home), home.size, home.name) == (8, (16, 16), "home")
    assert home.ids(home.train) == ("1", "2", "3", "4", "5") and home.ids(home.heldout) == ("7", "8")
    assert home.predicted.tolist() == home.heldout.tolist()
    away = opened(data, "away", role="target", split="validation")
    assert away.train.tolist() == away.predicted.tolist() == [0, 1, 2, 3, 4] and away.heldout.tolist() == []


def test_ids_are_in_natural_order(tmp_path):
    data = write_split(tmp_path / "data", "train", [10, 9, 100])
    assert opened(data).ids(np.arange(3)) == ("9", "10", "100")


def test_a_source_patch_without_a_mask_is_named(data):
    (data / "TrainData" / "mask" / "mask_5.h5").unlink()
    with pytest.raises(DataError, match=r"domain home: source patch .*image_5.h5 has no mask"):
        opened(data)
    assert not (data.parent / "cache").exists()  # said before hours of caching


def test_a_hold_out_that_leaves_nothing(data):
    with pytest.raises(DataError, match="domain home: the hold-out leaves none of 8 patches to train on"):
        opened(data, holdout=HoldOut(by="ids", ranges=((4, 5),), gap=9))
    with pytest.raises(DataError, match="ids 1 to 8: change domain.home.holdout"):
        opened(data, holdout=HoldOut(by="ids", ranges=((40, 50),)))
    assert not (data.parent / "cache").exists()


# --- normalisation


def raw(domain):
    return np.stack([read_image(patch, domain.bands) for patch in domain.patches]).astype(np.float64)


def seen(domain, mode, sources, blend=0.5):
    """Cached values as a member sees them."""
    scale, shift = affine(domain, mode, sources, blend)
    assert scale.dtype == shift.dtype == np.float32
    assert scale.shape == shift.shape == (len(domain), len(domain.bands.names))
    return standardised(domain, np.arange(len(domain)), scale, shift).astype(np.float64)


def normal(values, mean, std):
    """The plain formula; `mean` and `std` per band, or per patch and band."""
    mean, std = (np.broadcast_to(array, values.shape[:2])[..., None, None] for array in (mean, std))
    return (values - mean) / std


def close(ours, theirs):
    np.testing.assert_allclose(ours, theirs, atol=2e-3 * max(1, np.abs(theirs).max()))  # float16 has 11 bits


@pytest.fixture
def pair(data):
    return opened(data), opened(data, "away", role="target", split="validation")


def test_separated_statistics_are_each_domain_s_own(pair):
    for domain in pair:
        values = raw(domain)
        close(seen(domain, "separated", pair[:1]), normal(values, values.mean((0, 2, 3)), values.std((0, 2, 3))))


def test_source_statistics_are_those_of_all_sources_pooled(pair, data):
    home, away = pair
    other = opened(data, "other", role="source", split="train", positive=(1,))
    values = raw(home)
    close(seen(away, "source", [home]), normal(raw(away), values.mean((0, 2, 3)), values.std((0, 2, 3))))
    close(seen(home, "source", [home]), seen(home, "separated", [home]))
    both = np.concatenate([values, raw(away)])  # the target's patches stand in for a second source
    expected = normal(raw(away), both.mean((0, 2, 3)), both.std((0, 2, 3)))
    second = opened(write_labels(data), "second", split="validation")
    close(seen(away, "source", [home, second]), expected)
    own = normal(values, both.mean((0, 2, 3)), both.std((0, 2, 3)))
    close(seen(home, "source", [home, second]), own)  # what is trained on too: one normalisation for all
    assert other.cache.digest == home.cache.digest


def write_labels(data):
    for number in range(1, 6):
        write_h5(data / "ValidData" / "mask" / f"mask_{number}.h5", "mask", np.zeros((16, 16), np.uint8))
    return data


def test_source_statistics_keep_the_bands_together_that_the_source_shares(data):
    home = opened(data, share_stats=(("b4", "b2"),))
    away = opened(data, "away", role="target", split="validation")
    values = raw(home)
    mean, std = values.mean((0, 2, 3)), values.std((0, 2, 3))
    mean[[0, 2]], std[[0, 2]] = values[:, [0, 2]].mean(), values[:, [0, 2]].std()
    close(seen(home, "separated", [home]), normal(values, mean, std))
    close(seen(away, "source", [home]), normal(raw(away), mean, std))


@pytest.mark.parametrize("mode", ["official", "imagenet"])
def test_published_constants(pair, mode):
    for domain in pair:
        close(seen(domain, mode, pair[:1]), normal(raw(domain), *constants(mode, RGB.names)))


def test_published_constants_need_known_bands(tmp_path):
    bands = Bands(file=("vv", "b3", "b2"), rgb=("b3", "b3", "b2"))
    domain = opened(write_data(tmp_path / "data"), bands=bands)
    with pytest.raises(RecipeError, match="no constants for band 'vv'"):
        affine(domain, "official", [domain])


@pytest.mark.parametrize("blend", [0.25, 1.0])
def test_patch_statistics_are_blended_with_the_domain_s(pair, blend):
    away = pair[1]
    values = raw(away)
    mean = blend * values.mean((2, 3)) + (1 - blend) * values.mean((0, 2, 3))
    std = blend * values.std((2, 3)) + (1 - blend) * values.std((0, 2, 3))
    close(seen(away, "patch", pair[:1], blend), normal(values, mean, std))


def test_patches_that_are_constant_or_empty_in_a_band_stay_finite(tmp_path):
    images = [np.random.default_rng(seed).normal(5, 2, (4, 4, 3)) for seed in range(3)]
    images[0][..., 1] = 7.0
    images[1][..., 2] = np.nan
    data = write_images(tmp_path / "data", images)
    domain = opened(data, role="target", split=".")
    values = seen(domain, "patch", [], blend=1.0)
    assert np.isfinite(values).all()
    close(values[0, 1], np.zeros((4, 4)))  # centred, not scaled
    close(values[1, 2], np.zeros((4, 4)))  # the mean of the domain, as under its own statistics


@pytest.mark.parametrize("mode", ["separated", "source", "official", "patch"])
def test_what_is_missing_stands_at_the_mean_whatever_the_statistics(data, mode):
    path = data / "ValidData" / "img" / "image_2.h5"
    with h5py.File(path) as file:
        image = file["img"][:].astype(np.float64)
    image[3:5] = np.nan
    write_h5(path, "img", image)
    by = {"subdomains": {"by": "cluster"}} if mode == "separated" else {}
    away = opened(data, "away", DomainConfig(role="target", split="validation", **by))
    rows = np.arange(len(away))
    values = standardised(away, rows, *affine(away, mode, [opened(data)], 1.0))
    missing = np.isnan(away.cache.images)
    assert missing.sum() == 2 * 16 * 3 and missing[1, :, 3:5].all()
    assert (values[missing] == 0).all() and (values[~missing] != 0).mean() > 0.99


@pytest.mark.parametrize("blend", [0.25, 1.0])
def test_a_patch_s_own_statistics_keep_the_bands_together_that_the_domain_shares(data, blend):
    away = opened(data, "away", role="target", split="validation", share_stats=(("b4", "b2"),))
    values = raw(away)
    mean, std = values.mean((2, 3)), values.std((2, 3))
    mean[:, [0, 2]] = values[:, [0, 2]].mean((1, 2, 3))[:, None]
    std[:, [0, 2]] = values[:, [0, 2]].std((1, 2, 3))[:, None]
    mean, std = blend * mean + (1 - blend) * away.stats.mean, blend * std + (1 - blend) * away.stats.std
    close(seen(away, "patch", [], blend), normal(values, mean, std))


@pytest.mark.parametrize("by", ["cluster", "region"])
def test_subdomains_are_normalised_apart(data, by):
    regions = {"west": (1, 3), "east": (4, 5)}
    settings = {"subdomains": {"by": by}, "regions": regions if by == "region" else {}}
    away = opened(data, "away", DomainConfig(role="target", split="validation", **settings))
    assert len(set(away.stats.member.tolist())) == 2
    values, ours = raw(away), seen(away, "separated", [])
    for part in (0, 1):
        rows = away.stats.member == part
        close(ours[rows], normal(values[rows], values[rows].mean((0, 2, 3)), values[rows].std((0, 2, 3))))


# --- squares


def test_patches_are_cut_into_squares(data):
    whole = opened(data)
    cut = opened(data, cut=8, holdout=HoldOut(by="ids", ranges=((7, 8),), gap=1))
    assert cut.size == (8, 8) and len(cut) == 4 * len(whole)
    assert cut.ids(np.arange(4)) == ("1-0-0", "1-0-1", "1-1-0", "1-1-1")
    assert cut.ids(cut.heldout) == tuple(f"{n}-{r}-{c}" for n in (7, 8) for r in (0, 1) for c in (0, 1))
    assert {cut.patches[row].number for row in cut.train} == {1, 2, 3, 4, 5}  # 6 lies in the gap with all its squares
    np.testing.assert_allclose(cut.stats.mean, whole.stats.mean)  # the same pixels
    np.testing.assert_allclose(cut.cache.std, whole.cache.std)
    for row, patch in enumerate(cut.patches):
        parent = row // 4
        top, left = (8 * int(place) for place in patch.id.split("-")[1:])
        there = np.s_[..., top : top + 8, left : left + 8]
        np.testing.assert_allclose(cut.cache.images[row], whole.cache.images[parent][there], atol=2e-3)
        np.testing.assert_array_equal(cut.cache.masks[row], whole.cache.masks[parent][there])
        np.testing.assert_array_equal(read_image(patch, RGB), read_image(whole.patches[parent], RGB)[there])


def test_squares_keep_the_region_of_their_patch(data):
    cut = opened(data, cut=8, regions={"a": (1, 4), "b": (5, 8)})
    assert [patch.region for patch in cut.patches] == ["a"] * 16 + ["b"] * 16


def test_squares_of_one_patch_are_held_out_together(data):
    cut = opened(data, cut=8, holdout=HoldOut(by="random", share=0.3))
    held, rest = ({cut.patches[row].number for row in rows} for rows in (cut.heldout, cut.train))
    assert held and not held & rest and len(cut.heldout) + len(cut.train) == len(cut)


def test_squares_that_do_not_fill_a_patch_are_refused(data):
    with pytest.raises(DataError, match=r"image_1.h5 is 16 x 16 pixels, which squares of cut = 6 do not fill"):
        opened(data, cut=6)


def test_a_patch_of_another_size_is_named_and_not_cut(data):
    write_h5(data / "TrainData" / "img" / "image_3.h5", "img", np.ones((32, 16, 3)))
    with pytest.raises(DataError, match=r"image_3.h5 has shape \(3, 32, 16\)"):
        opened(data, cut=8)


def test_a_source_without_masks_only_where_it_says_so(data):
    (data / "TrainData" / "mask" / "mask_3.h5").unlink()
    with pytest.raises(DataError, match="source patch .*image_3.h5 has no mask"):
        opened(data)
    assert opened(data, labelled=False).cache.labelled.tolist() == [True, True, False, True, True, True, True, True]


def test_files_with_bands_of_another_order(tmp_path):
    """Hokkaido's pictures are blue, green, red: the same values at other places are the same domain."""
    image = np.random.default_rng(0).random((8, 8, 3))
    mask = np.zeros((8, 8), np.uint8)
    write_images(tmp_path / "a", [image], [mask])
    write_images(tmp_path / "b", [image[..., ::-1]], [mask])
    turned = DomainConfig(role="source", split=".", bands=("b2", "b3", "b4"))
    straight = open_domain("x", DomainConfig(role="source", split="."), RGB, tmp_path / "a", tmp_path / "cache")
    other = open_domain("x", turned, RGB, tmp_path / "b", tmp_path / "cache")
    np.testing.assert_array_equal(straight.cache.images, other.cache.images)
    assert other.bands.names == RGB.names
    with pytest.raises(RecipeError, match="domain.x.bands: bands.use names 'b2', which is not one of"):
        lacking = turned.model_copy(update={"bands": ("b4", "b3", "nir")})
        open_domain("x", lacking, RGB, tmp_path / "b", tmp_path / "cache")


# --- values of masks: what nobody says, and what somebody says that is the default

HOME = {"role": "source", "split": "train"}
SAID = [{"positive": [1], "ignore": [255]}, {"positive": [1]}, {"ignore": [255]}, {"positive": [255], "ignore": []}]


def recipe(**domain):
    return parse_recipe({"name": "r", "domain": {"d": domain}, "member": {"a": {"model": {"name": "baseline"}}}}, "r")


def test_silence_about_masks_stays_silence():
    silent = recipe(**HOME).domain["d"]
    assert silent.positive is None and silent.ignore is None
    assert recipe(**resolved(recipe(**HOME))["domain"]["d"]).domain["d"] == silent


@pytest.mark.parametrize("said", SAID)
def test_what_is_said_of_masks_is_never_silence(said):
    first = recipe(**HOME, **said).domain["d"]
    assert first.positive is not None or first.ignore is not None
    again = recipe(**resolved(recipe(**HOME, **said))["domain"]["d"]).domain["d"]
    assert again == first


def test_a_guess_is_not_opened_where_values_are_named(tmp_path):
    rng = np.random.default_rng(0)
    mask = np.resize(np.array([0, 255], np.uint8), (16, 16))
    for number in (1, 2):
        save(tmp_path / "data/train/image" / f"{number}.png", rng.integers(0, 99, (16, 16, 3)).astype(np.uint8))
        save(tmp_path / "data/train/mask" / f"{number}.png", mask)
    guessed = opened(tmp_path / "data", bands=COLOURS)
    np.testing.assert_array_equal(guessed.cache.masks[0], mask == 255)
    for said in ({"ignore": (255,)}, {"positive": (1,), "ignore": (255,)}):
        named = opened(tmp_path / "data", bands=COLOURS, **said)
        np.testing.assert_array_equal(named.cache.masks[0], mask)
    assert opened(tmp_path / "data", bands=COLOURS).cache.digest == guessed.cache.digest
