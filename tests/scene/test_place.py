"""Predictions of chips back on the map: there and back again."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scene_factory import write_scene
from torch import nn
from typer.testing import CliRunner

from l4s.cli import app
from l4s.data.bands import Bands
from l4s.data.domain import open_domain
from l4s.data.probs import CUT, write_probs
from l4s.engine import start_engine
from l4s.errors import DataError
from l4s.predict import View, predict
from l4s.recipe import DomainConfig
from l4s.scene.chip import Cut, cut_chips
from l4s.scene.manifest import read_manifest
from l4s.scene.place import place
from l4s.scene.raster import open_scene, read_tags, reading
from l4s.scene.result import encode, open_result

ONE = Bands(file=("b1",), terrain=(), rgb=("b1", "b1", "b1"))
ABOUT = {"member": "m", "fingerprint": "print", "domain": "d", "tta": "none"}


class Answers:
    """A task that says 0.5 everywhere."""

    kind, about = "probability", {}

    def probs(self, model, image):
        return torch.full_like(image[:, 0], 0.5)


def codes_of(path):
    scene = open_scene(path)
    with reading(scene) as reader:
        return reader.values(0, 0, scene.grid.height, scene.grid.width)[0]


def write_values(path, values, ids, kind="probability", **extra):
    values = np.asarray(values, np.float16)
    with write_probs(path, ids=ids, shape=values.shape, kind=kind, extra=extra, **ABOUT) as writer:
        writer.put(0, values)
    return path


def cut_codes(folder, codes, **options):
    """Chips of a scene whose one band is the codes; 255 is nodata."""
    write_scene(folder / "s.tif", codes[None].astype(np.uint8), ("b1",), nodata=255)
    return cut_chips(folder / "s.tif", None, folder / "chips", Cut(**options)).manifest


def windows(codes, manifest, ids=None):
    """What a model that gives the scene back would say: code / 254, anything where the scene has no value."""
    ids = list(manifest.chips) if ids is None else ids
    size, at = manifest.window, [manifest.chips[id] for id in ids]
    found = np.stack([codes[chip.row : chip.row + size, chip.column : chip.column + size] for chip in at])
    return np.where(found == 255, 77, found) / 254


@settings(max_examples=30)
@given(st.data())
def test_there_and_back(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("place")
    height, width = data.draw(st.integers(5, 14)), data.draw(st.integers(5, 14))
    window = data.draw(st.integers(1, 5))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    codes = rng.integers(0, 255, (height, width))
    codes[rng.random((height, width)) < 0.1] = 255
    stride = data.draw(st.integers(1, window))
    manifest = cut_codes(folder, codes, window=window, stride=stride, max_nodata=1.0)
    ids = rng.permutation(list(manifest.chips)).tolist()
    write_values(folder / "p.h5", windows(codes, manifest, ids), ids)
    place(folder / "p.h5", folder / "chips", folder / "out.tif")
    np.testing.assert_array_equal(codes_of(folder / "out.tif"), codes)


def test_what_is_written(tmp_path):
    codes = np.random.default_rng(0).integers(0, 255, (20, 24))
    codes[3:9, 5:20] = 255
    manifest = cut_codes(tmp_path, codes, window=8, stride=8)
    write_values(tmp_path / "p.h5", windows(codes, manifest), list(manifest.chips), kind="score")
    assert place(tmp_path / "p.h5", tmp_path / "chips/manifest.json", tmp_path / "out.tif") == tmp_path / "out.tif"
    result = open_result(tmp_path / "out.tif")
    assert (result.kind, result.step, result.scene.bands) == ("score", 1, ("probability",))
    assert result.scene.grid == open_scene(tmp_path / "s.tif").grid
    assert "54N" in result.scene.grid.crs
    tags = read_tags(tmp_path / "out.tif")
    assert (tags["L4S_RUN"], tags["L4S_KIND"], tags["L4S_STEP"]) == ("print", "score", "1")


def test_overlaps_are_averaged(tmp_path):
    manifest = cut_codes(tmp_path, np.zeros((4, 7)), window=4, stride=2)
    assert [chip.column for chip in manifest.chips.values()] == [0, 2, 3]
    values = np.array([0.25, 0.5, 1.0])[:, None, None] * np.ones((3, 4, 4))
    write_values(tmp_path / "p.h5", values, ["1", "2", "3"])
    place(tmp_path / "p.h5", tmp_path / "chips", tmp_path / "out.tif")
    wanted = np.array([0.25, 0.25, 0.375, (0.25 + 0.5 + 1) / 3, 0.75, 0.75, 1.0])
    np.testing.assert_array_equal(codes_of(tmp_path / "out.tif"), np.rint(wanted * 254)[None].repeat(4, 0))


def test_a_part_of_the_chips(tmp_path):
    """Test chips alone: the rest, and what lies between rows of chips, is nodata."""
    codes = np.random.default_rng(1).integers(0, 255, (40, 16))
    manifest = cut_codes(tmp_path, codes, window=4, stride=4, split="halves", gap=6)
    ids = [id for id, chip in manifest.chips.items() if chip.split == "test" and chip.row != 32]
    write_values(tmp_path / "p.h5", windows(codes, manifest, ids), ids)
    place(tmp_path / "p.h5", tmp_path / "chips", tmp_path / "out.tif")
    wanted = np.full((40, 16), 255)
    wanted[28:32], wanted[36:40] = codes[28:32], codes[36:40]
    np.testing.assert_array_equal(codes_of(tmp_path / "out.tif"), wanted)


def test_one_value_a_chip_is_a_pixel_of_a_stride(tmp_path):
    codes = np.zeros((10, 18))
    codes[:4, :4] = 255
    manifest = cut_codes(tmp_path, codes, window=4, stride=4)
    values = np.arange(1, 15) / 16
    write_values(tmp_path / "p.h5", values, list(manifest.chips))
    place(tmp_path / "p.h5", tmp_path / "chips", tmp_path / "out.tif")
    result = open_result(tmp_path / "out.tif")
    assert result.step == 4 and result.scene.grid.transform == (40.0, 0.0, 500_000.0, 0.0, -40.0, 4_700_000.0)
    wanted = np.concatenate([[255], np.rint(values * 254)]).reshape(3, 5)
    np.testing.assert_array_equal(codes_of(tmp_path / "out.tif"), wanted)


def test_encoding():
    np.testing.assert_array_equal(
        encode(np.array([0, 0.5, 1, np.nan, 0.0019, 0.002]), np.array([1, 1, 1, 0, 1, 1], bool)),
        [0, 127, 254, 255, 0, 1],
    )
    with pytest.raises(DataError, match="not a number somewhere"):
        encode(np.array([0.5, np.nan]), np.array([True, True]))


def test_what_does_not_fit(tmp_path):
    codes = np.zeros((8, 8))
    codes[0, 0] = 255
    manifest = cut_codes(tmp_path, codes, window=4, stride=4)

    def refused(says, values, ids=("1", "2")):
        with pytest.raises(DataError, match=says):
            place(write_values(tmp_path / "p.h5", values, ids), tmp_path / "chips", tmp_path / "out.tif")
        assert not (tmp_path / "out.tif").exists()

    refused("holds patch '9'", np.zeros((2, 4, 4)), ("1", "9"))
    refused(r"patches of \(5, 4\), where the chips of .* are \(4, 4\)", np.zeros((2, 5, 4)))
    manifest.image("1").unlink()
    refused("chip 1 is partly nodata, and .*image_1.h5, which says where, is missing", np.zeros((2, 4, 4)))
    there = tmp_path / "chips/manifest.json"
    for change, says in (
        ({"row": 5}, "chip '1' .* lies in no scene of 8 x 8"),
        ({"split": "../x"}, "chip '1' .* lies in no scene"),
        ({"row": "a"}, "no manifest"),
    ):
        told = json.loads(there.read_text())
        (tmp_path / "m.json").write_text(json.dumps(told | {"chips": {"1": told["chips"]["1"] | change}}))
        with pytest.raises(DataError, match=says):
            read_manifest(tmp_path / "m.json")
    for text in ("{}", "[", "[1]"):
        (tmp_path / "m.json").write_text(text)
        with pytest.raises(DataError, match="m.json is no manifest of `l4s data chip`"):
            read_manifest(tmp_path / "m.json")


def test_chips_of_another_cut_are_refused(tmp_path):
    """Their ids are the same numbers, and lie elsewhere."""
    codes = np.random.default_rng(0).integers(0, 255, (8, 8))
    one, other = (cut_codes(tmp_path / name, codes, window=4, stride=stride) for name, stride in (("a", 4), ("b", 2)))
    domain = open_domain("d", DomainConfig(role="eval", split="train"), ONE, one.folder, tmp_path / "cache")
    whole = np.ones((len(domain), 1), np.float32)
    view = View(domain, domain.predicted, whole, 0 * whole)
    about = {"member": "m", "fingerprint": "f", "batch": 2}
    probs = predict(start_engine("cpu", "fp32"), Answers(), [nn.Identity()], view, tmp_path / "p.h5", **about)
    assert probs.extra[CUT] == one.fingerprint != other.fingerprint
    place(probs.path, one.folder, tmp_path / "out.tif")
    with pytest.raises(DataError, match="p.h5 was predicted on chips of another cut than .*b/chips"):
        place(probs.path, other.folder, tmp_path / "no.tif")


def test_the_command(tmp_path):
    codes = np.random.default_rng(0).integers(0, 255, (8, 8))
    manifest = cut_codes(tmp_path, codes, window=4, stride=4)
    write_values(tmp_path / "p.h5", windows(codes, manifest), list(manifest.chips))
    paths = [str(tmp_path / name) for name in ("p.h5", "chips/manifest.json", "out.tif")]
    shown = CliRunner().invoke(app, ["scene", "place", *paths])
    assert shown.exit_code == 0 and shown.stdout.strip() == paths[-1]
    np.testing.assert_array_equal(codes_of(tmp_path / "out.tif"), codes)
