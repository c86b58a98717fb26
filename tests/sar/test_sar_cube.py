"""Zarr cubes cut into chips: where windows lie, which passes and which chips are taken, and which stores are not opened."""

import builtins
import json
import os
import pickle
import warnings
from datetime import date

import numpy as np
import pytest
from typer.testing import CliRunner

from l4s import log
from l4s.cli import app
from l4s.data.bands import Bands
from l4s.data.labels import labels_beside
from l4s.data.readers import find_patches, read_image, read_mask
from l4s.errors import DataError, RecipeError
from l4s.sar.cube import open_cube
from l4s.sar.cutting import Cutting, convert_cube
from l4s.sar.layout import band_names
from l4s.sar.passes import Event
from l4s.sar.store import check_store

xarray = pytest.importorskip("xarray")
EVENT = date(2018, 9, 6)
DAYS = ("2018-08-12", "2018-08-24", "2018-08-25", "2018-09-13", "2018-09-25")
ORBITS = ("d", "d", "a", "d", "a")
HEIGHT, WIDTH, SIZE = 50, 75, 8


def contents(seed=0):
    """VV and VH, (5, 50, 75) each, and landslides in the windows of 8 pixels at rows 8 and 32."""
    rng = np.random.default_rng(seed)
    vv, vh = (rng.gamma(4, scale, (5, HEIGHT, WIDTH)).astype(np.float32) for scale in (0.1, 0.05))
    landslides = np.full((HEIGHT, WIDTH), np.nan)
    landslides[9:12, 3:6], landslides[33:39, 40:50], landslides[49:, 74:] = 1, 2, 1
    return vv, vh, landslides


def write_cube(
    path, vv, vh, landslides, *, days=DAYS, orbits=ORBITS, up=False, zarr_format=2, drop=(), chunks=None, east=False
):
    rows = 4_700_000.0 - 10 * np.arange(HEIGHT) - 5
    cube = xarray.Dataset(
        {
            "vv": (("timestep", "y", "x"), vv),
            "vh": (("timestep", "y", "x"), vh),
            "landslides": (("y", "x"), landslides),
            "sat:orbit_state": ("timestep", np.array(orbits, object)),
            "dem": (("y", "x"), np.zeros((HEIGHT, WIDTH), np.float32)),
        },
        coords={
            "timestep": np.array(days, "M8[ns]") if "-" in str(days[0]) else np.array(days),
            "y": rows,
            "x": 500_000.0 + 10 * np.arange(WIDTH) + 5,
        },
    ).drop_vars(drop)
    cube = cube.isel(y=slice(None, None, -1)) if up else cube
    cube = cube.isel(x=slice(None, None, -1)) if east else cube
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        encoding = {name: {"chunks": shape} for name, shape in (chunks or {}).items()}
        cube.to_zarr(path, zarr_format=zarr_format, mode="w", encoding=encoding)
    return path


@pytest.fixture
def cube(tmp_path):
    return write_cube(tmp_path / "c.zarr", *contents())


def convert(cube, out, visits=1, fewer=False, **cutting):
    return convert_cube(cube, out, Event(EVENT, visits, fewer), Cutting(**{"size": SIZE, **cutting}))


def manifest(out):
    return json.loads((out / "sar.json").read_text())["chips"]


@pytest.mark.parametrize(
    "store", [{}, {"up": True}, {"east": True}, {"zarr_format": 3}, {"days": [d.replace("-", "") for d in DAYS]}]
)
def test_windows_become_patches(tmp_path, store):
    vv, vh, landslides = contents()
    cube = write_cube(tmp_path / "c.zarr", vv, vh, landslides, **store)
    made = convert(cube, tmp_path / "data/here", visits=2)
    assert made.bands == band_names(2) and made.labels == "masks"
    told = manifest(tmp_path / "data/here")
    assert (made.chips, made.landslides, made.dropped) == (6, 3, {"balance": 6 * 9 - 6})
    assert [(c["row"], c["column"]) for c in told if c["landslide"]] == [(8, 0), (32, 40), (32, 48)]
    assert told == sorted(told, key=lambda c: (c["row"], c["column"]))
    for ref, chip in zip(find_patches(tmp_path / "data", "here"), told, strict=True):
        here = np.s_[chip["row"] : chip["row"] + SIZE, chip["column"] : chip["column"] + SIZE]
        image = dict(zip(made.bands, read_image(ref, Bands(file=made.bands)), strict=True))
        for band, values in (("vv_pre_1", vv[2]), ("vh_pre_2", vh[1]), ("vv_post_1", vv[3]), ("vh_post_2", vh[4])):
            np.testing.assert_array_equal(image[band], values[here])
        np.testing.assert_array_equal(read_mask(ref), np.nan_to_num(landslides[here]) > 0)
        assert chip["pre"] == ["2018-08-25", "2018-08-24"] and chip["post"] == ["2018-09-13", "2018-09-25"]
        left, top = 500_000 + 10 * chip["column"], 4_700_000 - 10 * chip["row"]
        assert chip["bounds"] == [left, top - 10 * SIZE, left + 10 * SIZE, top]


