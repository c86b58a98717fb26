"""The steps of a run: what each depends on, what it takes over, and what it refuses to build on."""

import dataclasses
import json
import os
import re
import shutil
from collections import Counter

import h5py
import numpy as np
import pytest
from data_factory import RECIPE, write_data, write_recipe, write_split
from safetensors.torch import load_file
from sklearn.metrics import f1_score

from l4s import fit, rundir
from l4s.data.probs import open_probs
from l4s.errors import RecipeError, RunError
from l4s.experiment import Experiment, weights
from l4s.files import read_json
from l4s.pipeline import predict_round, run_recipe, train_round
from l4s.pseudo import open_pseudo
from l4s.rundir import RunDir, command
from l4s.session import Machine, open_session
from l4s.steps import run_ensemble, run_pseudo, run_submit
from l4s.submit import read_card

UPPER, LOWER = 0.55, 0.5455  # on either side of the middle of what one step of training predicts
AWAY = {"seed": 1, "gain": 4.0, "offset": 20.0}  # as data_factory.write_data has it
UNET = "member.a.model={name='unet',encoder='resnet18',weights='%s'}"
QUICK = (
    f"pseudo.upper={UPPER}",
    f"pseudo.lower={LOWER}",
    "train.steps=1",
    "train.evaluate_every=1",
    "predict.tta=['none']",
    "member.b.train.start=restart",
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("steps")
    write_data(place / "data")
    return place


@pytest.fixture(autouse=True)
def no_intervals(monkeypatch):
    monkeypatch.setattr("l4s.score.bootstrap_f1", lambda *counts_seed_draws: (0.0, 1.0))  # tested elsewhere


@pytest.fixture(scope="module")
def finished(place):
    """A run that is through, for tests that only read it."""
    x = opened(place, place / "finished" / "run")
    run_recipe(x)
    return x


def opened(place, root, *sets, lines=(), data=None, text=RECIPE):
    recipe = write_recipe(place / "tiny.toml", *lines, text=text)
    machine = Machine("cpu", "fp32", cache=place / "cache")
    (x,) = open_session(str(recipe), [*QUICK, *sets], data or place / "data", root, machine)
    return x


def member(x, name):
    return next(each for each in x.members if each.name == name)


def count(monkeypatch):
    calls = Counter()
    monkeypatch.setattr(rundir, "reached", lambda point: calls.update([point]))
    return calls


# --- fingerprints

UNREAD = [
    ["rounds=3"],
    ["rounds=0"],
    ["pseudo.upper=0.9"],
    ["predict.tta=['none', 'flip']"],
    ["predict.batch=5"],
    ["ensemble.weights={ a = 1, b = 2 }"],
    ["submit.threshold=0.6"],
    ["member.c.model.name=baseline"],
    ["member.b.seed=7"],
    ["domain.more.role=eval", "domain.more.split=validation"],
    ["domain.away.split=train"],
    ["train.target_weight=0.5"],  # of rounds that have targets
    ["member.a.train.target_share=0.25"],
    ["about.title=x"],
    ["name=other"],
]
READ = [
    ["train.steps=2"],
    ["member.a.seed=7"],
    ["member.a.model.width=6"],
    ["train.loss=[{ name = 'bce' }]"],
    ["train.optimiser.lr=1e-4"],
    ["member.a.train.optimiser.amsgrad=true"],
    ["train.augment.gain=0.2"],
    ["normalise=official"],
    ["domain.home.holdout.ranges=[[8, 8]]"],
    ["domain.home.positive=[2]", "domain.home.ignore=[1]"],
    ["domain.home.share_stats=[['b4', 'b3']]"],
    ["bands.use=['b3', 'b4', 'b2']"],
]


@pytest.mark.parametrize("sets", UNREAD, ids=str)
def test_round_0_does_not_depend_on(place, tmp_path, finished, sets):
    x = opened(place, tmp_path / "run", *sets)
    assert x.fit_key(member(x, "a"), 0) == finished.fit_key(member(finished, "a"), 0)


@pytest.mark.parametrize("sets", READ, ids=str)
def test_round_0_depends_on(place, tmp_path, finished, sets):
    x = opened(place, tmp_path / "run", *sets)
    assert x.fit_key(member(x, "a"), 0) != finished.fit_key(member(finished, "a"), 0)


def test_round_0_depends_on_what_the_files_hold_and_not_on_where_they_lie(place, tmp_path, finished):
    key = finished.fit_key(member(finished, "a"), 0)
    x = opened(place, tmp_path / "run", data=write_data(tmp_path / "elsewhere"))
    assert x.fit_key(member(x, "a"), 0) == key
    write_split(tmp_path / "elsewhere", "train", [3], seed=99)
    x = opened(place, tmp_path / "run", data=tmp_path / "elsewhere")
    assert x.fit_key(member(x, "a"), 0) != key


@pytest.mark.parametrize(
    ("sets", "same"),
    [
        (["rounds=3"], True),
        (["submit.threshold=0.6"], True),
        (["domain.more.role=eval", "domain.more.split=validation"], True),
        (["pseudo.upper=0.9"], False),
        (["train.target_weight=0.5"], False),
        (["member.b.seed=7"], False),  # it labels too
        (["ensemble.weights={ a = 1, b = 2 }"], False),
    ],
    ids=str,
)
def test_round_1_depends_on_its_labels(place, tmp_path, finished, sets, same):
    x = opened(place, tmp_path / "run", *sets)
    assert (x.fit_key(member(x, "a"), 1) == finished.fit_key(member(finished, "a"), 1)) is same


def test_fingerprints_of_many_rounds_take_no_time(place, tmp_path, monkeypatch):
    """Each round's fingerprint holds those of all members of the round before: without memory that is 2 ** 30 calls."""
    x = opened(place, tmp_path / "run", "rounds=30")
    calls = Counter()
    describe = Experiment.describe
    monkeypatch.setattr(Experiment, "describe", lambda *each: calls.update(["describe"]) or describe(*each))
    keys = {x.fit_key(each, number) for number in range(31) for each in x.members}
    assert len(keys) == 62 and calls["describe"] < 62 * 10


def test_more_rounds_redo_nothing(place, tmp_path, monkeypatch):
    run_recipe(opened(place, tmp_path / "run", "rounds=0"))
    calls = count(monkeypatch)
    run_recipe(opened(place, tmp_path / "run"))
    assert calls["fit.step"] == 2 and calls["fit.done"] == 2


def test_another_member_redoes_no_training(place, tmp_path, monkeypatch):
    run_recipe(opened(place, tmp_path / "run", "rounds=0"))
    (tmp_path / "run" / "round-0" / "ensemble" / "probs" / "away.none.h5").unlink()
    (tmp_path / "run" / "round-0" / "ensemble" / "probs" / "home.none.h5").unlink()
    calls = count(monkeypatch)
    more = ["[member.c]", "model = { name = 'baseline', size = 16, width = 4 }", "seed = 5"]
    run_recipe(opened(place, tmp_path / "run", "rounds=0", lines=more))
    assert calls["fit.step"] == 1


# --- equal steps of other runs

SAME_AS_A = "member.c.model.size=16", "member.c.model.width=4"


def test_an_equal_training_of_another_run_is_taken_over(place, tmp_path, monkeypatch):
    run_recipe(opened(place, tmp_path / "first", "rounds=0"))
    calls = count(monkeypatch)
    text = RECIPE.replace("member.a]", "member.z]")  # another name for the same
    run_recipe(opened(place, tmp_path / "second", "rounds=0", text=text))
    assert calls["fit.step"] == 0
    ours, theirs = tmp_path / "second" / "round-0" / "z", tmp_path / "first" / "round-0" / "a"
    for name in ("weights.safetensors", "done.json"):
        assert (ours / name).read_bytes() == (theirs / name).read_bytes()
    assert json.loads((ours / "config.json").read_text())["member"] == "z"
    assert json.loads((theirs / "config.json").read_text())["member"] == "a"
    run_recipe(opened(place, tmp_path / "third", "rounds=0", "train.steps=2"))
    assert calls["fit.step"] == 4


def test_equal_members_of_one_run_are_trained_once(place, tmp_path, monkeypatch):
    calls = count(monkeypatch)
    run_recipe(
        opened(
            place,
            tmp_path / "run",
            "rounds=0",
            "member.b.grid={ seed = [4, 5] }",
            "member.c.model.name=baseline",
            *SAME_AS_A,
        )
    )
    assert calls["fit.step"] == 3  # a and two b; c is a by another name
    assert json.loads((tmp_path / "run" / "round-0" / "c" / "config.json").read_text())["member"] == "c"


def test_cells_of_a_sweep_share_what_is_equal(place, tmp_path, monkeypatch):
    calls = count(monkeypatch)
    recipe = write_recipe(place / "sweep.toml", "[sweep]", "'pseudo.upper' = [0.55, 0.56]")
    machine = Machine("cpu", "fp32", cache=place / "cache")
    sets = [each for each in QUICK if not each.startswith("pseudo.upper")]
    for x in open_session(str(recipe), sets, place / "data", tmp_path / "run", machine):
        run_recipe(x)
    assert calls["fit.step"] == 2 + 2 * 2  # round 0 once, round 1 in each cell
    run_recipe(opened(place, tmp_path / "other", "rounds=0"))
    assert calls["fit.step"] == 6  # and a run beside the sweep takes it from a cell


# --- what is missing, and what is of other settings


def test_what_is_missing_is_named_with_the_commands_that_make_it(place, tmp_path):
    x = opened(place, tmp_path / "run")

    def missing(step, *arguments):
        with pytest.raises(RunError) as caught:
            step(x, *arguments)
        return str(caught.value)

    train, predict, average, label = (
        command(tmp_path / "run", name, "--round", number)
        for name, number in (("train", 0), ("predict", 0), ("ensemble", 0), ("pseudolabel", 1))
    )
    assert f"run {train}, then {predict}, then {average}, then {label} first" in missing(train_round, 1)
    assert not (tmp_path / "run" / "round-1").exists()
    only = command(tmp_path / "run", "train", "--round", 0, "--member", "a")
    assert f"run {only} first" in missing(predict_round, 0)
    train_round(x, 0)
    assert f"run {predict}, then {average}, then {label} first" in missing(train_round, 1)
    assert f"a/probs/home.none.h5 is missing: run {predict} first" in missing(run_ensemble, 0)
    predict_round(x, 0)
    assert f"run {average}, then {label} first" in missing(train_round, 1)
    assert f"ensemble/probs/away.none.h5 is missing: run {average} first" in missing(run_pseudo, 1)
    run_ensemble(x, 0)
    assert f"away.h5 is missing: run {label} first" in missing(train_round, 1)
    run_pseudo(x, 1)
    train_round(x, 1)
    assert weights(tmp_path / "run" / "round-1" / "b")[0].is_file()


@pytest.mark.parametrize("number", [2, -1])
@pytest.mark.parametrize("step", [train_round, predict_round, run_ensemble, run_pseudo])
def test_a_round_that_the_recipe_does_not_have(finished, step, number):
    with pytest.raises(RunError, match=f"round {number}: recipe tiny has rounds 0 to 1"):
        step(finished, number)


def test_a_member_that_the_round_does_not_have(finished):
    with pytest.raises(RunError, match="round 0 trains no member 'aa', did you mean 'a'"):
        train_round(finished, 0, ["aa"])


def test_a_member_that_goes_on_needs_its_round_before(place, tmp_path):
    x = opened(place, tmp_path / "run", "member.b.train.start=continue")
    needed = command(tmp_path / "run", "train", "--round", 0, "--member", "b")
    with pytest.raises(RunError, match=re.escape(f"round-0/b holds no finished training: run {needed} first")):
        train_round(x, 1, ["b"])


def test_nothing_is_built_on_other_settings(place, tmp_path):
    root = tmp_path / "run"
    other, first = opened(place, root, "train.steps=2"), opened(place, root, "rounds=1")
    train_round(first, 0)
    with pytest.raises(RunError, match="round-0/a was made with other settings or inputs"):
        train_round(other, 0)
    with pytest.raises(RunError, match="round-0/a was made with other settings or inputs"):
        predict_round(other, 0)
    predict_round(first, 0)
    with pytest.raises(RunError, match="a/probs/home.none.h5 was made with other settings"):
        run_ensemble(other, 0)
    run_ensemble(first, 0)
    with pytest.raises(RunError, match="ensemble/probs/away.none.h5 was made with other settings"):
        run_pseudo(other, 1)
    run_pseudo(first, 1)
    with pytest.raises(RunError, match="pseudo/away.h5 was made with other settings"):
        train_round(opened(place, root, "pseudo.upper=0.9"), 1)


def test_a_member_more_is_averaged_in(place, tmp_path, capsys):
    """What takes seconds is made anew, as long as no training is built on it."""
    root, alone = tmp_path / "run", "round=[{round=0,train=['a']}]"
    run_recipe(opened(place, root, "rounds=0", alone))
    before = open_probs(root / "round-0/ensemble/probs/away.none.h5").fingerprint
    x = opened(place, root, "rounds=0")
    run_recipe(x)
    assert "away.none.h5: its members or settings have changed, so it is made anew" in capsys.readouterr().err
    made = open_probs(root / "round-0/ensemble/probs/away.none.h5")
    each = [open_probs(x.run.probs(x.run.member(0, name), "away", "none")).read().astype(float) for name in "ab"]
    assert made.fingerprint != before
    np.testing.assert_allclose(made.read(), np.mean(each, 0), atol=1e-3)


def test_labels_are_made_anew_until_a_round_is_trained_on_them(place, tmp_path):
    root = tmp_path / "run"
    x = opened(place, root)
    train_round(x, 0)
    predict_round(x, 0)
    run_ensemble(x, 0)
    run_pseudo(x, 1)
    before = open_pseudo(root / "round-1/pseudo/away.h5").fingerprint
    other = opened(place, root, "pseudo.upper=0.56")
    run_pseudo(other, 1)
    assert open_pseudo(root / "round-1/pseudo/away.h5").fingerprint != before
    train_round(other, 1, ["a"])
    with pytest.raises(RunError, match="round-1/a was made with .*it has other data or labels, or builds on others"):
        opened(place, root)


def test_what_differs_is_named(place, tmp_path):
    root = tmp_path / "run"
    train_round(opened(place, root, "rounds=0"), 0, ["a"])
    with pytest.raises(RunError, match=r"round-0/a .*it has other values of seed, train.optimiser.lr\)"):
        opened(place, root, "rounds=0", "member.a.seed=3", "member.a.train.optimiser.lr=0.1")
    opened(place, root, "rounds=0", "member.a.train.start=continue", "member.a.adabn=true")  # not read there
    with pytest.raises(RunError, match="is a run of recipe 'tiny', not 'other'"):
        opened(place, root, "rounds=0", "name=other")


@pytest.mark.parametrize("init", ["other", "other/round-0", "other/round-0/ensemble", "other/round-1/pseudo-x"])
def test_weights_of_a_run_are_those_of_a_member(place, tmp_path, init):
    with pytest.raises(RecipeError, match="is no member of a run: name one as run:NAME/round-0/MEMBER"):
        train_round(opened(place, tmp_path / "run", f"member.a.init='run:{init}'"), 0, ["a"])


def test_a_refused_command_leaves_the_run_as_it_was(place, tmp_path):
    """What the run says of itself is what its weights were made with."""
    root = tmp_path / "run"
    train_round(opened(place, root, "rounds=0"), 0)
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    with pytest.raises(RunError, match="round-0/a was made with other settings or inputs"):
        opened(place, root, "rounds=0", "member.a.train.scale.factor=2.0")
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before
    predict_round(opened(place, root, "rounds=0"), 0)
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    with pytest.raises(
        RunError, match="round-0/a/probs/away.none.h5 was made with other settings or inputs: delete it"
    ):
        opened(place, root, "rounds=0", "domain.away.normalise=source")
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before
    opened(place, root, "rounds=0", "domain.more={role='eval',split='validation'}")
    assert b'"more"' in (root / "config.json").read_bytes()


def test_masks_of_a_target_that_come_later_change_no_step(place, tmp_path):
    """They only score."""
    keys = []
    for masks in (False, True):
        data = write_split(write_data(tmp_path / f"data{masks}"), "validation", range(1, 6), **AWAY, masks=masks)
        x = opened(place, tmp_path / f"run{masks}", data=data)
        assert x.domains["away"].cache.labelled.all() == masks
        a = member(x, "a")
        keys.append([x.fit_key(a, 1), x.predict_key(a, 0, x.domains["away"], "none")])
    assert keys[0] == keys[1]


def test_other_pretrained_weights_are_another_training(place, tmp_path):
    keys = []
    for value in (0, 1):
        (tmp_path / "stem.safetensors").write_bytes(bytes([value]))
        x = opened(place, tmp_path / f"run{value}", UNET % (tmp_path / "stem.safetensors"))
        keys.append(x.fit_key(x.members[0], 0))
    assert keys[0] != keys[1]


def test_a_training_in_another_precision_is_not_taken_over(place, tmp_path):
    first = opened(place, tmp_path / "first", "rounds=0")
    train_round(first, 0)
    done = json.loads((tmp_path / "first" / "round-0" / "a" / "done.json").read_text())
    assert done["made"]["precision"] == "fp32" and done["made"]["commit"]
    for precision, same in (("bf16", False), ("fp32", True)):
        found = rundir.find_equal(tmp_path / "x", first.fit_key(first.members[0], 0), tmp_path, precision)
        assert (found is not None) is same
    del done["made"]  # as older ones were finished
    (tmp_path / "first" / "round-0" / "a" / "done.json").write_text(json.dumps(done))
    assert rundir.find_equal(tmp_path / "x", first.fit_key(first.members[0], 0), tmp_path, "fp32")
    assert not rundir.find_equal(tmp_path / "x", first.fit_key(first.members[0], 0), tmp_path, "bf16")


def test_a_training_half_done_goes_on_with_its_own_settings_only(place, tmp_path, monkeypatch):
    def stop(point):
        raise KeyboardInterrupt

    x = opened(place, tmp_path / "run")
    monkeypatch.setattr(rundir, "reached", stop)
    with pytest.raises(KeyboardInterrupt):
        train_round(x, 0)
    with pytest.raises(RunError, match="round-0/a was started with other settings: delete the folder"):
        train_round(opened(place, tmp_path / "run", "train.steps=2"), 0)


# --- what the steps make


def test_several_weights_of_a_member_are_averaged(place, tmp_path):
    sets = "rounds=0", "member.b.train.steps=4", "train.steps=2", "train.keep=2"
    x = opened(place, tmp_path / "run", *sets)
    train_round(x, 0, ["a"])
    predict_round(x, 0, ["a"])
    folder = tmp_path / "run" / "round-0" / "a"
    both = weights(folder)
    assert [path.name for path in both] == ["weights-1.safetensors", "weights-2.safetensors"]
    mean = open_probs(folder / "probs" / "away.none.h5").read().astype(np.float64)
    single = []
    for path in both:
        done = json.loads((folder / "done.json").read_text())
        (folder / "done.json").write_text(json.dumps(done | {"weights": [path.name]}))
        (folder / "probs" / "away.none.h5").unlink()
        predict_round(x, 0, ["a"])
        single.append(open_probs(folder / "probs" / "away.none.h5").read().astype(np.float64))
    assert not np.array_equal(*single)
    np.testing.assert_allclose(mean, np.mean(single, axis=0), atol=1e-3)


def test_an_ensemble_is_the_mean_of_its_members(finished):
    folder = finished.run.root / "round-1"
    parts = [open_probs(folder / name / "probs" / "away.none.h5").read().astype(np.float64) for name in "ab"]
    ours = open_probs(folder / "ensemble" / "probs" / "away.none.h5").read().astype(np.float64)
    np.testing.assert_allclose(ours, np.mean(parts, axis=0), atol=1e-3)
    assert json.loads((folder / "ensemble" / "weights.json").read_text()) == {"a": 1.0, "b": 1.0}


def test_labels_come_from_the_ensemble_of_the_round_before(finished):
    root = finished.run.root
    labels = open_pseudo(root / "round-1" / "pseudo" / "away.h5")
    probs = open_probs(root / "round-0" / "ensemble" / "probs" / "away.none.h5").read().astype(np.float64)
    np.testing.assert_array_equal(labels.target, probs >= UPPER)
    np.testing.assert_array_equal(labels.weight, (probs >= UPPER) | (probs <= LOWER))
    assert 0 < labels.target.mean() < 1 and 0 < labels.weight.mean() < 1
    kept = json.loads((root / "round-1" / "pseudo" / "kept.json").read_text())
    assert kept == {"away": labels.shares()}


def test_labels_from_some_members(place, tmp_path):
    lines = "[[round]]", "round = 1", "labels_from = ['b']"
    x = opened(place, tmp_path / "run", "ensemble.weights={ a = 1, b = 3 }", lines=lines)
    run_recipe(x)
    root = tmp_path / "run"
    ours = open_probs(root / "round-1" / "pseudo" / "probs" / "away.none.h5").read()
    np.testing.assert_array_equal(ours, open_probs(root / "round-0" / "b" / "probs" / "away.none.h5").read())
    np.testing.assert_array_equal(
        open_pseudo(root / "round-1" / "pseudo" / "away.h5").target, ours.astype(np.float64) >= UPPER
    )


def test_one_group_is_averaged_before_the_members_of_others_have_trained(place, tmp_path):
    x = opened(
        place, tmp_path / "run", "rounds=0", "train.steps=1", "member.a.ensemble='late'", "member.b.ensemble='early'"
    )
    train_round(x, 0, ["b"])
    predict_round(x, 0, ["b"])
    with pytest.raises(RunError, match="a/probs/home.none.h5 is missing"):
        run_ensemble(x, 0)
    run_ensemble(x, 0, "early")
    root = tmp_path / "run" / "round-0"
    assert {path.name for path in root.glob("ensemble*")} == {"ensemble-early"}
    own, ours = (open_probs(root / name / "probs" / "away.none.h5").read() for name in ("b", "ensemble-early"))
    np.testing.assert_array_equal(own, ours)
    with pytest.raises(RunError, match="no ensemble group 'erly': choose one of late, early"):
        run_ensemble(x, 0, "erly")


@pytest.mark.slow
def test_groups_have_ensembles_labels_and_submissions_of_their_own(place, tmp_path):
    sets = (
        "member.a.grid={ seed = [0, 1] }",
        "member.b.grid={ seed = [0, 1] }",
        "ensemble.group_by=['seed']",
        "ensemble.weights={ a-seed0 = 1, b-seed0 = 3, a-seed1 = 1, b-seed1 = 1 }",
    )
    x = opened(place, tmp_path / "run", *sets)
    run_recipe(x)
    root = tmp_path / "run" / "round-0"
    parts = [open_probs(root / f"{name}-seed0" / "probs" / "away.none.h5").read().astype(np.float64) for name in "ab"]
    ours = open_probs(root / "ensemble-seed-0" / "probs" / "away.none.h5").read()
    np.testing.assert_allclose(ours, 0.25 * parts[0] + 0.75 * parts[1], atol=1e-3)
    assert json.loads((root / "ensemble-seed-1" / "weights.json").read_text()) == {"a-seed1": 1, "b-seed1": 1}
    assert {path.name for path in (tmp_path / "run" / "round-1").glob("pseudo*")} == {"pseudo-seed-0", "pseudo-seed-1"}
    zips = {path.name for path in (tmp_path / "run" / "submission").glob("*.zip")}
    assert zips == {"tiny-away-seed-0.zip", "tiny-away-seed-1.zip"}


def test_a_member_starts_from_another_s_weights(place, tmp_path, monkeypatch):
    started = {}
    fit_ = fit.fit

    def watch(engine, job):
        started[job.name] = {key: value.clone() for key, value in job.model.state_dict().items()}
        return fit_(engine, job)

    monkeypatch.setattr("l4s.steps.fit", watch)
    x = opened(place, tmp_path / "run", "rounds=0", "member.a.init='member:b'")
    assert [each.name for each in x.members] == ["b", "a"]
    run_recipe(x)
    of_b = load_file(tmp_path / "run" / "round-0" / "b" / "weights.safetensors")
    assert all((started["round 0 a"][key] == value).all() for key, value in of_b.items())
    again = opened(place, tmp_path / "second", "rounds=0", "member.a.init='run:run/round-0/b'")
    train_round(again, 0, ["a"])  # the same weights by another way: an equal step
    assert json.loads((tmp_path / "second" / "round-0" / "a" / "done.json").read_text()) == json.loads(
        (tmp_path / "run" / "round-0" / "a" / "done.json").read_text()
    )
    with pytest.raises(RunError, match="member.a.init: there is no file"):
        train_round(opened(place, tmp_path / "third", "rounds=0", "member.a.init=nowhere.safetensors"), 0, ["a"])


def test_runs_are_found_from_a_cell_too(finished, tmp_path):
    run = RunDir(finished.run.root.parent / "sweep" / "cell", cell="cell")
    cell = dataclasses.replace(finished, plan=dataclasses.replace(finished.plan, run=run))
    one = dataclasses.replace(member(cell, "a"), init="run:run/round-0/b")
    assert cell.initial(one, 0) == [finished.run.root / "round-0" / "b" / "weights.safetensors"]


# --- submissions


def packed(root):
    zip = root / "submission" / "tiny-away.zip"
    return zip, read_card(zip.with_suffix(".json"))


def test_a_submission_is_packed_once(place, tmp_path):
    x = opened(place, tmp_path / "run", "rounds=0")
    run_recipe(x)
    zip, card = packed(tmp_path / "run")
    assert (card.threshold, card.min_area, card.domain, card.patches) == (0.5, 2, "away", 5)
    rows = json.loads((tmp_path / "run" / "table.json").read_text())["rows"]
    home = {r["domain"]: r["f1"] for r in rows if r["role"] == "source" and r["kind"] == "ensemble"}
    assert home, "the tiny recipe holds patches of its source out"
    known = {"recipe": "tiny", "run": "run", "round": 0, "members": ["a", "b"], "local_scores": home}
    assert card.facts == known | {"local_min_area": 0, "set": [*QUICK, "rounds=0"]}
    first = zip.read_bytes()
    for path in (zip, zip.with_suffix(".json")):
        os.utime(path, ns=(1, 1))
    run_submit(x)
    assert zip.stat().st_mtime_ns == zip.with_suffix(".json").stat().st_mtime_ns == 1
    zip.write_bytes(first[:-10])  # a copy that broke off
    run_submit(x)
    assert zip.read_bytes() == first
    zip.with_suffix(".json").unlink()
    run_submit(x)
    assert packed(tmp_path / "run") == (zip, card)


@pytest.mark.parametrize("change", ["submit.threshold=0.55", "submit.threshold=expected_f1", "submit.min_area=9"])
def test_a_submission_of_other_settings_is_packed_again(place, tmp_path, change):
    run_recipe(opened(place, tmp_path / "run", "rounds=0"))
    before = packed(tmp_path / "run")[1]
    run_submit(opened(place, tmp_path / "run", "rounds=0", change))
    after = packed(tmp_path / "run")[1]
    assert (after.threshold, after.min_area) != (before.threshold, before.min_area)
    assert after.fingerprint == before.fingerprint


def test_a_threshold_is_chosen_on_the_held_out_source(place, tmp_path):
    x = opened(place, tmp_path / "run", "rounds=0", "submit.threshold=heldout")
    run_recipe(x)
    probs = open_probs(x.run.probs(x.run.ensemble(0), "home", x.recipe.ensemble_tta))
    values = np.concatenate([patch.ravel() for patch in probs.patches()])
    truth = np.concatenate([mask.ravel() for mask in x.domains["home"].cache.masks[x.domains["home"].heldout]])
    chosen = packed(tmp_path / "run")[1].threshold
    assert chosen != 0.5
    best = max(f1_score(truth, values >= at) for at in np.unique(values))
    assert f1_score(truth, values >= chosen) == pytest.approx(best)


@pytest.mark.parametrize(("best", "wanted"), [(1.0, 0.9995), (0.0, 6e-8), (0.25, 0.25)])
def test_a_chosen_threshold_can_be_packed(place, tmp_path, monkeypatch, best, wanted):
    monkeypatch.setattr("l4s.judge.best_threshold", lambda counts: (best, 1.0))
    x = opened(place, tmp_path / "run", "rounds=0", "submit.threshold=heldout")
    run_recipe(x)
    assert packed(tmp_path / "run")[1].threshold == pytest.approx(wanted, abs=2e-5)


def test_a_threshold_is_chosen_on_the_sources_that_members_train_on(place, tmp_path):
    """Another source says the contrary: what it holds out must not count for those that never saw it."""
    shutil.copytree(place / "data", tmp_path / "data")
    shutil.copytree(tmp_path / "data" / "TrainData", tmp_path / "data" / "odd")
    for path in (tmp_path / "data" / "odd" / "mask").iterdir():
        with h5py.File(path, "r+") as file:
            file["mask"][...] = 1 - file["mask"][...]
    lines = ("[domain.odd]", "role = 'source'", "split = 'odd'", "holdout = { by = 'ids', ranges = [[7, 8]] }")
    own = ("member.a.source=['home']", "member.b.source=['home']", "rounds=0", "submit.threshold=heldout")
    x = opened(place, tmp_path / "two", *own, lines=lines, data=tmp_path / "data")
    run_recipe(x)
    alone = opened(place, tmp_path / "one", "rounds=0", "submit.threshold=heldout")
    run_recipe(alone)
    assert x.run.probs(x.run.ensemble(0), "odd", x.recipe.ensemble_tta).is_file()
    assert read_json(x.run.heldout(0, "")) == read_json(alone.run.heldout(0, ""))


@pytest.mark.slow
@pytest.mark.parametrize(("stop", "last"), [(0.9999, 1), (1e-9, 3)])
def test_rounds_end_once_labels_hardly_change(place, tmp_path, stop, last):
    x = opened(place, tmp_path / "run", "rounds=3", f"pseudo.stop={stop}")
    run_recipe(x)
    assert x.plan.last_round() == last
    assert (x.run.member(last, "a") / "done.json").is_file() and not x.run.member(last + 1, "a").exists()
    (zip_,) = x.run.submission.glob("*.zip")
    assert read_card(zip_.with_suffix(".json")).facts["round"] == last
    first, second = (open_pseudo(x.run.pseudo(number, "") / "away.h5") for number in (1, 2))
    states = [np.where(each.weight == 1, each.target, 2) for each in (first, second)]
    told = json.loads((x.run.pseudo(2, "") / "kept.json").read_text())["away"]["changed"]
    assert told == pytest.approx((states[0] != states[1]).mean()) and told > 0


@pytest.mark.slow
def test_a_round_without_steps_takes_weights_as_they_are(place, tmp_path):
    source = opened(place, tmp_path / "first", "rounds=0")
    run_recipe(source)
    lines = ("[[round]]", "round = 0", "steps = 0")
    starts = [f"member.{name}.init='run:first/round-0/{name}'" for name in "ab"]
    x = opened(place, tmp_path / "second", *starts, lines=lines)
    run_recipe(x)
    for name in "ab":
        ours, theirs = (load_file(weights(each.run.member(0, name))[0]) for each in (x, source))
        assert all((ours[key] == theirs[key]).all() for key in theirs)
        assert not (load_file(weights(x.run.member(1, name))[0])["head.weight"] == theirs["head.weight"]).all()
    with pytest.raises(RecipeError, match="member 'a' is not trained in round 0 .steps = 0., and has no init"):
        opened(place, tmp_path / "third", lines=lines)
