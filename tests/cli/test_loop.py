"""`l4s predict` on new images and `l4s ensemble` of several runs."""

import json
import shutil
from dataclasses import replace

import h5py
import numpy as np
import pytest
from data_factory import write_h5, write_split

from l4s.data.probs import open_probs
from l4s.plan import Choice, cells, find_ensemble, one_cell, read_plan
from l4s.rundir import RunDir, read_json


def values(path):
    return open_probs(path).read().astype(np.float64)


def predict(l4s, tiny, out, *more, images=None):
    folder = images or tiny / "data" / "ValidData"
    return l4s("predict", "--run", tiny / "run", "--images", folder, "--out", out, "--device", "cpu", *more)


@pytest.mark.parametrize(
    ("domain", "tta", "options"),
    [
        ("away", "d4", ()),
        ("away", "none", ("--tta", "none")),
        ("away-by-source", "none", ("--tta", "none", "--normalise", "source")),
    ],
)
def test_new_images_get_what_the_run_itself_predicts(l4s, tiny, tmp_path, domain, tta, options):
    shown = predict(l4s, tiny, tmp_path / "new.h5", *options)
    assert shown.exit_code == 0, shown.output
    assert shown.stdout.split() == [str(tmp_path / "new.h5")]
    made, own = open_probs(tmp_path / "new.h5"), tiny / "run/round-1/ensemble/probs" / f"{domain}.{tta}.h5"
    np.testing.assert_array_equal(values(made.path), values(own))
    assert (made.ids, made.domain, made.tta, made.member) == (open_probs(own).ids, "ValidData", tta, "ensemble")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.h5"]


def test_another_round_and_another_normalisation_are_other_values(l4s, tiny, tmp_path):
    for name, options in {"last": (), "first": ("--round", 0), "patch": ("--normalise", "patch")}.items():
        assert predict(l4s, tiny, tmp_path / f"{name}.h5", "--tta", "none", *options).exit_code == 0
    np.testing.assert_array_equal(
        values(tmp_path / "first.h5"), values(tiny / "run/round-0/ensemble/probs/away.none.h5")
    )
    assert (values(tmp_path / "last.h5") != values(tmp_path / "first.h5")).any()
    assert (values(tmp_path / "last.h5") != values(tmp_path / "patch.h5")).any()


def test_nothing_of_the_training_data_is_needed_and_nothing_is_written_into_the_run(l4s, tiny, tmp_path):
    place = tmp_path / "elsewhere"
    shutil.copytree(tiny / "run", place / "run")
    write_split(place / "data", "validation", range(3), seed=7)
    before = {path: path.stat().st_mtime_ns for path in (place / "run").rglob("*")}
    shown = predict(
        l4s, place, tmp_path / "a.h5", "--split", "validation", "--normalise", "source", images=place / "data"
    )
    assert shown.exit_code == 0, shown.output
    assert before == {path: path.stat().st_mtime_ns for path in (place / "run").rglob("*")}
    assert open_probs(tmp_path / "a.h5").shape == (3, 16, 16)


def test_the_same_again_is_kept_and_something_else_refused(l4s, tiny, tmp_path):
    out = tmp_path / "new.h5"
    assert predict(l4s, tiny, out).exit_code == 0
    made = out.stat().st_mtime_ns
    assert predict(l4s, tiny, out).exit_code == 0
    assert out.stat().st_mtime_ns == made
    refused = predict(l4s, tiny, out, "--tta", "none")
    assert refused.exit_code == 2
    assert f"error: {out} was made with another run, images or settings" in refused.stderr


