"""Generated pictures: the layouts, what is in them, and that equal arguments give equal bytes."""

import hashlib

import numpy as np
import pytest
from PIL import Image

from l4s.data import synth_pictures
from l4s.data.bands import Bands
from l4s.data.readers import find_patches, read_image, read_mask
from l4s.data.synth_pictures import SIDES, make_picture, write_pictures
from l4s.data.terrain import slope_degrees
from l4s.errors import DataError, RecipeError

BIJIE, HOKKAIDO = {"landslide": 3, "non-landslide": 2}, {"train": 3, "validation": 1, "test": 1}
RGBD = Bands(file=("r", "g", "b", "dem"), rgb=("r", "g", "b"))


@pytest.fixture(scope="module")
def bijie(tmp_path_factory):
    place = tmp_path_factory.mktemp("bijie")
    return place, write_pictures(place, "bijie", BIJIE)


@pytest.fixture(scope="module")
def hokkaido(tmp_path_factory):
    place = tmp_path_factory.mktemp("hokkaido")
    return place, write_pictures(place, "hokkaido", HOKKAIDO)


def digests(place):
    files = [path for path in sorted(place.rglob("*")) if path.is_file()]
    return {str(path.relative_to(place)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_bijie(bijie):
    place, told = bijie
    refs = find_patches(place, ".")
    assert [ref.background for ref in refs] == [False] * 3 + [True] * 2
    shapes = {read_image(ref, RGBD).shape for ref in refs}
    assert len(shapes) == 5 and all(SIDES[0] <= side <= SIDES[1] for shape in shapes for side in shape[1:])
    masks = [read_mask(ref) for ref in refs]
    assert all(mask.any() for mask in masks[:3]) and not any(mask.any() for mask in masks[3:])
    with Image.open(refs[0].mask) as mask, Image.open(refs[0].dem) as dem:
        assert set(np.unique(np.asarray(mask))) == {0, 255}
        assert (np.asarray(dem).min(), np.asarray(dem).max(), dem.mode) == (0, 255, "L")
    assert told["landslide"]["patches"] == 3 and told["non-landslide"]["empty"] == 1
    assert told["landslide"]["positive"] == pytest.approx(
        sum(m.sum() for m in masks[:3]) / sum(m.size for m in masks[:3])
    )


def test_hokkaido(hokkaido):
    place, told = hokkaido
    assert [len(find_patches(place, split)) for split in ("train", "validation", "test")] == [3, 1, 1]
    ref = find_patches(place, "train")[0]
    image = read_image(ref, RGBD)
    assert ref.dem.suffix == ".tif" and np.ptp(image[3]) > 10  # metres
    assert read_mask(ref).any()
    assert told["train"]["smallest"] >= SIDES[0] and told["train"]["largest"] <= SIDES[1]
    with Image.open(ref.mask) as mask:
        assert set(np.unique(np.asarray(mask))) == {0, 1}


def test_landslides_show_and_lie_on_slopes():
    bright, steep, alike = [], [], []
    for number in range(6):
        config = synth_pictures._domain("bijie", "landslide", 0)
        picture = make_picture(config, number, synth_pictures.SHARES["landslide"])
        slide = picture.mask == 1
        red = picture.colours[..., 0].astype(float)
        bright.append(red[slide].mean() / red[~slide].mean())
        slope = slope_degrees(picture.dem)
        steep.append(slope[slide].mean() - slope[~slide].mean())
        alike.append(slope[slide].mean() - slope[~slide & (red > np.quantile(red[slide], 0.3))].mean())
    assert min(bright) > 1.3 and np.mean(steep) > 2
    assert np.mean(alike) > 6  # degrees: what looks like a slide lies on level ground, which the DEM tells


def test_channels_of_hokkaido_are_blue_green_red(hokkaido):
    place, _ = hokkaido
    picture = make_picture(synth_pictures._domain("hokkaido", "train", 0), 0, synth_pictures.SHARES["landslide"])
    named = Bands(file=("b", "g", "r", "dem"), use=("r", "g", "b"), rgb=("r", "g", "b"))
    np.testing.assert_array_equal(
        read_image(find_patches(place, "train")[0], named), np.moveaxis(picture.colours, -1, 0).astype(np.float32)
    )


@pytest.mark.parametrize(("kind", "counts"), [("bijie", BIJIE), ("hokkaido", HOKKAIDO)])
def test_equal_arguments_are_equal_bytes(request, tmp_path, kind, counts):
    place, told = request.getfixturevalue(kind)
    write_pictures(tmp_path, kind, counts)
    assert digests(tmp_path) == digests(place)


def test_another_seed_is_another_data_set(bijie, tmp_path):
    place, _ = bijie
    write_pictures(tmp_path, "bijie", {"landslide": 1, "non-landslide": 0}, seed=1)
    ours, theirs = digests(tmp_path), digests(place)
    assert ours["landslide/image/001.png"] != theirs["landslide/image/001.png"]


def test_a_finished_data_set_is_left_alone_and_an_interrupted_one_finished(tmp_path, monkeypatch):
    counts = {"landslide": 1, "non-landslide": 1}
    write, done = synth_pictures._save, []
    monkeypatch.setattr(synth_pictures, "_save", lambda *a: done.append(a) or (write(*a) if len(done) < 3 else 1 / 0))
    with pytest.raises(ZeroDivisionError):
        write_pictures(tmp_path, "bijie", counts)
    monkeypatch.setattr(synth_pictures, "_save", write)
    told = write_pictures(tmp_path, "bijie", counts)
    monkeypatch.setattr(synth_pictures, "_save", lambda *_: pytest.fail("written again"))
    assert write_pictures(tmp_path, "bijie", counts) == told
    with pytest.raises(DataError, match="made with other arguments"):
        write_pictures(tmp_path, "bijie", counts, seed=1)


@pytest.mark.parametrize(
    ("kind", "counts"), [("taiwan", BIJIE), ("bijie", HOKKAIDO), ("bijie", BIJIE | {"landslide": -1})]
)
def test_what_cannot_be_made(tmp_path, kind, counts):
    with pytest.raises(RecipeError, match="give bijie or hokkaido"):
        write_pictures(tmp_path, kind, counts)
    with pytest.raises(RecipeError, match="seed = -1"):
        write_pictures(tmp_path, "bijie", BIJIE, -1)