@pytest.mark.slow
def test_the_share_of_chips_with_landslides_is_as_asked_and_seeded(cube, tmp_path):
    def places(out, **cutting):
        convert(cube, tmp_path / out, **cutting)
        return [(chip["row"], chip["column"]) for chip in manifest(tmp_path / out)]

    half = places("half")
    assert len(places("quarter", positive_share=0.25)) == 12 and len(places("all", positive_share=0.01)) == 54
    assert len(places("some", positive_share=1.0)) == 3
    assert len(places("every", positive_share=None)) == 54
    assert places("again") == half != places("other", seed=1)


def test_orbits_that_a_chip_mixes_are_told(cube, tmp_path, monkeypatch):
    """The nearest before is ascending, the nearest after descending; where the cube says nothing, nothing is said."""
    told = []
    monkeypatch.setattr(log, "warn", told.append)
    convert(cube, tmp_path / "out")
    assert all(chip["orbits"] == {"pre": ["a"], "post": ["d"]} for chip in manifest(tmp_path / "out"))
    (warning,) = told
    assert "c.zarr: 6 of 6 chips compare passes of different orbits" in warning and "--orbit a or --orbit d" in warning
    convert(cube, tmp_path / "d", orbit="d")
    assert all(chip["orbits"] == {"pre": ["d"], "post": ["d"]} for chip in manifest(tmp_path / "d"))
    none = write_cube(tmp_path / "n.zarr", *contents(), drop=["sat:orbit_state"])
    convert(none, tmp_path / "n")
    assert not any("orbits" in chip for chip in manifest(tmp_path / "n")) and len(told) == 1