def test_masks_beside_new_images_change_nothing(l4s, tiny, tmp_path):
    for name, masks in {"with": True, "without": False}.items():
        write_split(tmp_path / name, "test", [4, 5], masks=masks)
        done = predict(l4s, tiny, tmp_path / f"{name}.h5", images=tmp_path / name / "TestData/img")
        assert done.exit_code == 0, done.output
    np.testing.assert_array_equal(values(tmp_path / "with.h5"), values(tmp_path / "without.h5"))
    assert open_probs(tmp_path / "with.h5").domain == "TestData"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("predict --run RUN --images DIR", "--images needs --run"),
        ("predict --images DIR --out OUT", "--images needs --run"),
        ("predict tiny.toml --run RUN --images DIR --out OUT", "recipe: not read with --images"),
        ("predict --run RUN --images DIR --out OUT --set train.steps=1", "--set: not read with --images"),
        ("predict --run RUN --images DIR --out OUT --member a", "--member: not read with --images"),
        ("predict --out OUT", "--out: only new images read this"),
        ("predict --normalise source", "--normalise: only new images read this"),
        ("ensemble --runs RUN RUN", "--runs needs --out"),
        ("ensemble --runs RUN RUN --out OUT --data DIR", "--data: not read with --runs"),
        ("ensemble one.toml two.toml", "one recipe at a time"),
        ("ensemble --domain away", "--domain: only several runs read this"),
        ("predict --run RUN --images DIR --out OUT --normalise sauce", "'sauce', did you mean 'source'"),
        ("predict --run RUN --images DIR --out OUT --tta d5", "tta is 'd5'"),
        ("predict --run RUN --images DIR --out OUT --round 2", "has rounds 0 to 1"),
        ("predict --run DIR --images DIR --out OUT", "is no run directory"),
        ("predict --run RUN --images RUN --out OUT", "no patches of split '.'"),
        ("ensemble --runs RUN RUN --out OUT", "is named twice"),
        ("ensemble --runs RUN --out OUT --domain awy", "no domain 'awy', did you mean 'away'"),
        ("ensemble --runs RUN --out OUT --domain away-by-source", "only under none"),
    ],
)
def test_wrong_use_is_exit_code_2_and_makes_nothing(l4s, tiny, tmp_path, arguments, says):
    names = {"RUN": tiny / "run", "DIR": tiny / "data/ValidData", "OUT": tmp_path / "out.h5"}
    shown = l4s(*(names.get(word, word) for word in arguments.split()))
    assert shown.exit_code == 2
    assert says in " ".join(shown.stderr.replace("│", "").split())
    assert "Traceback" not in shown.output
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_is_not_finished_predicts_with_its_last_finished_round(l4s, tiny, tmp_path):
    shutil.copytree(tiny / "run", tmp_path / "run")
    (tmp_path / "run/round-1/b/done.json").unlink()
    arguments = ("--run", tmp_path / "run", "--images", tiny / "data/ValidData", "--device", "cpu", "--tta", "none")
    assert l4s("predict", *arguments, "--out", tmp_path / "new.h5").exit_code == 0
    np.testing.assert_array_equal(values(tmp_path / "new.h5"), values(tiny / "run/round-0/ensemble/probs/away.none.h5"))
    refused = l4s("predict", *arguments, "--out", tmp_path / "other.h5", "--round", 1)
    assert refused.exit_code == 2
    assert "round 1 lacks b; run `l4s train --round 1` first" in refused.stderr


def test_stored_moments_of_the_source_are_asked_for(l4s, tiny, tmp_path):
    shutil.copytree(tiny / "run", tmp_path / "run")
    stats = tmp_path / "run/stats/home.json"
    stored = read_json(stats)
    del stored["moments"]
    stats.write_text(json.dumps(stored))
    arguments = (
        "--run",
        tmp_path / "run",
        "--images",
        tiny / "data/ValidData",
        "--device",
        "cpu",
        "--out",
        tmp_path / "a.h5",
    )
    refused = l4s("predict", *arguments, "--normalise", "source")
    assert refused.exit_code == 2
    assert "holds no moments of the source" in refused.stderr


