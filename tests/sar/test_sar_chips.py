"""Published radar chips as patches: what is taken from where, and what is refused by name."""

import json
import os
import pickle
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from l4s import rundir
from l4s.cli import app
from l4s.data.bands import Bands
from l4s.data.labels import labels_beside
from l4s.data.readers import find_patches, read_image, read_mask
from l4s.errors import DataError
from l4s.sar import upstream
from l4s.sar.balance import balanced
from l4s.sar.chips import convert_chips
from l4s.sar.layout import band_names
from l4s.sar.passes import Event

EVENT = date(2018, 9, 6)
DAYS = ("20180812", "20180824", "20180906", "20180913", "20180925")
VARIABLES = [
    "ST::dem",
    *(f"TS::{name}::{day}" for day in DAYS for name in ("vh", "vv")),
    "TP::coherence::20180812_20180824",
    "ST::landslides",
]
BOUNDS = {"minx": 500_000.0, "miny": 4_700_000.0, "maxx": 500_080.0, "maxy": 4_700_060.0}
SIZE = (6, 8)


def planes(seed=0, landslide=True):
    values = np.random.default_rng(seed).gamma(4, 0.1, (len(VARIABLES), *SIZE)).astype(np.float32)
    values[-1] = np.nan
    if landslide:
        values[-1, 2:4, 1:5] = 2.0  # reactivated
        values[-1, 4, 4] = 1.0
    return values


def write_chip(folder, name, values, **changes):
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(folder / f"{name}.npz", values)
    metadata = {"variables": VARIABLES, "bounds": BOUNDS, "crs": "EPSG:32654", "chip_id": name} | changes
    (folder / f"{name}.metadata.pkl").write_bytes(pickle.dumps(metadata))
    return folder


@pytest.fixture
def folder(tmp_path):
    for seed, name in enumerate(("10", "9", "b7")):
        write_chip(tmp_path / "chips", name, planes(seed, landslide=name != "9"))
    return tmp_path / "chips"


def convert(folder, out, visits=1, fewer=False, **options):
    return convert_chips(folder, out, Event(EVENT, visits, fewer), **options)


def test_chips_become_patches(folder, tmp_path):
    made = convert(folder, tmp_path / "data/here", visits=2)
    assert made.bands == band_names(2) and (made.chips, made.landslides, made.labels) == (3, 2, "masks")
    refs = find_patches(tmp_path / "data", "here")
    assert [ref.number for ref in refs] == [1, 2, 3]
    for ref, (name, seed) in zip(refs, (("9", 1), ("10", 0), ("b7", 2)), strict=True):  # natural order
        values = dict(zip(VARIABLES, planes(seed, landslide=name != "9"), strict=True))
        image = dict(zip(made.bands, read_image(ref, Bands(file=made.bands)), strict=True))
        np.testing.assert_array_equal(image["vv_pre_1"], values["TS::vv::20180824"])
        np.testing.assert_array_equal(image["vh_pre_2"], values["TS::vh::20180812"])
        np.testing.assert_array_equal(image["vv_post_1"], values["TS::vv::20180913"])
        np.testing.assert_array_equal(image["vh_post_2"], values["TS::vh::20180925"])
        np.testing.assert_array_equal(read_mask(ref), np.nan_to_num(values["ST::landslides"]) > 0)


def test_the_manifest_leads_back(folder, tmp_path):
    convert(folder, tmp_path / "out")
    found = json.loads((tmp_path / "out/sar.json").read_text())
    assert found["bands"] == list(band_names(1)) and found["event"] == "2018-09-06"
    assert found["chips"][1] == {
        "id": 2,
        "chip": "10",
        "pre": ["2018-08-24"],
        "post": ["2018-09-13"],
        "landslide": pytest.approx(9 / 48),
        "bounds": list(BOUNDS.values()),
        "crs": "EPSG:32654",
    }


def test_points_become_a_table(folder, tmp_path):
    values = planes(landslide=False)
    values[-1, 1, 6] = 1
    write_chip(folder, "11", values)
    bare = planes(landslide=False)
    bare[-1, 1, 6] = bare[-1, 3, 6] = 1
    write_chip(folder, "12", bare, bounds=None)
    made = convert(folder, tmp_path / "out", points=True)
    assert made.labels == "points" and not (tmp_path / "out/mask").exists()
    lines = (tmp_path / "out/labels.csv").read_text().splitlines()
    assert lines[0] == "id,label,x,y" and lines[1] == "1,0,500040.0,4700030.0"  # chip 9: its middle
    assert lines[3] == "3,1,500065.0,4700045.0" and lines[4] == "4,1,6.5,2.5"
    assert labels_beside(find_patches(tmp_path, "out")) == {1: 0, 2: 1, 3: 1, 4: 1, 5: 1}


