"""Bands made of other bands: each against numpy by hand, what a recipe may say of them, and that nothing else changes."""

import numpy as np
import pytest
from data_factory import write_h5, write_images
from hypothesis import given
from hypothesis import strategies as st

from l4s.data.bands import Bands, Made, make_bands
from l4s.data.cache import open_cache
from l4s.data.derive import DERIVED, derive
from l4s.data.readers import cut_patches, find_patches, read_image
from l4s.data.terrain import slope_degrees
from l4s.errors import DataError, RecipeError
from l4s.load import load_recipe, parse_recipe, resolved, validate
from l4s.recipe import DomainConfig, fingerprint

PASSES = ("vv_pre_1", "vv_pre_2", "vv_post_1", "dem")
NAN = np.nan


def bands_of(**table):
    return validate(Bands, {"file": list(PASSES), **table}, "recipe")


def made(how, bands, **options):
    found = derive(how, np.array(bands, np.float32), options)
    assert found.dtype == np.float32
    return found


def test_means_leave_out_what_is_missing():
    found = made("mean", [[[1, NAN, NAN]], [[3, 5, NAN]], [[8, NAN, NAN]]])
    np.testing.assert_array_equal(found, np.array([[4, 5, NAN]], np.float32))


def test_the_logarithm_of_a_mean_has_a_floor():
    found = made("log10", [[[0.1, 0.0, -1.0, NAN]], [[0.3, 0.0, NAN, NAN]]])
    np.testing.assert_allclose(found, [[np.log10(0.2), -4, -4, NAN]], rtol=1e-6)
    assert made("log10", [[[0.0]]], floor=0.01) == pytest.approx(-2)


def test_differences_and_ratios():
    pair = [[[3.0, 1.0, 1.0, NAN]], [[2.0, 0.5, 0.0, 1.0]]]
    np.testing.assert_array_equal(made("difference", pair), np.array([[1, 0.5, 1, NAN]], np.float32))
    np.testing.assert_allclose(made("ratio", pair), [[1.5, 2, 1e4, NAN]], rtol=1e-6)
    np.testing.assert_allclose(made("ratio", pair, floor=1.0), [[1.5, 1, 1, NAN]])


def test_heights_above_the_mean():
    np.testing.assert_allclose(made("relative", [[[1000, 1010, NAN], [1020, 1030, 1040]]], scale=10.0)[0, :2], [-2, -1])
    assert np.isnan(made("relative", [[[NAN]]])).all()


def test_slopes():
    dem = np.add.outer(3.0 * np.arange(5), np.zeros(6)).astype(np.float32)
    np.testing.assert_allclose(made("slope", [dem], spacing=3.0), 45.0, rtol=1e-6)
    rough = np.random.default_rng(0).normal(500, 30, (9, 9))
    np.testing.assert_allclose(made("slope", [rough], spacing=10.0), slope_degrees(rough), rtol=1e-4)


@given(st.integers(1, 5), st.integers(0, 2**20))
def test_missing_values_never_become_numbers_unless_a_pass_has_one(count, seed):
    rng = np.random.default_rng(seed)
    bands = rng.normal(1, 1, (count, 3, 4)).astype(np.float32)
    bands[rng.random(bands.shape) < 0.5] = np.nan
    for how in ("mean", "log10"):
        np.testing.assert_array_equal(np.isnan(made(how, bands)), np.isnan(bands).all(0))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        ({"how": "log", "of": ["dem"]}, r"make\.a: how = 'log' does not exist, did you mean 'log10'"),
        (
            {"how": "log10", "of": ["dem"], "flor": 1},
            r"make\.a: how = 'log10' has no option 'flor', did you mean 'floor'",
        ),
        ({"how": "log10", "of": ["dem"], "floor": 0}, "floor = 0 must be a positive number"),
        ({"how": "log10", "of": ["dem"], "floor": True}, "floor = True must be a positive number"),
        ({"how": "log10", "of": ["dem"], "floor": "1e-4"}, "floor = '1e-4' must be a positive number"),
        ({"how": "mean", "of": ["dem"], "floor": 1}, r"has no option 'floor' \(there are: none\)"),
        ({"how": "slope", "of": ["dem"]}, "needs 'spacing'"),
        ({"how": "mean", "of": []}, "takes one or more band"),
        ({"how": "difference", "of": ["dem"]}, "takes 2 band.*names 1"),
        ({"how": "relative", "of": ["dem", "vv_pre_1"]}, "takes 1 band.*names 2"),
        ({"how": "mean"}, r"make\.a\.of: Field required"),
        ({"how": "mean", "of": ["vv_pre"]}, r"bands\.make\.a is made of 'vv_pre', which is no band of the file"),
        ({"how": "mean", "of": ["a"]}, r"bands\.make\.a is made of 'a'"),
    ],
)
def test_what_cannot_be_made_is_refused_when_the_recipe_is_loaded(make, says):
    with pytest.raises(RecipeError, match=says):
        bands_of(make={"a": make})


