"""Domains of pictures: what the cache holds, what statistics are of, and that caches of one size are as they were."""

import json

import numpy as np
import pytest
from data_factory import RGB as H5
from data_factory import write_images
from picture_factory import RGB, RGBD, SIZES, write_bijie, write_both

from l4s.data import cache as cache_module
from l4s.data.bands import Bands
from l4s.data.cache import FORMAT, open_cache
from l4s.data.domain import affine, open_domain, standardised
from l4s.data.readers import find_patches, read_image, read_mask
from l4s.data.survey import survey_domain
from l4s.errors import DataError
from l4s.recipe import DomainConfig, Fit, fingerprint
from l4s.session import describe
from l4s.truth import truth_of

RESIZE, PAD = Fit(by="resize", side=16), Fit(by="pad", multiple=8)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_both(tmp_path_factory.mktemp("pictures"))


def opened(data, tmp_path, bands=RGBD, **config):
    about = {"role": "source", "layout": "bijie", "split": ".", "fit": RESIZE} | config
    place = data / "Bijie-landslide-dataset" if about["layout"] == "bijie" else data / "HokkaidoLandslide_dataset"
    return open_domain("d", DomainConfig(**about), bands, place, tmp_path / "cache")


def test_sizes_that_differ_name_both_ways_out(data, tmp_path):
    with pytest.raises(DataError, match=r'one domain, one size.*by = "resize", side = 256 } or fit = { by = "pad"'):
        opened(data, tmp_path, fit=None)


@pytest.mark.parametrize("fit", [RESIZE, PAD])
def test_what_the_cache_holds(data, tmp_path, fit):
    domain = opened(data, tmp_path, fit=fit)
    assert domain.cache.images.shape == (12, 4, 16, 16) and domain.cache.images.dtype == np.float16
    assert domain.cache.masks.shape == (12, 16, 16)
    assert domain.size == (16, 16) and domain.fitting.by == fit.by
    assert domain.cache.labelled.all()
    assert domain.shapes.tolist()[:4] == [list(SIZES[k]) for k in (1, 2, 3, 4)]
    for row, patch in enumerate(domain.patches):
        mask = domain.cache.mask(row)
        np.testing.assert_array_equal(mask, read_mask(patch))
        assert mask.shape == tuple(domain.shapes[row])


def test_padding_counts_nowhere(data, tmp_path):
    domain = opened(data, tmp_path, fit=PAD)
    pixels = [read_image(patch, RGBD).reshape(4, -1) for patch in domain.patches]
    assert domain.cache.moments[0].tolist() == [[each.shape[1]] * 4 for each in pixels]
    every = np.concatenate(pixels, axis=1)
    np.testing.assert_allclose(domain.cache.mean, every.mean(1), rtol=1e-5)
    np.testing.assert_allclose(domain.cache.std, every.std(1), rtol=1e-4)
    for row, (height, width) in enumerate(domain.shapes.tolist()):
        image, mask = domain.cache.images[row], domain.cache.masks[row]
        assert np.isnan(image[:, height:]).all() and np.isnan(image[:, :, width:]).all()
        assert np.isfinite(image[:, :height, :width]).all()
        assert (mask[height:] == 255).all() and (mask[:, width:] == 255).all()
        np.testing.assert_array_equal(mask[:height, :width], domain.cache.mask(row))
    assert survey_domain(domain).nan == pytest.approx(0)


def test_statistics_are_of_the_fitted_images(data, tmp_path):
    domain = opened(data, tmp_path)
    assert (domain.cache.moments[0] == 256).all()
    values = np.asarray(domain.cache.images, np.float64)
    assert values.mean((0, 2, 3)) == pytest.approx(0, abs=1e-3) and values.std((0, 2, 3)) == pytest.approx(1, abs=1e-3)


def test_truth_is_at_the_size_of_the_files(data, tmp_path):
    domain = opened(data, tmp_path, role="eval", fit=PAD)
    truth = truth_of(domain)
    assert [truth.mask(row).shape for row in range(12)] == [tuple(shape) for shape in domain.shapes.tolist()]


def test_positives_only(data, tmp_path):
    domain = opened(data, tmp_path, positives_only=True)
    assert len(domain) == 8 and not any(patch.background for patch in domain.patches)
    assert len(opened(data, tmp_path, split="train", positives_only=True)) == 6


def test_the_seed_of_the_split(data, tmp_path):
    ids = [opened(data, tmp_path, split="train", split_seed=seed).ids(np.arange(9)) for seed in (0, 0, 1)]
    assert ids[0] == ids[1] != ids[2]


def test_pictures_alone(data, tmp_path):
    """Without DEMs: a model of all bands is an error, one of red, green and blue runs."""
    write_bijie(tmp_path / "Bijie-landslide-dataset", dem=False)
    with pytest.raises(DataError, match="the band group 'dem' of .*p1.png is missing"):
        opened(tmp_path, tmp_path)
    alone = RGBD.model_copy(update={"use": ("r", "g", "b")})
    assert opened(tmp_path, tmp_path, bands=alone).cache.images.shape[1] == 3
    assert opened(tmp_path, tmp_path, bands=RGB).cache.images.shape[1] == 3