def test_chips_without_landslides_may_be_thinned_out(folder, tmp_path):
    for k in range(20, 28):
        write_chip(folder, str(k), planes(k, landslide=False))
    made = convert(folder, tmp_path / "half", positive_share=0.5, seed=1)
    assert (made.chips, made.landslides, made.dropped) == (4, 2, {"balance": 7})
    assert convert(folder, tmp_path / "none", positive_share=1.0).chips == 2
    names = [chip["chip"] for chip in json.loads((tmp_path / "half/sar.json").read_text())["chips"]]
    assert "10" in names and "b7" in names


def test_balance():
    some = [False, True, False, False, True, False, False]
    kept = balanced(some, 0.5, 0, "x")
    assert len(kept) == 4 and {1, 4} <= set(kept) and kept == sorted(kept) == balanced(some, 0.5, 0, "x")
    assert {tuple(balanced(some, 0.5, seed, "x")) for seed in range(9)} != {tuple(kept)}
    assert balanced(some, 0.1, 0, "x") == list(range(7))  # there are no more; a warning says so
    with pytest.raises(DataError, match="x: none of 2 chips holds a landslide"):
        balanced([False, False], 0.5, 0, "x")
    for share in (0.0, 1.5):
        with pytest.raises(ValueError, match="take a share above 0"):
            balanced(some, share, 0, "x")


def test_missing_passes(folder, tmp_path):
    with pytest.raises(DataError, match=r"chips/9 has 2 of 3 passes before 2018-09-06 \(2018-08-24, 2018-08-12; "):
        convert(folder, tmp_path / "out", visits=3)
    assert not list(tmp_path.glob("*out*"))
    made = convert(folder, tmp_path / "out", visits=3, fewer=True)
    ref = find_patches(tmp_path, "out")[0]
    image = dict(zip(made.bands, read_image(ref, Bands(file=made.bands)), strict=True))
    assert np.isnan(image["vv_pre_3"]).all() and not np.isnan(image["vv_pre_2"]).any()


def test_a_pass_without_values_is_none(folder, tmp_path):
    values = planes(3)
    values[VARIABLES.index("TS::vv::20180824")] = np.nan
    values[VARIABLES.index("TS::vv::20180913"), 0, 0] = -np.inf
    write_chip(folder, "11", values)
    made = convert(folder, tmp_path / "out")
    told = json.loads((tmp_path / "out/sar.json").read_text())["chips"][2]
    assert told["pre"] == ["2018-08-12"] and told["post"] == ["2018-09-13"]
    image = read_image(find_patches(tmp_path, "out")[2], Bands(file=made.bands))
    assert np.isnan(image[2, 0, 0]) and np.isnan(image).sum() == 1


def test_a_pass_counts_where_both_polarisations_cover_half_of_the_chip(folder, tmp_path):
    """The rule of cubes: each has enough pixels, but not the same ones; of the pass further away exactly half."""
    values = planes(3)
    values[VARIABLES.index("TS::vv::20180824"), :, :3] = np.nan
    values[VARIABLES.index("TS::vh::20180824"), :, -3:] = np.nan
    values[VARIABLES.index("TS::vv::20180812"), :, :4] = np.nan
    values[VARIABLES.index("TS::vv::20180913"), 1:] = np.nan  # a strip at the edge of the swath
    write_chip(folder, "11", values)
    convert(folder, tmp_path / "out")
    told = json.loads((tmp_path / "out/sar.json").read_text())["chips"][2]
    assert told["pre"] == ["2018-08-12"] and told["post"] == ["2018-09-25"]
    values[VARIABLES.index("TS::vv::20180925"), 1:] = np.nan
    write_chip(folder, "11", values)
    with pytest.raises(DataError, match=r"11 \(passes left out .* half of it: 3\) has 0 of 1 passes after 2018-09-06"):
        convert(folder, tmp_path / "none")


def test_pixels_that_no_pass_saw_are_not_labelled(folder, tmp_path):
    """On either side; the chip's landslides count where they were seen, points wherever they lie."""
    values = planes(3)
    values[VARIABLES.index("TS::vv::20180824"), 2] = np.nan
    values[VARIABLES.index("TS::vh::20180913"), 4] = np.nan
    write_chip(folder, "11", values)
    convert(folder, tmp_path / "out", positive_share=None)
    mask = read_mask(find_patches(tmp_path, "out")[2])
    assert (mask[[2, 4]] == 255).all() and mask[3].tolist() == [0, 1, 1, 1, 1, 0, 0, 0] and (mask[[0, 1, 5]] == 0).all()
    assert json.loads((tmp_path / "out/sar.json").read_text())["chips"][2]["landslide"] == pytest.approx(4 / 48)
    convert(folder, tmp_path / "two", visits=2, positive_share=None)  # the passes further away saw them
    assert (read_mask(find_patches(tmp_path, "two")[2]) != 255).all()
    values[VARIABLES.index("TS::vv::20180824"), 2:5, :6] = np.nan
    write_chip(folder, "11", values)
    made = convert(folder, tmp_path / "unseen", positive_share=1.0)
    assert made.chips == made.landslides == 2
    convert(folder, tmp_path / "points", points=True, positive_share=None)
    assert labels_beside(find_patches(tmp_path, "points")) == {1: 0, 2: 1, 3: 1, 4: 1}