def test_names_and_uses_are_checked():
    mean = {"how": "mean", "of": ["vv_pre_1", "vv_pre_2"]}
    with pytest.raises(RecipeError, match="make.dem has the name of a band of the file"):
        bands_of(make={"dem": mean})
    with pytest.raises(RecipeError, match="make.b is used by nothing"):
        bands_of(make={"a": mean, "b": mean}, use=["a"])
    with pytest.raises(RecipeError, match="a is made of 'b', which is no band of the file and none made before it"):
        bands_of(make={"a": {"how": "relative", "of": ["b"]}, "b": mean})
    with pytest.raises(RecipeError, match="bands.use names 'c', which is not one of .*dem, a"):
        bands_of(make={"a": mean}, use=["a", "c"])
    with pytest.raises(RecipeError, match="bands.groups.pre names 'c'"):
        bands_of(make={"a": mean}, groups={"pre": ["c"]})


def test_without_use_all_bands_are_seen_in_order():
    bands = bands_of(make={"z": {"how": "mean", "of": ["dem"]}, "a": {"how": "relative", "of": ["z"]}})
    assert bands.names == (*PASSES, "z", "a") and bands.stored == PASSES and bands.index == (0, 1, 2, 3)


def test_only_bands_that_are_needed_are_read():
    make = {"pre": {"how": "mean", "of": ["vv_pre_2"]}, "change": {"how": "difference", "of": ["vv_post_1", "pre"]}}
    bands = bands_of(make=make, use=["change", "dem"], terrain=["change"])
    assert bands.names == ("change", "dem") and bands.spectral == (False, True)
    assert bands.stored == ("dem", "vv_pre_2", "vv_post_1") and bands.index == (3, 1, 2)
    image = np.arange(12, dtype=np.float32).reshape(3, 2, 2)
    found = make_bands(image, bands)
    np.testing.assert_array_equal(found, [image[2] - image[1], image[0]])


def test_a_resolved_recipe_reads_back_equal_even_with_sorted_keys():
    make = {"z": {"how": "log10", "of": ["dem"], "floor": 0.5}, "a": {"how": "mean", "of": ["dem"]}}
    bands = bands_of(make=make)
    assert Bands.model_validate_json(bands.model_dump_json()) == bands
    table = bands.model_dump(mode="json")
    assert validate(Bands, dict(sorted(table.items())) | {"make": dict(sorted(table["make"].items()))}, "r") == bands
    assert Bands(file=PASSES, make={"a": Made(how="mean", of=("dem",))}).names == (*PASSES, "a")


def test_recipes_without_made_bands_keep_their_fingerprints():
    """Those of the caches and runs that were made before bands could be made."""
    for name, known in (("demo", "4207de2b3ad35062"), ("l4s-rgb", "c402e2323d9a5705")):
        bands = load_recipe(name).bands
        assert fingerprint(bands.model_dump(mode="json")) == known
        assert "make" not in bands.model_dump() and "make" not in bands.model_dump_json()


def test_made_bands_are_bands_of_a_recipe():
    table = resolved(load_recipe("demo"))
    make = {"ndvi": {"how": "ratio", "of": ["b8", "b4"]}, "steep": {"how": "slope", "of": ["dem"], "spacing": 10}}
    table["bands"] = {"make": make, "terrain": ["slope", "dem", "steep"], "groups": {"rgb": ["b4", "ndvi"]}}
    name = next(iter(table["domain"]))
    table["domain"][name]["share_stats"] = [["b8", "ndvi"]]
    recipe = parse_recipe(table, "here")
    assert recipe.bands.names[-2:] == ("ndvi", "steep") and recipe.bands.spectral[-2:] == (True, False)
    assert parse_recipe(resolved(recipe), "again") == recipe
    table["domain"][name]["share_stats"] = [["b8", "ndwi"]]
    with pytest.raises(RecipeError, match="share_stats names 'ndwi'"):
        parse_recipe(table, "here")
    assert DomainConfig(role="source").share_stats == ()


