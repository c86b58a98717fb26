"""`l4s submit pack` and `check`."""

import json
import shutil
import zipfile

import h5py
import numpy as np
import pytest
from data_factory import write_h5

from l4s.data.probs import open_probs, write_probs
from l4s.masks import read_masks
from l4s.postprocess import to_mask
from l4s.thresholds import label_free


@pytest.fixture
def probs(tmp_path):
    values = np.random.default_rng(0).random((3, 8, 8)).astype(np.float16)
    about = {"member": "m", "fingerprint": "f", "domain": "d", "tta": "none", "kind": "probability"}
    with write_probs(tmp_path / "probs.h5", ids=("3", "20", "100"), shape=values.shape, **about) as writer:
        writer.put(0, values)
    return tmp_path / "probs.h5"


def check_masks(zip_, probs, threshold, min_area):
    found, file = read_masks(zip_), open_probs(probs)
    assert sorted(found) == sorted(file.ids)
    for index, id in enumerate(file.ids):
        np.testing.assert_array_equal(found[id], to_mask(file.patch(index), threshold, min_area))


@pytest.mark.parametrize(
    ("options", "threshold", "min_area"),
    [((), 0.5, 0), (("--threshold", 0.7), 0.7, 0), (("--threshold", 0.3, "--min-area", 4), 0.3, 4)],
)
def test_a_file_of_probabilities_is_packed(l4s, probs, tmp_path, options, threshold, min_area):
    out = tmp_path / "x.zip"
    shown = l4s("submit", "pack", probs, "--out", out, *options, "--json")
    assert shown.exit_code == 0, shown.output
    check_masks(out, probs, threshold, min_area)
    card = json.loads(shown.stdout)
    assert card == json.loads((tmp_path / "x.json").read_text())
    assert (card["threshold"], card["min_area"], card["patches"], card["facts"]) == (threshold, min_area, 3, {})


def test_masks_are_cut_where_the_expected_f1_is_highest(l4s, probs, tmp_path):
    shown = l4s("submit", "pack", probs, "--out", tmp_path / "x.zip", "--threshold", "expected_f1", "--json")
    assert shown.exit_code == 0, shown.output
    threshold = label_free(open_probs(probs).patches())["expected_f1"]
    assert json.loads(shown.stdout)["threshold"] == threshold < 0.5
    check_masks(tmp_path / "x.zip", probs, threshold, 0)


def test_masks_are_cut_where_the_held_out_source_was_best(l4s, tiny, tmp_path):
    shown = l4s("submit", "pack", tiny / "run", "--out", tmp_path / "x.zip", "--threshold", "heldout", "--json")
    assert shown.exit_code == 0, shown.output
    (row,) = [
        row
        for row in json.loads((tiny / "run/table.json").read_text())["rows"]
        if (row["round"], row["kind"], row["domain"], row["tta"]) == (1, "ensemble", "home", "d4")
    ]
    assert json.loads(shown.stdout)["threshold"] == row["oracle_threshold"]


def test_a_run_of_an_older_version_knows_no_threshold_of_its_held_out_source(l4s, tiny, tmp_path):
    shutil.copytree(tiny / "run", tmp_path / "run")
    (tmp_path / "run/round-1/ensemble/heldout.json").unlink()
    shown = l4s("submit", "pack", tmp_path / "run", "--out", tmp_path / "x.zip", "--threshold", "heldout")
    assert shown.exit_code == 2
    assert "`l4s ensemble " in shown.output and "--round 1` adds it" in " ".join(shown.output.split())


def test_a_run_gives_the_zip_that_it_ended_in(l4s, tiny, tmp_path):
    shown = l4s("submit", "pack", tiny / "run", "--out", tmp_path / "tiny-away.zip")
    assert shown.exit_code == 0, shown.output
    assert (tmp_path / "tiny-away.zip").read_bytes() == (tiny / "run/submission/tiny-away.zip").read_bytes()
    assert (tmp_path / "tiny-away.json").read_bytes() == (tiny / "run/submission/tiny-away.json").read_bytes()
    assert "tiny-away" in shown.stdout and "ensemble" in shown.stdout


def test_another_domain_round_and_threshold_of_a_run(l4s, tiny, tmp_path):
    options = ("--domain", "far", "--round", 0, "--tta", "none", "--threshold", 0.4, "--min-area", 0)
    shown = l4s("submit", "pack", tiny / "run", "--out", tmp_path / "x.zip", *options, "--json")
    assert shown.exit_code == 0, shown.output
    check_masks(tmp_path / "x.zip", tiny / "run/round-0/ensemble/probs/far.none.h5", 0.4, 0)
    facts = json.loads(shown.stdout)["facts"]
    assert {key: facts[key] for key in ("recipe", "run", "round")} == {"recipe": "tiny", "run": "run", "round": 0}
    assert facts["members"] == ["a", "b"]
    assert list(facts["local_scores"]) == ["home"]