def nothing(values):
    values[1:11] = np.nan
    return values


def negative(values):
    values[3, 2, 2] = -12.5
    return values


@pytest.mark.parametrize(
    ("values", "changes", "says"),
    [
        (nothing(planes()), {}, r"chips/x: none of its 5 passes has values of vv and vh in half of the pixels: take"),
        (negative(planes()), {}, r"chips/x has amplitudes down to -12.5: .*decibels"),
        (planes()[:, :5], {}, r"x\.npz has planes of \(5, 8\), but 9 of \(6, 8\)"),
        (planes()[:-1], {}, r"x\.npz has 12 planes, but its metadata name 13"),
        (planes()[:-1], {"variables": VARIABLES[:-1]}, "chips/x has no 'ST::landslides' among its 12 variables"),
        (planes(), {"variables": [*VARIABLES[:-1], VARIABLES[0]]}, "name 12 different ones in a list of 13"),
        (
            planes(),
            {"variables": [w.replace("vh::20180824", "vx::1") for w in VARIABLES]},
            "has no vh for its pass of 2018",
        ),
        (planes(), {"variables": [w.replace("20180824", "2018_8") for w in VARIABLES]}, "chips/x: '2018_8' is no date"),
        (planes(), {"variables": "TS::vv"}, "has no list `variables`"),
        (planes(), {"crs": 10**5000}, r"x\.npz have a crs that is neither a text nor an EPSG code"),
        (planes(), {"crs": True}, "have a crs that is neither"),
        (planes(), {"crs": ["EPSG", 32654]}, "have a crs that is neither"),
        (planes(), {"bounds": [1, 2, 3]}, "bounds that are not four numbers"),
        (planes(), {"bounds": [1, 2, 3, 10**400]}, "bounds that are not four numbers"),
        (planes(), {"bounds": dict.fromkeys("abcd", "1")}, "bounds that are not four numbers"),
        (planes()[0], {}, r"holds float32 of shape \(6, 8\); \(planes, H, W\) of numbers"),
        (planes().astype("U3"), {}, "holds <U3 of shape"),
        (np.array([object()]), {}, r"x\.npz cannot be read as an array `arr_0` of numbers \(Object arrays"),
    ],
)
def test_broken_chips_are_refused_by_name(folder, tmp_path, values, changes, says):
    write_chip(folder, "x", values, **changes)
    with pytest.raises(DataError, match=says):
        convert(folder, tmp_path / "out", visits=1)
    assert not list(tmp_path.glob("*out*"))


class Attack:
    def __reduce__(self):
        return os.system, ("touch ran",)


