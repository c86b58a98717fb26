"""The cache: its bytes, its name, and what happens when two processes build it at once."""

import json
import multiprocessing
import os
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
from data_factory import RGB, write_h5, write_images

from l4s.data import cache as cache_module
from l4s.data.bands import Bands
from l4s.data.cache import open_cache
from l4s.data.readers import cut_patches, find_patches, read_image
from l4s.errors import DataError


def make(folder, count=3, size=4, seed=0, masks=True):
    rng = np.random.default_rng(seed)
    images = [rng.normal(100, 20, (size, size, 3)).astype(np.float32) for _ in range(count)]
    truth = [rng.integers(0, 2, (size, size)).astype(np.uint8) for _ in range(count)] if masks else []
    return write_images(folder, images, truth)


def patches_in(folder):
    return find_patches(folder, ".")


@pytest.fixture
def data(tmp_path):
    return make(tmp_path / "data")


@pytest.fixture
def place(tmp_path):
    return tmp_path / "cache"


def test_values_are_standardised_float16(data, place):
    patches = patches_in(data)
    cache = open_cache(patches, RGB, place)
    raw = np.stack([read_image(patch, RGB) for patch in patches]).astype(np.float64)
    mean, std = raw.mean((0, 2, 3)), raw.std((0, 2, 3))
    np.testing.assert_allclose(cache.mean, mean)
    np.testing.assert_allclose(cache.std, std)
    assert cache.images.dtype == np.float16 and cache.images.shape == (3, 3, 4, 4)
    expected = (raw - cache.mean[:, None, None]) / cache.std[:, None, None]
    np.testing.assert_array_equal(cache.images, expected.astype(np.float16))
    assert cache.masks.dtype == np.uint8 and cache.labelled.tolist() == [True] * 3
    assert cache.moments.shape == (3, 3, 3) and cache.moments.dtype == np.float64


def test_missing_values_stay_missing_and_missing_masks_are_ignored(tmp_path, place):
    image = np.full((2, 2, 3), 10.0)
    image[0, 0] = np.nan
    image[1, 1] = 30.0
    write_images(tmp_path / "data", [image, image + 2])
    write_h5(tmp_path / "data" / "mask_2.h5", "mask", np.array([[0, 1], [255, 0]], np.uint8))
    cache = open_cache(patches_in(tmp_path / "data"), RGB, place)
    assert np.isnan(cache.images[:, :, 0, 0]).all() and (np.asarray(cache.images[:, :, 1, 1]) > 0).all()
    assert np.isnan(cache.images).sum() == 6
    assert cache.masks.tolist() == [[[255, 255], [255, 255]], [[0, 1], [255, 0]]]
    assert cache.labelled.tolist() == [False, True]
    assert cache.moments[0].tolist() == [[3] * 3] * 2


def test_masks_are_read_by_the_domain_s_rules(tmp_path, place):
    masks = [np.array([[0, 1], [2, 3]], np.uint8)]
    patches = patches_in(write_images(tmp_path / "data", [np.arange(12.0).reshape(2, 2, 3)], masks))
    assert open_cache(patches, RGB, place, positive=(1, 2), ignore=(3,)).masks.tolist() == [[[0, 1], [1, 255]]]
    assert open_cache(patches, RGB, place, positive=(3,), ignore=(1, 2)).masks.tolist() == [[[0, 255], [255, 1]]]


def test_a_second_opening_reads_no_patch(data, place, monkeypatch):
    first = open_cache(patches_in(data), RGB, place)
    monkeypatch.setattr(cache_module, "read_image", lambda *_: pytest.fail("a patch was read"))
    again = open_cache(patches_in(data), RGB, place)
    np.testing.assert_array_equal(first.images, again.images)
    assert (first.digest, first.mean.tolist()) == (again.digest, again.mean.tolist())
    with pytest.raises(ValueError, match="read-only"):
        again.images[0] = 0


def test_others_may_read_it_and_what_killed_ones_left_goes(data, place):
    before = os.umask(0o022)
    try:
        made = open_cache(patches_in(data), RGB, place).images.filename
    finally:
        os.umask(before)
    assert Path(made).parent.stat().st_mode & 0o777 == 0o755
    shutil.move(Path(made).parent, left := place / f".{Path(made).parent.name}.{socket.gethostname()}.{2**22 + 1}.part")
    open_cache(patches_in(data), RGB, place)
    assert not left.exists() and [path.name for path in place.iterdir()] == [Path(made).parent.name]


