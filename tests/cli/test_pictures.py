"""Commands on folders of pictures: generate, split, statistics, classes, and the check."""

import json

import pytest
from data_factory import write_data
from picture_factory import write_bijie, write_hokkaido


@pytest.fixture
def bijie(tmp_path):
    return write_bijie(tmp_path / "Bijie-landslide-dataset", 10, 10)


def test_pictures_are_generated(l4s, tmp_path):
    made = l4s("data", "synth", tmp_path / "b", "--kind", "bijie", "--landslide", 1, "--non-landslide", 1, "--json")
    assert made.exit_code == 0, made.output
    assert json.loads(made.stdout)["landslide"]["patches"] == 1
    made = l4s("data", "synth", tmp_path / "h", "--kind", "hokkaido", "--train", 1, "--validation", 0, "--test", 1)
    assert made.exit_code == 0, made.output
    assert "train" in made.stdout and " px" in made.stdout
    assert (tmp_path / "h" / "train" / "dem" / "001.tif").is_file()


@pytest.mark.parametrize(
    ("kind", "option"),
    [("bijie", "--train"), ("hokkaido", "--landslide"), ("hokkaido", "--size"), ("patches", "--non-landslide")],
)
def test_options_of_other_kinds_have_no_effect(l4s, tmp_path, kind, option):
    told = l4s("data", "synth", tmp_path / "x", "--kind", kind, option, 20)
    assert told.exit_code == 2 and f"{option} has no effect with --kind {kind}" in told.output
    assert not (tmp_path / "x").exists()


def test_a_split_is_drawn_once(l4s, bijie):
    shown = l4s("data", "split", bijie)
    assert shown.exit_code == 0, shown.output
    assert "train" in shown.stdout and "14" in shown.stdout
    before = (bijie / "splits" / "train.txt").read_text()
    assert len(before.splitlines()) == 14
    assert l4s("data", "split", bijie).exit_code == 0
    told = l4s("data", "split", bijie, "--seed", 1)
    assert told.exit_code == 2 and "lists other patches" in told.output
    assert (bijie / "splits" / "train.txt").read_text() == before


def test_shares_of_a_split(l4s, bijie):
    shown = l4s("data", "split", bijie, "--shares", "50,0,50", "--json")
    assert {name: len(ids) for name, ids in json.loads(shown.stdout).items()} == {
        "train": 10,
        "validation": 0,
        "test": 10,
    }
    for shares, says in (("a,b", "no list of whole numbers"), ("50,50", "give three numbers")):
        told = l4s("data", "split", bijie, "--shares", shares)
        assert told.exit_code == 2 and says in told.output


def test_only_bijie_comes_without_splits(l4s, tmp_path):
    told = l4s("data", "split", write_hokkaido(tmp_path))
    assert told.exit_code == 2 and "no data set in the layout 'bijie'" in told.output


def test_statistics_of_pictures(l4s, bijie, tmp_path):
    shown = l4s("data", "stats", bijie, "--json")
    assert shown.exit_code == 0, shown.output
    rows = json.loads(shown.stdout)
    assert [row["name"] for row in rows] == ["train", "validation", "test"]
    assert rows[0]["bands"] == ["r", "g", "b", "dem"] and rows[0]["labelled"] == rows[0]["patches"] == 14
    assert "name them with --bands" in shown.stderr
    hokkaido = write_hokkaido(tmp_path / "h", masks=False)
    shown = l4s("data", "stats", hokkaido, "--bands", "b2,b3,b4,dem", "--json")
    assert json.loads(shown.stdout)[0]["bands"] == ["b2", "b3", "b4", "dem"]
    assert json.loads(shown.stdout)[0]["labelled"] == 0


@pytest.mark.parametrize("command", ["stats", "classes"])
def test_a_split_without_pictures_is_left_out(l4s, bijie, command, tmp_path):
    assert l4s("data", "split", bijie, "--shares", "80,0,20").exit_code == 0
    for folder in (bijie, write_bijie(tmp_path / "few", 3, 0)):
        shown = l4s("data", command, folder, "--json")
        assert shown.exit_code == 0, shown.output
        assert [row["name"] for row in json.loads(shown.stdout)] == ["train", "test"]
    told = l4s("data", command, bijie, "--split", "validation")
    assert told.exit_code == 2 and "validation.txt lists none" in told.stderr


def test_classes_of_pictures(l4s, bijie, tmp_path):
    shown = l4s("data", "classes", bijie, "--split", ".", "--picture", tmp_path / "classes.png", "--json")
    assert shown.exit_code == 0, shown.output
    (row,) = json.loads(shown.stdout)
    assert row["patches"] == 20 and row["empty"] == 10 and row["landslide"] > 0
    assert (tmp_path / "classes.png").stat().st_size > 1000


def test_the_check_looks_at_pictures(l4s, bijie, tmp_path):
    shown = l4s("data", "check", bijie)
    assert shown.exit_code == 0, shown.output
    assert "train (train)" in shown.stdout and "looked at 20 pictures, 10 masks of pictures, 20 DEMs" in shown.stdout
    assert "drawn split: no lists lie in splits/: 70/10/20 by class, seed 0" in shown.stdout
    (bijie / "landslide" / "image" / "p4.png").write_bytes(b"no picture")
    shown = l4s("data", "check", bijie, "--json")
    assert shown.exit_code == 1
    (error,) = [each for each in json.loads(shown.stdout)["findings"] if each["severity"] == "error"]
    assert error["kind"] == "refused by the reader" and "landslide/image/p4.png" in error["files"]
    shown = l4s("data", "check", write_data(tmp_path / "hdf5"))
    assert shown.exit_code == 0 and "image_N.h5" in shown.stdout
