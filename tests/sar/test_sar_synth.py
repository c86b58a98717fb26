"""Generated radar chips: the statistics that were asked for, two regions, the same bytes every time."""

import csv
import hashlib
import json

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from l4s.cli import app
from l4s.data.bands import Bands
from l4s.data.labels import labels_beside
from l4s.data.landcover import MATERIALS
from l4s.data.readers import find_patches, read_image, read_mask
from l4s.data.terrain import Terrain
from l4s.errors import DataError, RecipeError
from l4s.sar import synth
from l4s.sar.change import draw_others, draw_season, draw_weather
from l4s.sar.echo import BACKSCATTER, backscatter, facing, measure, speckle
from l4s.sar.layout import band_names, rounded
from l4s.sar.region import SarRegion, two_regions, with_landslides
from l4s.sar.synth import make_chip, write_regions

SMALL = {"chips": (4, 5), "size": 32, "visits": 2}
REGION = SarRegion(name="here", chips=10, size=48, visits=3, missing=0.0)


def digest(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_bands_in_file_order():
    assert band_names(1) == ("vv_pre_1", "vh_pre_1", "vv_post_1", "vh_post_1")
    assert band_names(2)[2:6] == ("vv_pre_2", "vh_pre_2", "vv_post_1", "vh_post_1")


@pytest.mark.parametrize("looks", [1.0, 4.4, 20.0])
def test_speckle_has_the_moments_of_its_looks(looks):
    amplitude = speckle(np.random.default_rng(0), (4, 160, 160), looks).astype(float)
    intensity = amplitude**2
    assert intensity.mean() == pytest.approx(1, abs=0.03)
    assert intensity.mean() ** 2 / intensity.var() == pytest.approx(looks, rel=0.06)  # the equivalent number of looks
    assert amplitude.min() > 0


def test_speckle_is_correlated_over_two_pixels_and_not_between_planes():
    field = speckle(np.random.default_rng(1), (2, 200, 200), 4.4)
    field = field - field.mean()
    near = [np.mean(field[:, :, k:] * field[:, :, : 200 - k]) / field.var() for k in (1, 2, 3)]
    down = np.mean(field[:, 1:] * field[:, :-1]) / field.var()
    assert near[0] == pytest.approx(0.44, abs=0.03) and down == pytest.approx(0.44, abs=0.03)
    assert 0.02 < near[1] < 0.1 and abs(near[2]) < 0.02
    assert abs(np.mean(field[0] * field[1])) / field.var() < 0.02


def test_backscatter_is_that_of_the_cover():
    share = np.zeros((len(MATERIALS), 64, 64), np.float32)
    share[MATERIALS.index("water")] = 1
    found = backscatter(np.random.default_rng(0), share, (1.0, -2.0))
    assert found.shape == (2, 64, 64) and found.dtype == np.float32
    np.testing.assert_allclose(found.mean((1, 2)), np.array(BACKSCATTER["water"]) + (1, -2), atol=0.1)


def tilted(south, east, size=4):
    gradient = np.stack([np.full((size, size), south), np.full((size, size), east)])
    return Terrain(np.zeros((size, size)), np.zeros((size, size)), gradient, np.zeros((0, 5)))


def test_slopes_that_face_the_sensor_are_brighter():
    """A beam to the east comes from the west: a slope that rises to the east faces it."""
    look = {"incidence": 38.0, "relief": 1.0}
    np.testing.assert_allclose(facing(tilted(0, 0), heading=90.0, **look), 0, atol=1e-6)
    front, back = (facing(tilted(0, rise), heading=90.0, **look)[0, 0] for rise in (0.3, -0.3))
    tilt = np.degrees(np.arctan(0.3))
    assert front == pytest.approx(10 * np.log10(np.sin(np.radians(38)) / np.sin(np.radians(38 - tilt))), rel=1e-4)
    assert front > 1 > 0 > back
    assert facing(tilted(0, 0.3), heading=270.0, **look)[0, 0] == pytest.approx(back, rel=1e-4)
    assert facing(tilted(-0.3, 0), heading=0.0, **look)[0, 0] == pytest.approx(front, rel=1e-4)  # it rises to the north
    assert np.isfinite(facing(tilted(0, 50.0), heading=90.0, **look)).all()
    assert (facing(tilted(0, 0.3), 38.0, 90.0, relief=0.0) == 0).all()


def test_measurements_are_amplitudes():
    decibels = np.full((3, 96, 96), -10.0, np.float32)
    found = measure(np.random.default_rng(0), decibels, 4.4)
    assert found.dtype == np.float32 and (found**2).mean() == pytest.approx(0.1 + 10**-2.4, rel=0.03)


def test_seasons_move_covers_as_a_whole_and_nothing_without_a_season():
    rng = np.random.default_rng(0)
    share = np.zeros((len(MATERIALS), 16, 16), np.float32)
    share[MATERIALS.index("forest"), :8], share[MATERIALS.index("crop"), 8:] = 1, 1
    assert (draw_season(rng, share, 0.0) == 0).all() and (draw_others(rng, 16, 0.0) == 0).all()
    moved = [draw_season(np.random.default_rng(k), share, 1.0)[0] for k in range(200)]
    steps = [change[8:].mean() - change[:8].mean() for change in moved]
    assert np.std(steps) > 2  # crops do, forests hardly
    assert draw_weather(rng, 16).shape == (2, 16, 16)


def test_half_of_the_chips_have_landslides_in_no_order():
    for chips in (10, 11):
        some = with_landslides(SarRegion(name="x", chips=chips))
        assert some.sum() == round(chips / 2) and some.tolist() != sorted(some.tolist())
    assert (
        with_landslides(SarRegion(name="x", chips=100)).tolist()
        != with_landslides(SarRegion(name="x", chips=100, seed=1)).tolist()
    )


@pytest.fixture(scope="module")
def chips():
    return [make_chip(REGION, index) for index in range(REGION.chips)]


def test_a_chip(chips):
    for chip, some in zip(chips, with_landslides(REGION), strict=True):
        assert chip.image.shape == (12, 48, 48) and chip.image.dtype == np.float32 and (chip.image > 0).all()
        assert chip.mask.shape == (48, 48) and chip.mask.dtype == np.uint8 and chip.mask.any() == some
        x, y = chip.point
        assert not some or chip.mask[int(y), int(x)] == 1
        assert some or (x, y) == (24, 24)


def test_chips_depend_on_seed_region_and_index_alone(chips):
    again = make_chip(REGION, 3)
    np.testing.assert_array_equal(again.image, chips[3].image)
    for other in (REGION.model_copy(update={"seed": 1}), REGION.model_copy(update={"number": 1})):
        assert (make_chip(other, 3).image != chips[3].image).mean() > 0.99
    assert (chips[4].image != chips[3].image).mean() > 0.99


def test_strength_is_what_landslides_change_and_nothing_else():
    """The mask and everything outside of slides stay; at 0 nothing shows."""
    index = int(np.flatnonzero(with_landslides(REGION))[0])
    none, some = (make_chip(REGION.model_copy(update={"strength": s}), index) for s in (0.0, 2.0))
    np.testing.assert_array_equal(none.mask, some.mask)
    np.testing.assert_array_equal(none.image[:6], some.image[:6])  # before the event
    changed = (none.image[6:] != some.image[6:]).any(0)
    assert changed[some.mask == 1].mean() > 0.3  # some slides are invisible
    grown = np.pad(some.mask, 2)
    near = np.max([grown[r : r + 48, c : c + 48] for r in range(5) for c in range(5)], axis=0)
    assert not changed[near == 0].any()


@pytest.mark.slow
def test_landslides_are_three_per_cent_of_all_pixels_and_statistics_are_those_of_the_paper():
    """Random AP is 0.032 (Böhm 2022, 4); the published mean logarithms fit power, twice that of amplitude."""
    for region, levels in zip(
        two_regions(seed=0, chips=(60, 60), size=128, visits=1, strength=1.0), LEVELS, strict=True
    ):
        made = [make_chip(region, index) for index in range(60)]
        assert np.mean([chip.mask.mean() for chip in made]) == pytest.approx(0.031, abs=0.006)
        logs = 2 * np.log10(np.stack([chip.image for chip in made]))
        np.testing.assert_allclose([np.nanmean(logs[:, k::2]) for k in (0, 1)], levels, atol=0.12)


LEVELS = ((-0.7342, -1.3207), (-0.9861, -1.6046))


def test_several_passes_show_more_than_one():
    """The change of backscatter follows the landslides more closely where passes are averaged."""
    region = SarRegion(name="x", chips=12, size=64, visits=5, strength=2.0, missing=0.0)

    def follows(visits):
        found = []
        for index in np.flatnonzero(with_landslides(region)):
            chip = make_chip(region, int(index))
            vh = chip.image[1::2]
            change = np.abs(np.log(vh[5 : 5 + visits].mean(0) / vh[:visits].mean(0)))
            found.append(np.corrcoef(change.ravel(), chip.mask.ravel())[0, 1])
        return np.mean(found)

    assert follows(5) > 1.3 * follows(1) > 0


def test_some_passes_end_within_a_chip():
    region = SarRegion(name="x", chips=4, size=32, visits=2, missing=1.0)
    for index in range(4):
        missing = np.isnan(make_chip(region, index).image)
        [first, second] = np.flatnonzero(missing.any((1, 2)))
        assert second == first + 1 and first % 2 == 0  # VV and VH of one pass
        assert missing[first].mean() < 0.5 and (missing[first] == missing[second]).all()


def test_no_landslides_without_slopes(monkeypatch):
    monkeypatch.setattr(synth, "TRIES", 1)
    with pytest.raises(RecipeError, match="region flat: slope = 5.1 degrees is too level"):
        make_chip(SarRegion(name="flat", chips=2, size=16, slope=5.1, roughness=0.0), 0)


def test_values_are_rounded_to_bits():
    values = np.array([1.0, 1 + 2**-12, 1 + 2**-11, -3.3, 0.0, np.nan], np.float32)
    found = rounded(values, 11)
    np.testing.assert_array_equal(found[[0, 2, 4, 5]], values[[0, 2, 4, 5]])
    assert abs(found[3] / values[3] - 1) < 2**-11
    random = np.random.default_rng(0).gamma(4, 0.1, 1000).astype(np.float32)
    assert np.abs(rounded(random, 11) / random - 1).max() <= 2**-12 * 1.0001


def test_two_regions_on_disk(tmp_path):
    made = write_regions(tmp_path / "data", **SMALL)
    assert [(name, of["patches"], of["size"]) for name, of in made.items()] == [
        ("hokkaido", 4, 32),
        ("kaikoura", 5, 32),
    ]
    bands = Bands(file=band_names(2))
    first, second = (find_patches(tmp_path / "data", name) for name in made)
    assert [ref.number for ref in first] == [1, 2, 3, 4] and len(second) == 5
    assert sum(read_mask(ref).any() for ref in first) == 2 and made["hokkaido"]["empty"] == 0.5
    assert all(ref.mask is None for ref in second) and not (tmp_path / "data/kaikoura/mask").exists()
    region = two_regions(seed=0, strength=1.0, **SMALL)[0]
    for index, ref in enumerate(first):
        chip = make_chip(region, index)
        np.testing.assert_allclose(read_image(ref, bands), chip.image, rtol=3e-4)
        np.testing.assert_array_equal(read_mask(ref), chip.mask)
    assert json.loads((tmp_path / "data/synth.json").read_text())["arguments"]["bands"] == list(band_names(2))


def test_points_lie_in_landslides(tmp_path):
    write_regions(tmp_path, **SMALL)
    region = two_regions(seed=0, strength=1.0, **SMALL)[1]
    with (tmp_path / "kaikoura/labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        mask = make_chip(region, int(row["id"]) - 1).mask
        assert int(row["label"]) == mask.any() == mask[int(float(row["y"])), int(float(row["x"]))]
    assert labels_beside(find_patches(tmp_path, "kaikoura")) == {int(row["id"]): int(row["label"]) for row in rows}
    assert {row["label"] for row in rows} == {"0", "1"}


def test_images_hold_what_the_layout_says(tmp_path):
    write_regions(tmp_path, **SMALL)
    with h5py.File(tmp_path / "hokkaido/img/image_1.h5") as file:
        assert file["img"].shape == (32, 32, 8) and file["img"].dtype == np.float32
    with h5py.File(tmp_path / "hokkaido/mask/mask_1.h5") as file:
        assert file["mask"].shape == (32, 32) and file["mask"].dtype == np.uint8


def test_the_same_arguments_are_no_work_and_others_are_refused(tmp_path, monkeypatch):
    first = write_regions(tmp_path / "a", **SMALL)
    assert digest(tmp_path / "a") == digest_of_another(tmp_path / "b")
    monkeypatch.setattr(synth, "make_chip", lambda *_: pytest.fail("a chip was made"))
    assert write_regions(tmp_path / "a", **SMALL) == first
    with pytest.raises(DataError, match="made with other arguments"):
        write_regions(tmp_path / "a", **SMALL, seed=1)
    (tmp_path / "c").mkdir()
    (tmp_path / "c/mine.txt").write_text("mine")
    with pytest.raises(DataError, match="is not empty and no generated data set"):
        write_regions(tmp_path / "c", **SMALL)


def digest_of_another(folder):
    write_regions(folder, **SMALL)
    return digest(folder)


def test_an_interrupted_data_set_is_written_again(tmp_path, monkeypatch):
    write = synth.write_image

    def stop(folder, number, *rest):
        if folder.name == "kaikoura" and number == 3:
            raise KeyboardInterrupt
        return write(folder, number, *rest)

    monkeypatch.setattr(synth, "write_image", stop)
    with pytest.raises(KeyboardInterrupt):
        write_regions(tmp_path / "a", **SMALL)
    monkeypatch.undo()
    write_regions(tmp_path / "a", **SMALL)
    assert digest(tmp_path / "a") == digest_of_another(tmp_path / "b")


@pytest.mark.slow
def test_workers_change_nothing(tmp_path):
    write_regions(tmp_path / "a", **SMALL, workers=2)
    assert digest(tmp_path / "a") == digest_of_another(tmp_path / "b")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [({"size": 8}, "size"), ({"chips": (-1, 2)}, "chips"), ({"visits": 0}, "visits"), ({"workers": -1}, "workers")],
)
def test_arguments_out_of_range(tmp_path, arguments, says):
    with pytest.raises(RecipeError, match=says):
        write_regions(tmp_path, **{**SMALL, **arguments})


def test_the_command(tmp_path):
    words = ["data", "synth", "--kind", "sar", str(tmp_path / "d"), "--first", "2", "--second", "2", "--size", "16"]
    shown = CliRunner().invoke(app, [*words, "--visits", "1", "--strength", "2", "--json"])
    assert shown.exit_code == 0, shown.output
    assert json.loads(shown.stdout)["kaikoura"]["patches"] == 2
    again = CliRunner().invoke(app, [*words, "--visits", "1", "--strength", "2"])
    assert again.exit_code == 0 and "hokkaido" in again.stdout
    refused = CliRunner().invoke(app, [*words, "--train", "3"])
    assert refused.exit_code == 2 and "--train has no effect" in refused.output
    other = CliRunner().invoke(app, ["data", "synth", str(tmp_path / "e"), "--visits", "1"])
    assert other.exit_code == 2 and "--visits has no effect" in other.output
