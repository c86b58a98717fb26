"""`l4s data stats` and `l4s data classes`: against numpy over all pixels."""

import json

import h5py
import numpy as np
import pytest
from data_factory import write_h5, write_images, write_split

from l4s.data.bands import L4S_BANDS, Bands
from l4s.data.domain import open_domain
from l4s.data.survey import detect_bands, splits_in, survey
from l4s.recipe import DomainConfig


def pixels(folder):
    """All pixels of a folder, (pixels, bands) float64."""
    images = []
    for path in sorted(folder.glob("image_*.h5")):
        with h5py.File(path) as file:
            images.append(file["img"][:].astype(np.float64).reshape(-1, file["img"].shape[2]))
    return np.concatenate(images)


@pytest.fixture
def release(tmp_path):
    """An official layout of three splits; some pixels of one band of the test split are NaN."""
    write_split(tmp_path, "train", range(1, 5))
    write_split(tmp_path, "validation", range(1, 4), seed=1, gain=3.0, offset=7.0)
    write_split(tmp_path, "test", range(5, 7), seed=2, gain=0.5, masks=False)
    with h5py.File(tmp_path / "TestData/img/image_5.h5", "r+") as file:
        file["img"][:3, :, 1] = np.nan
    return tmp_path


def test_domains_side_by_side(l4s, release):
    shown = l4s("data", "stats", release, "--bands", "red,green,blue", "--json")
    assert shown.exit_code == 0, shown.output
    train, validation, test = json.loads(shown.stdout)
    assert [(each["name"], each["patches"], each["labelled"]) for each in (train, validation, test)] == [
        ("train", 4, 4),
        ("validation", 3, 3),
        ("test", 2, 0),
    ]
    source = pixels(release / "TrainData/img")
    for each, folder in ((train, "TrainData"), (validation, "ValidData"), (test, "TestData")):
        values = pixels(release / folder / "img")
        mean, std = np.nanmean(values, 0), np.nanstd(values, 0)
        assert each["bands"] == ["red", "green", "blue"]
        np.testing.assert_allclose(each["mean"], mean, rtol=1e-6)
        np.testing.assert_allclose(each["std"], std, rtol=1e-6)
        np.testing.assert_allclose(each["shift"], (mean - source.mean(0)) / source.std(0), atol=1e-6)
        np.testing.assert_allclose(each["ratio"], std / source.std(0), rtol=1e-6)
        np.testing.assert_allclose(each["nan"], np.isnan(values).mean(0), atol=1e-12)
    assert test["nan"] == pytest.approx([0, 3 * 16 / (2 * 16 * 16), 0])


def test_the_table_says_the_same(l4s, release):
    shown = l4s("data", "stats", release, "--bands", "red,green,blue").stdout
    train, _, test = survey(release, bands=Bands(file=("red", "green", "blue")))
    line = next(line for line in shown.splitlines() if "green" in line)
    for text in (f"{train.mean[1]:.5g} ± {train.std[1]:.4g}", f"{test.shift(train)[1]:+.2f}", "9.38%"):
        assert text in line
    assert f"test: 2 patches, 0 with masks, statistics {test.hash}" in shown


def test_the_hash_is_that_of_a_run(release, tmp_path):
    from l4s.session import describe

    bands = Bands(file=("red", "green", "blue"))
    config = DomainConfig(role="target", split="validation")
    domain = open_domain("away", config, bands, release, tmp_path / "cache")
    (found,) = survey(release, ["validation"], bands)
    assert found.hash == describe(domain)["hash"]


def test_splits_may_be_chosen_and_the_first_is_the_source(l4s, release):
    shown = l4s("data", "stats", release, "--split", "test", "--split", "ValidData", "--json")
    first, second = json.loads(shown.stdout)
    assert (first["name"], second["name"]) == ("test", "ValidData")
    assert first["shift"] == [0, 0, 0] and first["ratio"] == [1, 1, 1]
    want = survey(release, ["test", "ValidData"])
    np.testing.assert_allclose(second["ratio"], want[1].std / want[0].std)


def test_bands_without_names_are_numbered_and_said(l4s, release):
    shown = l4s("data", "stats", release, "--json")
    assert json.loads(shown.stdout)[0]["bands"] == ["band1", "band2", "band3"]
    assert "called band1 to band3; name them with --bands" in shown.stderr
    assert "called" not in l4s("data", "stats", release, "--bands", "a,b,c").stderr