@pytest.fixture
def patches(tmp_path):
    rng = np.random.default_rng(0)
    images = [rng.gamma(4, 0.1, (8, 8, 4)).astype(np.float32) for _ in range(3)]
    images[1][:2, :2, 1] = np.nan
    images[2][5, 5, :2] = np.nan
    return find_patches(write_images(tmp_path / "data", images), "."), np.stack(images).transpose(0, 3, 1, 2)


LOGS = {
    "pre": {"how": "log10", "of": ["vv_pre_1", "vv_pre_2"]},
    "post": {"how": "log10", "of": ["vv_post_1"]},
    "change": {"how": "difference", "of": ["post", "pre"]},
}


def test_a_patch_is_read_with_its_made_bands(patches):
    refs, images = patches
    bands = bands_of(make=LOGS, use=["change", "dem"])
    for ref, image in zip(refs, images, strict=True):
        pre, post = image[:2].mean(0), image[2]
        pre = np.where(np.isnan(pre), np.where(np.isnan(image[0]), image[1], image[0]), pre)  # of one pass where one is
        expected = np.log10(np.maximum(post, 1e-4)) - np.log10(np.maximum(pre, 1e-4))
        found = read_image(ref, bands)
        assert found.shape == (2, 8, 8) and found.dtype == np.float32
        np.testing.assert_allclose(found[0], expected, rtol=1e-4, atol=1e-6)
        np.testing.assert_array_equal(found[1], image[3])


def test_squares_are_cut_after_bands_are_made(patches):
    refs, _ = patches
    bands = bands_of(make={"above": {"how": "relative", "of": ["dem"]}}, use=["above"])
    squares = cut_patches(refs[:1], 4, (8, 8))
    whole = read_image(refs[0], bands)
    np.testing.assert_array_equal(read_image(squares[3], bands), whole[:, 4:, 4:])


def test_infinite_values_are_refused_before_and_after(tmp_path):
    values = np.ones((2, 2, 4), np.float32)
    values[0, 0, 0] = 3e38
    path = write_h5(tmp_path / "image_1.h5", "img", values)
    [ref] = find_patches(tmp_path, ".")
    make = {"r": {"how": "ratio", "of": ["vv_pre_1", "vv_pre_2"], "floor": 1e-4}}
    assert np.isfinite(read_image(ref, bands_of(make=make, use=["r"]))).all()
    values[0, 0, 1] = 0.0
    write_h5(path, "img", values)
    with pytest.raises(DataError, match=r"image_1\.h5 is infinite in float32 in r"):
        read_image(ref, bands_of(make=make, use=["r"]))
    values[0, 0, 1] = np.inf  # of which a ratio would make 0
    write_h5(path, "img", values)
    with pytest.raises(DataError, match=r"image_1\.h5 is infinite in float32 in vv_pre_2"):
        read_image(ref, bands_of(make=make, use=["r"]))


def test_the_cache_holds_made_bands_and_its_name_changes_with_them(patches, tmp_path):
    refs, _ = patches
    folder = tmp_path / "cache"
    logs = {name: LOGS[name] for name in ("pre", "post")}
    bands = bands_of(make=logs, use=["pre", "post"])
    cache = open_cache(refs, bands, folder, shared=[[0, 1]])
    raw = np.stack([read_image(ref, bands) for ref in refs])
    expected = (raw - cache.mean[:, None, None]) / cache.std[:, None, None]
    np.testing.assert_array_equal(cache.images, expected.astype(np.float16))
    assert cache.mean[0] == cache.mean[1] and cache.std[0] == cache.std[1]
    assert cache.mean[0] == pytest.approx(np.nanmean(raw), rel=1e-6)
    floor = {**logs, "pre": {**logs["pre"], "floor": 0.1}}
    open_cache(refs, bands_of(make=floor, use=["pre", "post"]), folder, shared=[[0, 1]])
    open_cache(refs, bands_of(use=["dem"]), folder)
    assert len(list(folder.iterdir())) == 3


def test_each_function_is_documented_and_takes_numbers():
    for name, function in DERIVED.items():
        assert function.__doc__ and function.__name__ == name