CHANGES = {
    "nothing": lambda data: None,
    "time": lambda data: os.utime(data / "image_2.h5", ns=(1, 1)),
    "time of a mask": lambda data: os.utime(data / "mask_2.h5", ns=(1, 1)),
    "size": lambda data: write_h5(data / "image_2.h5", "img", np.ones((4, 4, 3), np.float64)),
    "a patch more": lambda data: write_h5(data / "image_9.h5", "img", np.ones((4, 4, 3))),
    "a mask less": lambda data: (data / "mask_2.h5").unlink(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_file_makes_another_cache(data, place, change):
    open_cache(patches_in(data), RGB, place)
    CHANGES[change](data)
    open_cache(patches_in(data), RGB, place)
    assert len(list(place.iterdir())) == (1 if change == "nothing" else 2)


def test_other_bands_and_rules_make_other_caches(data, place):
    patches = patches_in(data)
    variants = [
        {},
        {"bands": Bands(file=RGB.file, use=("b2", "b3"))},
        {"bands": Bands(file=RGB.file, use=("b3", "b2"))},
        {"shared": [[0, 1]]},
        {"positive": (2,), "ignore": (1, 255)},
    ]
    digests = {open_cache(patches, each.pop("bands", RGB), place, **each).digest for each in variants}
    assert len(list(place.iterdir())) == len(digests) == 5


def test_the_digest_names_the_content_and_not_the_place(tmp_path, place):
    digests = {}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        digests[name] = open_cache(patches_in(make(tmp_path / name, seed=seed)), RGB, place).digest
    assert digests["a"] == digests["b"] != digests["c"]
    renamed = tmp_path / "b"
    for kind in ("image", "mask"):
        (renamed / f"{kind}_3.h5").rename(renamed / f"{kind}_4.h5")
    assert open_cache(patches_in(renamed), RGB, place).digest != digests["a"]


def test_shared_bands_are_scaled_alike(data, place):
    cache = open_cache(patches_in(data), RGB, place, shared=[[0, 2]])
    assert cache.mean[0] == cache.mean[2] != cache.mean[1] and cache.std[0] == cache.std[2]


def test_a_build_that_stops_leaves_nothing_and_starts_again(data, place, monkeypatch):
    calls = []

    def stops(patch, bands):
        calls.append(patch)
        if len(calls) == 6:  # half of the second pass: memory maps are already there
            raise KeyboardInterrupt
        return read_image(patch, bands)

    monkeypatch.setattr(cache_module, "read_image", stops)
    with pytest.raises(KeyboardInterrupt):
        open_cache(patches_in(data), RGB, place)
    assert list(place.iterdir()) == []
    monkeypatch.setattr(cache_module, "read_image", read_image)
    assert open_cache(patches_in(data), RGB, place).images.shape == (3, 3, 4, 4)


def test_the_slower_of_two_builds_takes_the_other_s(data, place, monkeypatch):
    fill, inside = cache_module._fill, []

    def fill_twice(part, patches, *rest):
        fill(part, patches, *rest)
        if not inside:
            inside.append(part)
            open_cache(patches, RGB, place)  # finishes first

    monkeypatch.setattr(cache_module, "_fill", fill_twice)
    cache = open_cache(patches_in(data), RGB, place)
    assert cache.images.shape == (3, 3, 4, 4)
    assert len(list(place.iterdir())) == 1  # and no part of the slower one


def _open(barrier, data, place, queue):
    barrier.wait()
    queue.put(open_cache(patches_in(data), RGB, place).digest)


def test_two_processes_at_once(tmp_path, place):
    data = make(tmp_path / "data", count=30)
    context = multiprocessing.get_context("fork")
    barrier, queue = context.Barrier(2), context.Queue()
    both = [context.Process(target=_open, args=(barrier, data, place, queue)) for _ in range(2)]
    for process in both:
        process.start()
    digests = [queue.get(timeout=60) for _ in both]
    for process in both:
        process.join(60)
    assert [process.exitcode for process in both] == [0, 0]
    assert digests[0] == digests[1] and len(list(place.iterdir())) == 1


def test_patches_of_other_sizes_are_named(data, place):
    write_h5(data / "image_3.h5", "img", np.ones((4, 5, 3)))
    with pytest.raises(DataError, match=r"image_3.h5 has shape \(3, 4, 5\), but .*image_1.h5 has \(3, 4, 4\)"):
        open_cache(patches_in(data), RGB, place)
    assert list(place.iterdir()) == []


def test_a_mask_of_another_size_is_named(data, place):
    write_h5(data / "mask_3.h5", "mask", np.ones((4, 5), np.uint8))
    with pytest.raises(DataError, match=r"mask_3.h5 has shape \(4, 5\), but its image .*image_3.h5 is \(4, 4\)"):
        open_cache(patches_in(data), RGB, place)


def test_a_value_that_float16_cannot_hold_is_refused(data):
    patch = patches_in(data)[0]
    with pytest.raises(DataError, match="image_1.h5 has values over 60,000 standard deviations from the mean"):
        cache_module._standardise(patch, read_image(patch, RGB), np.zeros(3), np.full(3, 1e-4))


def test_progress_is_shown_for_both_passes(data, place):
    seen = []

    def track(items, text, total):
        seen.append((text, total))
        return items

    open_cache(patches_in(data), RGB, place, track=track)
    assert seen == [("statistics", 3), ("cache", 3)]
    json.loads(next(place.glob("*/meta.json")).read_text())


def squares_in(folder, side=2):
    return cut_patches(patches_in(folder), side, (4, 4))


def test_a_file_is_read_once_for_all_its_squares(data, place, monkeypatch):
    read = []
    monkeypatch.setattr(cache_module, "read_image", lambda patch, bands: read.append(patch) or read_image(patch, bands))
    cache = open_cache(squares_in(data), RGB, place)
    assert cache.images.shape == (12, 3, 2, 2) and cache.labelled.shape == (12,)
    assert len(read) == 1 + 2 * 3  # the first for its shape, then each in both passes
    whole = open_cache(patches_in(data), RGB, place)
    assert cache.digest != whole.digest and len(list(place.iterdir())) == 2
    np.testing.assert_allclose(cache.moments[1].mean(0), whole.moments[1].mean(0))
    open_cache(squares_in(data), RGB, place)
    assert len(read) == 2 * (1 + 2 * 3)  # made already


def test_other_squares_make_another_cache(data, place):
    digests = {open_cache(squares_in(data, side), RGB, place).digest for side in (1, 2, 4)}
    assert len(digests) == len(list(place.iterdir())) == 3
    one, other = open_cache(squares_in(data, 4), RGB, place), open_cache(patches_in(data), RGB, place)
    np.testing.assert_array_equal(one.images, other.images)  # but their ids differ