@pytest.mark.parametrize("spelling", [("--runs", "A", "B", "C"), ("--runs", "A", "--runs", "B", "--runs", "C")])
def test_ensembles_of_runs_are_averaged(l4s, tiny, tmp_path, spelling):
    runs = {}
    for name, shift in {"A": 0.0, "B": 0.25, "C": 0.5}.items():
        runs[name] = tmp_path / name
        shutil.copytree(tiny / "run", runs[name])
        path = runs[name] / "round-1/ensemble/probs/away.d4.h5"
        array = np.minimum(values(path) * (1 - shift) + shift, 1).astype(np.float16)
        with h5py.File(path, "r+") as file:
            file["values"][:] = array
    words = (runs.get(word, word) for word in spelling)
    shown = l4s("ensemble", *words, "--out", tmp_path / "mean.h5", "--domain", "away", "--tta", "d4", "--round", 1)
    assert shown.exit_code == 0, shown.output
    own = [values(run / "round-1/ensemble/probs/away.d4.h5") for run in runs.values()]
    np.testing.assert_allclose(values(tmp_path / "mean.h5"), sum(own) / 3, atol=5e-4)
    assert open_probs(tmp_path / "mean.h5").ids == open_probs(tiny / "run/round-1/ensemble/probs/away.d4.h5").ids


def test_runs_that_predicted_other_patches_are_not_averaged(l4s, tiny, tmp_path):
    shutil.copytree(tiny / "run", tmp_path / "run")
    path = tmp_path / "run/round-1/ensemble/probs/away.d4.h5"
    with h5py.File(path, "r+") as file:
        ids = file["ids"][:]
        ids[0] = b"9"
        file["ids"][:] = ids
    refused = l4s("ensemble", "--runs", tiny / "run", tmp_path / "run", "--out", tmp_path / "a.h5", "--domain", "away")
    assert refused.exit_code == 2
    assert "only one of them holds 1, 9" in refused.stderr


def test_the_ensemble_that_is_meant(tiny, tmp_path):
    shutil.copytree(tiny / "run", tmp_path / "run")
    plan = read_plan(one_cell(tmp_path / "run"))
    probs = "round-{}/ensemble/probs/{}.{}.h5"
    assert find_ensemble(plan, Choice("away")) == (1, plan.run.root / probs.format(1, "away", "d4"))
    assert find_ensemble(plan, Choice("away", "none", 0)) == (0, plan.run.root / probs.format(0, "away", "none"))
    assert find_ensemble(plan, Choice()) == (1, plan.run.root / probs.format(1, "away", "d4"))  # what [submit] names
    with pytest.raises(ValueError, match="several domains: name one of home, away, away-by-source, far"):
        find_ensemble(replace(plan, recipe=plan.recipe.model_copy(update={"submit": None})), Choice())
    (plan.run.root / probs.format(1, "away", "d4")).unlink()
    assert find_ensemble(plan, Choice("away"))[0] == 0
    assert find_ensemble(plan, Choice("away", "none"))[0] == 1


def test_cells_of_a_sweep(tiny, tmp_path):
    for name in ("lr1", "lr2"):
        shutil.copytree(tiny / "run", tmp_path / "sweep" / name)
    assert cells(tiny / "run") == {"": RunDir(tiny / "run")}
    assert {name: run.root for name, run in cells(tmp_path / "sweep").items()} == {
        name: tmp_path / "sweep" / name for name in ("lr1", "lr2")
    }
    with pytest.raises(ValueError, match="holds several runs: name one of .*lr1, .*lr2"):
        one_cell(tmp_path / "sweep")


def test_recipes_are_listed(l4s):
    from l4s.load import load_recipe, shipped

    listed = json.loads(l4s("recipes", "--json").stdout)
    assert tuple(listed) == shipped()
    assert listed["l4s-rgb"]["title"] == load_recipe("l4s-rgb").about.title
    shown = l4s("recipes").stdout
    assert all(name in shown and about["title"] in shown for name, about in listed.items())


def test_a_plain_folder_of_images_is_enough(l4s, tiny, tmp_path):
    write_h5(tmp_path / "flat/image_1.h5", "img", np.zeros((16, 16, 3)) + np.arange(3))
    shown = predict(l4s, tiny, tmp_path / "flat.h5", images=tmp_path / "flat")
    assert shown.exit_code == 0, shown.output
    assert open_probs(tmp_path / "flat.h5").domain == "flat"