def test_only_chips_that_mix_orbits_are_counted(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(log, "warn", told.append)
    vv, vh, landslides = contents()
    vv[2, :, :40] = np.nan  # in the western half the nearest before is descending, as the nearest after is
    convert(write_cube(tmp_path / "c.zarr", vv, vh, landslides), tmp_path / "out", positive_share=None)
    assert len(told) == 1 and "24 of 54 chips compare passes" in told[0]


@pytest.mark.slow
def test_orbits(cube, tmp_path):
    convert(cube, tmp_path / "d", orbit="d")
    assert {(*chip["pre"], *chip["post"]) for chip in manifest(tmp_path / "d")} == {("2018-08-24", "2018-09-13")}
    convert(cube, tmp_path / "a", orbit="a")
    assert {(*chip["pre"], *chip["post"]) for chip in manifest(tmp_path / "a")} == {("2018-08-25", "2018-09-25")}
    other = write_cube(tmp_path / "o.zarr", *contents(), orbits=["descending"] * 5)
    with pytest.raises(DataError, match="has no pass of orbit 'a': its sat:orbit_state are descending"):
        convert(other, tmp_path / "o", orbit="a")
    none = write_cube(tmp_path / "n.zarr", *contents(), drop=["sat:orbit_state"])
    with pytest.raises(DataError, match="has no sat:orbit_state over timestep"):
        convert(none, tmp_path / "n", orbit="a")


def test_points(cube, tmp_path):
    made = convert(cube, tmp_path / "out", points=True)
    assert made.labels == "points" and not (tmp_path / "out/mask").exists()
    labels = labels_beside(find_patches(tmp_path, "out"))
    assert labels == {chip["id"]: int(chip["landslide"] > 0) for chip in manifest(tmp_path / "out")}
    first = next(chip for chip in manifest(tmp_path / "out") if chip["landslide"])
    line = (tmp_path / "out/labels.csv").read_text().splitlines()[first["id"]]
    assert line == f"{first['id']},1,500045.0,4699895.0"  # the middle of columns 3 to 5 and rows 9 to 11


def test_passes_count_where_they_cover_half_a_window(tmp_path):
    vv, vh, landslides = contents()
    vv[2, :, :12] = np.nan  # the nearest before covers windows from column 8 on, that one by half
    vh[3:, :, 67:] = np.nan  # none after covers half of the last column of windows
    cube = write_cube(tmp_path / "c.zarr", vv, vh, landslides)
    made = convert(cube, tmp_path / "out", positive_share=0.01)
    told = manifest(tmp_path / "out")
    assert {tuple(chip["pre"]) for chip in told if chip["column"] == 0} == {("2018-08-24",)}
    assert {tuple(chip["pre"]) for chip in told if chip["column"] > 0} == {("2018-08-25",)}
    assert max(chip["column"] for chip in told) == 56 and made.dropped == {"no pass": 6}


def test_pixels_that_no_pass_saw_are_not_labelled(tmp_path):
    vv, vh, landslides = contents()
    vv[3:, 8:10, :8] = np.nan  # none after the event, on three of the nine landslide pixels of the window at row 8
    vh[2, 32:36, 40:48] = np.nan  # one of three before: the others saw it
    cube = write_cube(tmp_path / "c.zarr", vv, vh, landslides)
    convert(cube, tmp_path / "out", visits=2)
    told = {(chip["row"], chip["column"]): chip for chip in manifest(tmp_path / "out")}
    refs = {ref.number: ref for ref in find_patches(tmp_path, "out")}
    mask = read_mask(refs[told[8, 0]["id"]])
    assert (mask[:2] == 255).all() and (mask[2:] != 255).all()
    assert told[8, 0]["landslide"] == (mask == 1).mean() == 6 / 64
    assert (read_mask(refs[told[32, 40]["id"]]) != 255).all()
    points = convert(cube, tmp_path / "points", visits=2, points=True)
    assert points.landslides == 3 and sum(labels_beside(find_patches(tmp_path, "points")).values()) == 3


def test_a_window_whose_sides_saw_no_pixel_in_common_is_left_out(tmp_path):
    vv, vh, landslides = contents()
    vv[:3, :, :4] = vv[3:, :, 4:8] = np.nan
    cube = write_cube(tmp_path / "c.zarr", vv, vh, landslides)
    assert convert(cube, tmp_path / "out", positive_share=None).dropped == {"no pass": 6}


def test_missing_passes(cube, tmp_path):
    with pytest.raises(
        DataError, match=r"c\.zarr, chip at row 0, column 0, has 2 of 3 passes after 2018-09-06 \(2018-09-13"
    ):
        convert(cube, tmp_path / "out", visits=3)
    made = convert(cube, tmp_path / "out", visits=3, fewer=True)
    image = dict(zip(made.bands, read_image(find_patches(tmp_path, "out")[0], Bands(file=made.bands)), strict=True))
    assert np.isnan(image["vv_post_3"]).all() and not np.isnan(image["vv_pre_3"]).any()


@pytest.mark.parametrize(
    ("change", "store", "says"),
    [
        (None, {"drop": ["vh"]}, "vh over timestep, x, y is needed, it is missing"),
        (None, {"drop": ["landslides"]}, "landslides over x, y is needed, it is missing"),
        (None, {"drop": ["timestep"]}, "has no coordinate timestep"),
        (None, {"days": ["first", "b", "c", "d", "e"]}, "timestep: 'first' is no date"),
        (None, {"days": [*DAYS[:4], DAYS[3]]}, "chip at row 0, column 0, has two passes of 2018-09-13, .*--orbit a"),
        (lambda vv: np.where(vv > 0.5, -3, vv), {}, "has amplitudes down to -3"),
        (lambda vv: np.full_like(vv, np.nan), {}, "none of 0 chips holds a landslide"),
        (lambda vv: np.full(vv.shape, "a"), {}, "c.zarr: vv is <U"),
    ],
)
def test_cubes_that_cannot_be_cut(tmp_path, change, store, says):
    vv, vh, landslides = contents()
    cube = write_cube(tmp_path / "c.zarr", change(vv) if change else vv, vh, landslides, **store)
    with pytest.raises(DataError, match=says):
        convert(cube, tmp_path / "out")
    assert not list(tmp_path.glob("*out*"))


def test_settings_that_mean_nothing():
    with pytest.raises(RecipeError, match="size = 0"):
        Cutting(size=0)
    with pytest.raises(RecipeError, match="orbit = 'x'"):
        Cutting(orbit="x")


def test_once_is_enough(cube, tmp_path):
    assert convert(cube, tmp_path / "out").dropped
    assert convert(cube, tmp_path / "out").dropped is None
    with pytest.raises(DataError, match="was not made of these files with these options"):
        convert(cube, tmp_path / "out", seed=1)


class Attack:
    def __reduce__(self):
        return os.system, ("touch ran",)


def test_filters_that_unpickle_are_refused_before_anything_is_read(cube, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place = cube / "sat:orbit_state"
    (place / "0").write_bytes(pickle.dumps([Attack()]))
    array = json.loads((place / ".zarray").read_text()) | {
        "filters": [{"id": "pickle", "protocol": 5}],
        "compressor": None,
    }
    (place / ".zarray").write_text(json.dumps(array))
    with pytest.raises(DataError, match=r"\.zarray names the filter 'pickle', which is not known to be harmless"):
        convert(cube, tmp_path / "out")
    whole = json.loads((cube / ".zmetadata").read_text())
    whole["metadata"]["sat:orbit_state/.zarray"] = array
    (cube / ".zmetadata").write_text(json.dumps(whole))
    (place / ".zarray").unlink()
    with pytest.raises(DataError, match=r"\.zmetadata names the filter 'pickle'"):
        convert(cube, tmp_path / "out")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "codecs",
    [
        [{"name": "numcodecs.pickle"}],
        [
            {
                "name": "sharding_indexed",
                "configuration": {"codecs": [{"name": "evil"}], "index_codecs": [{"name": "bytes"}]},
            }
        ],
        ["evil"],
        [{"configuration": {}}],
        {"name": "evil"},
    ],
)
def test_codecs_of_the_third_format_are_looked_through(tmp_path, codecs):
    cube = write_cube(tmp_path / "c.zarr", *contents(), zarr_format=3)
    path = cube / "vv/zarr.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"codecs": codecs}))
    with pytest.raises(DataError, match=r"vv/zarr\.json names the filter"):
        convert(cube, tmp_path / "out")


@pytest.mark.parametrize("inside", ["x", "landslides/0.0"])
def test_links_lead_to_what_nobody_has_looked_at(cube, tmp_path, inside):
    """An array beside the store, whose filter unpickles, is linked in as one of its own; or a chunk is any file."""
    outside = tmp_path / "elsewhere"
    (cube / inside).rename(outside)
    (cube / inside).symlink_to(outside)
    with pytest.raises(DataError, match=f"{inside} is a link, which a store does not need; nothing was read"):
        check_store(cube)


@pytest.mark.parametrize("codec", [{"id": "zlib", "name": "numcodecs.pickle"}, {"name": "bytes", "id": "pickle"}])
def test_both_names_of_a_filter_count(tmp_path, codec):
    (tmp_path / "zarr.json").write_text(json.dumps({"zarr_format": 3, "node_type": "array", "codecs": [codec]}))
    with pytest.raises(DataError, match=r"names the filter '(numcodecs\.)?pickle'"):
        check_store(tmp_path)


def test_metadata_in_another_case_count(cube):
    array = json.loads((cube / "vv/.zarray").read_text())
    (cube / "vv/.ZARRAY").write_text(json.dumps(array | {"filters": [{"id": "pickle"}]}))
    with pytest.raises(DataError, match="names the filter 'pickle'"):
        check_store(cube)


def test_what_is_no_store(cube, tmp_path):
    with pytest.raises(DataError, match="is no folder: unpack the cube"):
        convert(tmp_path / "none.zarr", tmp_path / "out")
    (tmp_path / "empty.zarr").mkdir()
    with pytest.raises(DataError, match="is no Zarr store"):
        convert(tmp_path / "empty.zarr", tmp_path / "out")
    (cube / "vv/.zarray").write_text("[" * 100_000)
    with pytest.raises(DataError, match=r"vv/\.zarray is no JSON"):
        convert(cube, tmp_path / "out")


def test_a_cube_that_was_unpacked_in_part(tmp_path, monkeypatch):
    """A chunk that is missing reads as background: it is told, and a cube that has it since is another one."""
    told = []
    monkeypatch.setattr(log, "warn", told.append)
    cube = write_cube(tmp_path / "c.zarr", *contents(), chunks={"landslides": (25, 40)})
    [chunk] = (cube / "landslides").glob("1.1")
    chunk.rename(tmp_path / "later")
    half = convert(cube, tmp_path / "half", positive_share=None)
    assert half.landslides == 1
    assert any("c.zarr: 3 of 4 chunks of landslides do not exist and read as nan" in text for text in told)
    (tmp_path / "later").rename(chunk)
    with pytest.raises(DataError, match="was not made of these files with these options"):
        convert(cube, tmp_path / "half", positive_share=None)
    told.clear()
    assert convert(cube, tmp_path / "whole", positive_share=None).landslides == 3
    assert "2 of 4 chunks" in told[0]  # which hold no landslide, and were never written


@pytest.mark.parametrize(("store", "place"), [({}, "vh/0.0.0"), ({"zarr_format": 3}, "vh/c/0/0/0")])
@pytest.mark.parametrize(("kept", "told"), [(100, r"100 bytes of [0-9,]+"), (9, "9 bytes and no header")])
def test_a_chunk_that_is_cut_short(tmp_path, store, place, kept, told):
    """Blosc reads on beyond the end of one, and may take the process with it."""
    cube = write_cube(tmp_path / "c.zarr", *contents(), **store)
    if store:
        about = json.loads((cube / "vh/zarr.json").read_text())
        about["codecs"][-1] = {"name": "blosc", "configuration": {}}
        (cube / "vh/zarr.json").write_text(json.dumps(about))
        (cube / place).write_bytes(bytes(12) + (5000).to_bytes(4, "little") + bytes(100))
    chunk = cube / place
    chunk.write_bytes(chunk.read_bytes()[:kept])
    with pytest.raises(DataError, match=rf"{place} cannot be read: it is cut short, {told}: unpack the cube again"):
        convert(cube, tmp_path / "out")


def test_damaged_chunks(cube, tmp_path):
    about = json.loads((cube / ".zmetadata").read_text())
    array = about["metadata"]["vh/.zarray"] | {"compressor": {"id": "zlib", "level": 1}}
    about["metadata"]["vh/.zarray"] = array
    (cube / ".zmetadata").write_text(json.dumps(about))
    (cube / "vh/.zarray").write_text(json.dumps(array))
    with pytest.raises(DataError, match=r"c\.zarr: vh cannot be read .*unpack the cube again"):
        convert(cube, tmp_path / "out")


def test_the_extra_is_named_where_it_is_missing(cube, monkeypatch):
    found = builtins.__import__

    def without(name, *rest):
        if name == "xarray":
            raise ImportError(name)
        return found(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(DataError, match=r"cubes need the extra `sar`: pip install 'l4s\[sar\]'"):
        open_cube(cube)


def test_the_command(cube, tmp_path):
    words = ["data", "convert", "sar-cube", str(cube), str(tmp_path / "out"), "--event", "2018-09-06", "--size", "8"]
    shown = CliRunner().invoke(app, [*words, "--orbit", "d", "--positive-share", "0.25"])
    assert shown.exit_code == 0, shown.output
    assert "12 chips, 3 with landslides, masks; left out: 42 for balance" in shown.stdout
    refused = CliRunner().invoke(app, [*words, "--orbit", "d"])
    assert refused.exit_code == 2 and "was not made of these files" in refused.output
    words[4] = str(tmp_path / "all")
    every = CliRunner().invoke(app, [*words, "--keep-all"])
    assert "54 chips, 3 with landslides, masks" in every.stdout and "left out" not in every.stdout