def test_an_earlier_round_is_packed_with_a_warning(l4s, tiny, tmp_path):
    shutil.copytree(tiny / "run", tmp_path / "run")
    shutil.rmtree(tmp_path / "run/round-1/ensemble")
    shown = l4s("submit", "pack", tmp_path / "run", "--out", tmp_path / "x.zip", "--json")
    assert shown.exit_code == 0, shown.output
    assert json.loads(shown.stdout)["facts"]["round"] == 0
    check_masks(tmp_path / "x.zip", tiny / "run/round-0/ensemble/probs/away.d4.h5", 0.5, 2)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("PROBS --out x.zip --domain d", "can be chosen of a run only"),
        ("PROBS --out x.zip --threshold 1.0", "threshold is 1.0"),
        ("PROBS --out x.zip --threshold half", "threshold 'half' is neither a number nor expected_f1"),
        ("PROBS --out x.zip --threshold heldout", "does not know its held-out sources"),
        ("PROBS --out x.tar", "rename 'x.tar'"),
        ("RUN --out x.zip --domain way", "no domain 'way', did you mean 'away'"),
        ("nowhere --out x.zip", "nowhere does not exist"),
    ],
)
def test_what_cannot_be_packed(l4s, probs, tiny, tmp_path, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    names = {"PROBS": probs, "RUN": tiny / "run"}
    shown = l4s("submit", "pack", *(names.get(word, word) for word in arguments.split()))
    assert shown.exit_code == 2
    assert says in shown.stderr
    assert list(tmp_path.iterdir()) == [probs]


def test_a_sound_zip_is_proven(l4s, probs, tmp_path):
    l4s("submit", "pack", probs, "--out", tmp_path / "x.zip")
    for number in (3, 20, 100):
        write_h5(tmp_path / f"data/TestData/img/image_{number}.h5", "img", np.zeros((8, 8, 3)))
    for ids in (
        ("--ids-from", probs),
        ("--images", tmp_path / "data/TestData/img"),
        ("--images", tmp_path / "data/TestData"),
    ):
        shown = l4s("submit", "check", tmp_path / "x.zip", *ids, "--json")
        assert shown.exit_code == 0, shown.output
        report = json.loads(shown.stdout)
        share = np.mean([mask.mean() for mask in read_masks(tmp_path / "x.zip").values()])
        assert report == {
            "ok": True,
            "errors": [],
            "patches": 3,
            "positive_share": pytest.approx(share),
            "warnings": [f"{share:.1%} of all pixels are positive, where the competition's training masks have 2 %"],
        }


def test_ids_that_nobody_gave_are_not_proven(l4s, probs, tmp_path):
    l4s("submit", "pack", probs, "--out", tmp_path / "x.zip")
    shown = l4s("submit", "check", tmp_path / "x.zip", "--shape", "any")
    assert shown.exit_code == 0
    assert "whether every image has its mask is not proven" in shown.stdout


@pytest.mark.parametrize("json_", [(), ("--json",)])
def test_errors_are_exit_code_1(l4s, probs, tmp_path, json_):
    l4s("submit", "pack", probs, "--out", tmp_path / "x.zip")
    write_h5(tmp_path / "img/image_3.h5", "img", np.zeros((8, 8, 3)))
    write_h5(tmp_path / "img/image_4.h5", "img", np.zeros((8, 8, 3)))
    shown = l4s("submit", "check", tmp_path / "x.zip", "--images", tmp_path / "img", "--shape", "128x128", *json_)
    assert shown.exit_code == 1
    assert "1 of 2 masks missing: mask_4.h5" in shown.stdout
    assert "2 masks of no image: mask_20.h5, mask_100.h5" in shown.stdout
    assert "shape is (8, 8), not (128, 128)" in shown.stdout


def test_masks_have_the_size_of_their_images_and_without_images_that_of_the_competition(l4s, probs, tmp_path):
    l4s("submit", "pack", probs, "--out", tmp_path / "x.zip")
    for number in (3, 20, 100):
        write_h5(tmp_path / f"img/image_{number}.h5", "img", np.zeros((14, 16, 8)))
    shown = l4s("submit", "check", tmp_path / "x.zip", "--images", tmp_path / "img", "--json")
    assert json.loads(shown.stdout)["errors"] == ["shape is (8, 8), not (14, 16): mask_3.h5, mask_20.h5, mask_100.h5"]
    shown = l4s("submit", "check", tmp_path / "x.zip", "--json")
    assert shown.exit_code == 1
    assert "not (128, 128)" in json.loads(shown.stdout)["errors"][0]


def test_a_zip_that_is_none_is_exit_code_1(l4s, tmp_path):
    (tmp_path / "x.zip").write_bytes(b"PK nothing")
    shown = l4s("submit", "check", tmp_path / "x.zip")
    assert shown.exit_code == 1
    assert "not a readable zip" in shown.stdout
    with zipfile.ZipFile(tmp_path / "y.zip", "w") as archive:
        archive.writestr("folder/mask_1.h5", b"")
    assert l4s("submit", "check", tmp_path / "y.zip", "--shape", "any").exit_code == 1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--shape", "8"), "'8' is not height x width"),
        (("--shape", "8xa"), "'8xa' is not height x width"),
        (("--ids-from", "PROBS", "--images", "."), "not both"),
        (("--images", "."), "no patches of split '.'"),
    ],
)
def test_wrong_use_is_exit_code_2(l4s, probs, tmp_path, monkeypatch, options, says):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    shown = l4s("submit", "check", tmp_path / "x.zip", *(probs if word == "PROBS" else word for word in options))
    assert shown.exit_code == 2
    assert says in shown.stderr


def test_equal_probabilities_are_equal_zips(l4s, probs, tmp_path):
    copy = tmp_path / "copy.h5"
    shutil.copy(probs, copy)
    with h5py.File(copy, "r+") as file:
        file.flush()
    for path in (probs, copy):
        l4s("submit", "pack", path, "--out", tmp_path / path.stem / "x.zip")
    assert (tmp_path / "probs/x.zip").read_bytes() == (tmp_path / "copy/x.zip").read_bytes()