def test_a_dem_that_is_not_read_does_not_make_the_cache_stale(tmp_path):
    root = tmp_path / "Bijie-landslide-dataset"
    write_bijie(root, 3, 1)
    count = lambda: len(list((tmp_path / "cache").iterdir()))  # noqa: E731
    opened(tmp_path, tmp_path, bands=RGB)
    opened(tmp_path, tmp_path, bands=RGBD)
    assert count() == 2
    dem = root / "landslide" / "dem" / "p1.png"
    dem.write_bytes(dem.read_bytes() + b"\0")
    opened(tmp_path, tmp_path, bands=RGB)
    assert count() == 2
    opened(tmp_path, tmp_path, bands=RGBD)
    assert count() == 3


def test_a_finished_cache_is_opened_without_reading(data, tmp_path, monkeypatch):
    first = opened(data, tmp_path)
    monkeypatch.setattr(cache_module, "read_image", lambda *_: pytest.fail("a patch was read"))
    again = opened(data, tmp_path)
    assert again.cache.digest == first.cache.digest
    np.testing.assert_array_equal(again.cache.mask(3), first.cache.mask(3))


def test_other_fits_are_other_caches(data, tmp_path):
    digests = {opened(data, tmp_path, fit=fit).cache.digest for fit in (RESIZE, PAD, Fit(by="resize", side=17))}
    assert len(digests) == 3


def test_a_cache_is_named_by_what_it_was_made_of(tmp_path):
    patches = find_patches(write_images(tmp_path / "a", [np.ones((4, 4, 3))], [np.zeros((4, 4), np.uint8)]), ".")
    files = [patches[0].image, patches[0].mask]
    about = [[str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns] for path in files]
    bands = {key: value for key, value in H5.model_dump(mode="json").items() if key != "make"}
    open_cache(patches, H5, tmp_path / "cache")
    (place,) = (tmp_path / "cache").iterdir()
    assert place.name == fingerprint([FORMAT, bands, None, None, (), [["1", *about]], None])
    assert {path.name for path in place.iterdir()} == {"images.npy", "masks.npy", "moments.npy", "meta.json"}


def test_patches_of_hdf5_are_fitted_too(tmp_path):
    rng = np.random.default_rng(0)
    images = [rng.normal(size=(*size, 3)) for size in SIZES]
    images[0][0, 0, 0] = np.nan
    folder = write_images(tmp_path / "a", images, [np.ones(size, np.uint8) for size in SIZES])
    for fit in (RESIZE, PAD):
        config = DomainConfig(role="source", split=".", fit=fit)
        domain = open_domain("d", config, H5, folder, tmp_path / "cache")
        for mode in ("separated", "patch", "official"):
            scale, shift = affine(domain, mode, [domain], 1.0)
            seen = standardised(domain, np.arange(len(domain)), scale, shift)
            np.testing.assert_array_equal(seen == 0, np.isnan(domain.cache.images))  # padding stands at the mean
        assert domain.shapes.tolist() == [list(size) for size in SIZES]


def test_a_run_keeps_the_patches_of_a_drawn_split(data, tmp_path):
    domain = opened(data, tmp_path, split="train")
    told = json.loads(json.dumps(describe(domain)))
    assert told["ids"] == list(domain.ids(np.arange(9))) and told["shapes"] == domain.shapes.tolist()
    assert told["size"] == [16, 16]


def with_height(**options):
    return Bands.model_validate(
        {
            "file": ("r", "g", "b", "dem"),
            "make": {"height": {"how": "relative", "of": ("dem",)} | options},
            "use": ("r", "g", "b", "height"),
            "rgb": ("r", "g", "b"),
        }
    )


def test_a_height_of_fixed_scale_is_seen_as_it_is(data, tmp_path):
    """Whatever a domain's own scale is: 10 metres are 1 in every domain."""
    domain = opened(data, tmp_path, bands=with_height(scale=10.0), fit=PAD)
    assert (domain.stats.mean[:, 3] == 0).all() and (domain.stats.std[:, 3] == 1).all()
    for row, patch in enumerate(domain.patches):
        dem = read_image(patch, Bands(file=("r", "g", "b", "dem"), use=("dem",)))[0]
        height, width = dem.shape
        wanted = (dem - dem.mean(dtype=np.float64)) / 10
        np.testing.assert_allclose(domain.cache.images[row, 3, :height, :width], wanted, rtol=1e-3, atol=1e-3)
    for mode in ("separated", "patch"):
        scale, shift = affine(domain, mode, [], 0.5)
        assert (scale[:, 3] == 1).all() and (shift[:, 3] == 0).all()


def test_made_bands_are_of_the_pictures_own_pixels(data, tmp_path):
    domain = opened(data, tmp_path, bands=with_height(), fit=PAD)
    assert domain.stats.std[0, 3] > 1  # standardised like any band
    assert abs(domain.cache.moments[1][:, 3]).max() < 1e-4  # each patch's mean is 0, padding or not