@pytest.mark.parametrize("shape", [(16, 16, 14), (14, 16, 16)])
def test_fourteen_bands_are_those_of_the_release(l4s, tmp_path, shape):
    write_images(tmp_path, [np.random.default_rng(0).normal(size=shape)])
    assert detect_bands(tmp_path / "image_1.h5").file == L4S_BANDS
    (found,) = json.loads(l4s("data", "stats", tmp_path, "--json").stdout)
    assert (found["name"], found["bands"]) == (tmp_path.name, list(L4S_BANDS))


def test_bands_first_is_told_from_bands_last(tmp_path):
    write_h5(tmp_path / "image_1.h5", "img", np.zeros((5, 16, 16)))
    assert detect_bands(tmp_path / "image_1.h5").file == tuple(f"band{number}" for number in range(1, 6))


def test_which_splits_lie_there(release, tmp_path_factory):
    assert splits_in(release) == ("train", "validation", "test")
    assert splits_in(release / "TrainData") == (".",)
    other = write_images(tmp_path_factory.mktemp("other") / "val", [np.zeros((16, 16, 3))]).parent
    write_images(other / "images" / "train", [np.zeros((16, 16, 3))])
    assert splits_in(other) == ("train",)
    plain = write_images(tmp_path_factory.mktemp("plain") / "test", [np.zeros((16, 16, 3))]).parent
    assert splits_in(plain) == ("test",)


def test_pictures_are_small_pngs(l4s, release, tmp_path):
    from PIL import Image

    shown = l4s("data", "stats", release, "--picture", tmp_path / "p" / "stats.png")
    assert shown.exit_code == 0, shown.output
    with Image.open(tmp_path / "p" / "stats.png") as picture:
        assert picture.format == "PNG"
        colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 20)}
    assert {(31, 119, 180), (255, 127, 14), (44, 160, 44)} <= colours  # a bar of each domain
    assert (tmp_path / "p" / "stats.png").stat().st_size < 300_000


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--bands", "a,b"), "(H, W, 2) or (2, H, W) is needed"),
        (("--bands", "a,b,a"), "names a band twice"),
        (("--split", "trian"), "no patches of split 'trian'"),
    ],
)
def test_wrong_use(l4s, release, arguments, says):
    shown = l4s("data", "stats", release, *arguments)
    assert shown.exit_code == 2
    assert says in shown.stderr
    assert shown.stdout == ""


def test_files_that_are_no_patches(l4s, tmp_path):
    write_h5(tmp_path / "image_1.h5", "img", np.zeros((16, 16)))
    shown = l4s("data", "stats", tmp_path)
    assert shown.exit_code == 2
    assert "a patch is (H, W, bands)" in shown.stderr
    assert l4s("data", "stats", tmp_path / "nowhere").exit_code == 2


def test_classes_are_counted_in_the_masks(l4s, tmp_path):
    touching = np.zeros((16, 16), np.uint8)
    touching[0, 0] = touching[1, 1] = 1  # one landslide: they touch at a corner
    touching[5:8, 5:9] = 1
    touching[15] = 255
    images = [np.random.default_rng(0).normal(size=(16, 16, 3))] * 2
    folder = write_images(tmp_path / "patches", images, [touching, np.zeros((16, 16), np.uint8)])
    shown = l4s("data", "classes", folder, "--picture", tmp_path / "classes.png", "--json")
    assert shown.exit_code == 0, shown.output
    (row,) = json.loads(shown.stdout)
    wanted = {"patches": 2, "empty": 1, "landslide": 14, "ignored": 16, "background": 512 - 30, "landslides": 2}
    assert {key: row[key] for key in wanted} == wanted
    assert row["ratio"] == pytest.approx((512 - 30) / 14) and row["area_p50"] == 7
    assert (tmp_path / "classes.png").stat().st_size > 1000
    text = l4s("data", "classes", folder)
    assert "1 : 34.4" in text.stdout


def test_bands_without_a_picture_have_no_effect(l4s, tmp_path):
    told = l4s("data", "classes", tmp_path, "--bands", "b4,b3,b2")
    assert told.exit_code == 2 and "--bands names what --picture draws" in " ".join(told.output.split())


def test_classes_need_masks(l4s, tmp_path):
    write_images(tmp_path, [np.zeros((16, 16, 3))])
    told = l4s("data", "classes", tmp_path)
    assert told.exit_code == 2 and "without masks" in told.output