def test_attacks_are_refused_and_not_run(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (folder / "10.metadata.pkl").write_bytes(pickle.dumps({"variables": VARIABLES, "crs": Attack()}))
    with pytest.raises(DataError, match=r"10\.metadata\.pkl: it names 'posix system'"):
        convert(folder, tmp_path / "out")
    write_chip(folder, "10", planes())
    np.savez(folder / "10.npz", np.array([Attack()], object), allow_pickle=True)
    with pytest.raises(DataError, match=r"10\.npz cannot be read"):
        convert(folder, tmp_path / "out")
    (folder / "10.npz").write_bytes(pickle.dumps(Attack()))
    with pytest.raises(DataError, match=r"10\.npz cannot be read"):
        convert(folder, tmp_path / "out")
    assert not (tmp_path / "ran").exists()


def test_archives_that_unpack_to_too_much(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(upstream, "LARGEST", 1000)
    with pytest.raises(DataError, match=r"9\.npz unpacks to [\d,]+ bytes"):
        convert(folder, tmp_path / "out")


def test_files_that_do_not_belong_together(folder, tmp_path):
    (folder / "9.metadata.pkl").unlink()
    with pytest.raises(DataError, match=r"9\.npz has no 9\.metadata\.pkl beside it"):
        convert(folder, tmp_path / "out")
    (folder / "9.npz").unlink()
    (folder / "10.npz").unlink()
    with pytest.raises(DataError, match=r"10\.metadata\.pkl has no 10\.npz beside it"):
        convert(folder, tmp_path / "out")
    with pytest.raises(DataError, match="holds no <id>.npz"):
        convert(tmp_path, tmp_path / "out")
    with pytest.raises(DataError, match="does not exist"):
        convert(tmp_path / "none", tmp_path / "out")


def test_once_is_enough_and_nothing_is_overwritten(folder, tmp_path):
    first = convert(folder, tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    again = convert(folder, tmp_path / "out")
    assert again.dropped is None and (again.chips, again.landslides) == (first.chips, first.landslides)
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    with pytest.raises(DataError, match="was not made of these files with these options"):
        convert(folder, tmp_path / "out", visits=2)
    write_chip(folder, "12", planes())
    with pytest.raises(DataError, match="was not made of these files"):
        convert(folder, tmp_path / "out")


def test_what_lies_beside_is_nobodys_to_remove(folder, tmp_path):
    """A user's folder, and one that another process is filling."""
    (tmp_path / "out.part").mkdir()
    (tmp_path / "out.part/mine.txt").write_text("mine")
    convert(folder, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.glob("*out*")) == ["out", "out.part"]
    assert (tmp_path / "out.part/mine.txt").read_text() == "mine"
    (tmp_path / "plain").mkdir()
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "plain").stat().st_mode  # others may read it


def test_two_conversions_at_once_end_in_one(folder, tmp_path, monkeypatch):
    calls = []

    def meanwhile(point):
        calls.append(point)
        if len(calls) == 1:
            convert(folder, tmp_path / "out")

    monkeypatch.setattr(rundir, "reached", meanwhile)
    made = convert(folder, tmp_path / "out")
    assert len(calls) == 2 and (made.chips, made.landslides) == (3, 2)
    assert [path.name for path in tmp_path.glob("*out*")] == ["out"]


def test_what_a_killed_conversion_leaves_is_no_data(folder, tmp_path, monkeypatch):
    def stop(point):
        raise KeyboardInterrupt(point)

    root = tmp_path / "data"
    with monkeypatch.context() as patch:
        patch.setattr(rundir, "reached", stop)
        patch.setattr("l4s.files.shutil.rmtree", lambda *_, **__: None)  # a process that is killed clears nothing
        with pytest.raises(KeyboardInterrupt):
            convert(folder, root / "hokkaido")
    assert list(root.rglob("image_1.h5"))
    for split in ("hokkaido", "."):
        with pytest.raises(DataError):
            find_patches(root, split)
    convert(folder, root / "hokkaido")
    assert len(find_patches(root, "hokkaido")) == 3 and [path.name for path in root.iterdir()] == ["hokkaido"]


def test_the_folder_may_be_the_one_that_one_stands_in(folder, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert convert(folder, Path(".")).folder == tmp_path / "here"
    assert len(find_patches(tmp_path, "here")) == 3
    assert {path.name for path in tmp_path.iterdir()} == {"chips", "here"}


def test_an_interrupted_conversion_leaves_nothing(folder, tmp_path, monkeypatch):
    def stop(point):
        raise KeyboardInterrupt(point)

    monkeypatch.setattr(rundir, "reached", stop)
    with pytest.raises(KeyboardInterrupt, match="sar.manifest"):
        convert(folder, tmp_path / "out")
    assert not list(tmp_path.glob("*out*"))


def test_the_command(folder, tmp_path):
    words = ["data", "convert", "sar-chips", str(folder), str(tmp_path / "out"), "--event", "20180906"]
    shown = CliRunner().invoke(app, [*words, "--json"])
    assert shown.exit_code == 0, shown.output
    assert json.loads(shown.stdout)["bands"] == list(band_names(1))
    again = CliRunner().invoke(app, words)
    assert "3 chips, 2 with landslides, masks; nothing to do" in again.stdout and "vv_pre_1, vh_pre_1" in again.stdout
    wrong = CliRunner().invoke(app, [*words[:-1], "someday"])
    assert wrong.exit_code == 2 and "is no date" in wrong.output
    idle = CliRunner().invoke(app, [*words, "--keep-all", "--seed", "1"])
    assert idle.exit_code == 2 and "--keep-all draws nothing" in idle.output


def test_half_of_the_chips_have_landslides_unless_all_are_kept(folder, tmp_path):
    for k in range(20, 28):
        write_chip(folder, str(k), planes(k, landslide=False))
    words = ["data", "convert", "sar-chips", str(folder), str(tmp_path / "half"), "--event", "20180906", "--json"]
    half = json.loads(CliRunner().invoke(app, words).stdout)
    assert (half["chips"], half["landslides"], half["dropped"]) == (4, 2, {"balance": 7})
    words[4] = str(tmp_path / "all")
    every = json.loads(CliRunner().invoke(app, [*words, "--keep-all"]).stdout)
    assert (every["chips"], every["landslides"], every["dropped"]) == (11, 2, {})
