"""`l4s predict` on new images and `l4s ensemble` of several runs."""

import json
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from data_factory import RECIPE, write_data, write_h5, write_split

from l4s.data.probs import open_probs
from l4s.files import read_json
from l4s.plan import Choice, cells, find_ensemble, one_cell, read_plan
from l4s.rundir import RunDir, command


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
        ("predict --run RUN --images DIR --out OUT --like awy", "like is 'awy', did you mean 'away'"),
        ("predict --like away", "only new images read this"),
        ("predict --run RUN --images DIR --out new.txt", "new.txt does not end in .h5"),
        ("ensemble --runs RUN --out both.txt", "both.txt does not end in .h5"),
        ("predict --run RUN --images nowhere --out OUT", "error: nowhere does not exist"),
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


def changed(tiny, folder, domains):
    """A copy of the run whose config says something else of its domains."""
    shutil.copytree(tiny / "run", folder / "run")
    config = read_json(folder / "run" / "config.json")
    for name, keys in domains.items():
        config["domain"][name].update(keys)
    (folder / "run" / "config.json").write_text(json.dumps(config))
    return folder


def test_new_images_are_normalised_as_the_domains_that_were_learnt_from(l4s, tiny, tmp_path):
    every = {name: {"normalise": "imagenet"} for name in ("home", "away", "far")}
    own, asked = (tmp_path / name for name in ("own.h5", "asked.h5"))
    images = tiny / "data" / "ValidData"
    shown = predict(l4s, changed(tiny, tmp_path / "a", every), own, images=images)
    assert shown.exit_code == 0, shown.output
    assert predict(l4s, tiny, asked, "--normalise", "imagenet").exit_code == 0
    np.testing.assert_array_equal(values(own), values(asked))
    several = changed(tiny, tmp_path / "b", {"away": {"normalise": "imagenet"}})
    shown = predict(l4s, several, tmp_path / "no.h5", images=images)
    assert shown.exit_code == 2 and "normalised in several ways (imagenet, separated)" in " ".join(shown.stderr.split())


def test_new_images_are_read_like_the_domain_that_is_named(l4s, tiny, tmp_path):
    """Their files have the bands in another order, as those of that domain do."""
    turned = changed(tiny, tmp_path / "run", {"away": {"bands": ["b2", "b3", "b4"]}})
    for path in (tiny / "data" / "ValidData" / "img").iterdir():
        with h5py.File(path) as file:
            write_h5(tmp_path / "new" / "img" / path.name, "img", file["img"][:][..., ::-1])
    shown = predict(l4s, turned, tmp_path / "new.h5", "--like", "away", images=tmp_path / "new")
    assert shown.exit_code == 0, shown.output
    assert predict(l4s, tiny, tmp_path / "old.h5").exit_code == 0
    np.testing.assert_array_equal(values(tmp_path / "new.h5"), values(tmp_path / "old.h5"))


def test_regions_of_the_source_are_not_asked_of_new_images(l4s, tiny, tmp_path):
    by_region = {"regions": {"here": [1, 8]}, "subdomains": {"by": "region"}}
    shown = predict(
        l4s, changed(tiny, tmp_path / "run", {"home": by_region}), tmp_path / "new.h5", images=tiny / "data/ValidData"
    )
    assert shown.exit_code == 0, shown.output


def test_sub_domains_of_new_images_are_found_where_they_are_asked_for(l4s, tiny, tmp_path):
    run = changed(tiny, tmp_path / "run", {"away": {"subdomains": {"by": "cluster", "k": 2}}})
    images = tiny / "data" / "ValidData"
    shown = predict(l4s, run, tmp_path / "one.h5", images=images)
    assert shown.exit_code == 0 and "--like away finds sub-domains in them as well" in " ".join(shown.stderr.split())
    shown = predict(l4s, run, tmp_path / "two.h5", "--like", "away", images=images)
    assert shown.exit_code == 0 and "--like" not in shown.stderr
    assert (values(tmp_path / "one.h5") != values(tmp_path / "two.h5")).any()


def test_a_run_that_is_not_finished_predicts_with_its_last_finished_round(l4s, tiny, tmp_path):
    shutil.copytree(tiny / "run", tmp_path / "run")
    (tmp_path / "run/round-1/b/done.json").unlink()
    arguments = ("--run", tmp_path / "run", "--images", tiny / "data/ValidData", "--device", "cpu", "--tta", "none")
    assert l4s("predict", *arguments, "--out", tmp_path / "new.h5").exit_code == 0
    np.testing.assert_array_equal(values(tmp_path / "new.h5"), values(tiny / "run/round-0/ensemble/probs/away.none.h5"))
    refused = l4s("predict", *arguments, "--out", tmp_path / "other.h5", "--round", 1)
    assert refused.exit_code == 2
    run = tmp_path / "run"
    assert f"round 1 lacks b; run `l4s train {run} --round 1` first" in refused.stderr


@pytest.mark.parametrize("cell", ["", "seed1"])
def test_a_command_in_an_error_works_as_it_stands(l4s, tmp_path, monkeypatch, cell):
    """A recipe may have no name of its own, and is called after its file: the copy in a run's folder is called otherwise."""
    monkeypatch.chdir(tmp_path)
    write_data(Path("data"))
    text = RECIPE.replace('name = "tiny"', "") + ("[sweep]\n'member.a.seed' = [0, 1]\n" if cell else "")
    Path("mine.toml").write_text(text)
    started = [
        "train",
        "mine.toml",
        "--data",
        "data",
        "--set",
        "train.steps=1",
        "--set",
        "train.evaluate_every=1",
        "--round",
        "0",
    ]
    assert l4s(*started).exit_code == 0
    words = shlex.split(command(Path("runs/mine") / cell, "predict", "--round", 0).strip("`"))
    shown = l4s(*words[1:])
    assert shown.exit_code == 0, shown.stderr
    assert (Path("runs/mine") / cell / "round-0/a/probs/away.none.h5").is_file()


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
    assert "Zhao" not in shown  # papers and their numbers stand in the recipe


def test_a_shipped_recipe_is_printed_as_it_is_written(l4s, tmp_path):
    from l4s.load import find_recipe, load_recipe

    text = l4s("recipes", "l4s-rgb").stdout
    assert text == find_recipe("l4s-rgb").read_text()
    (tmp_path / "mine.toml").write_text(text)
    assert load_recipe(tmp_path / "mine.toml").about == load_recipe("l4s-rgb").about
    assert list(json.loads(l4s("recipes", "l4s-rgb", "--json").stdout)) == ["l4s-rgb"]
    refused = l4s("recipes", "l4s-rbg")
    assert refused.exit_code == 2 and "did you mean 'l4s-rgb'" in refused.stderr


def test_a_plain_folder_of_images_is_enough(l4s, tiny, tmp_path):
    write_h5(tmp_path / "flat/image_1.h5", "img", np.zeros((16, 16, 3)) + np.arange(3))
    shown = predict(l4s, tiny, tmp_path / "flat.h5", images=tmp_path / "flat")
    assert shown.exit_code == 0, shown.output
    assert open_probs(tmp_path / "flat.h5").domain == "flat"
