"""Killed at any moment and run again, a run ends in the same bytes, and nothing that is finished is done again."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from data_factory import write_data, write_recipe

from l4s import fit, rundir
from l4s.errors import RunError
from l4s.pipeline import run_recipe
from l4s.session import Machine, open_session

WORK = ("fit.step", "fit.saved", "predict.put", "ensemble.put", "pseudo.written")  # what a finished run has no more of


class Killed(BaseException):
    """No error of l4s, so that nothing can catch it."""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Data and recipe that every run here shares."""
    place = tmp_path_factory.mktemp("resume")
    write_data(place / "data")
    write_recipe(place / "tiny.toml")
    return place


@pytest.fixture(scope="module")
def whole(place):
    """A run that nothing stopped: its folder, and how often each point was reached."""
    with pytest.MonkeyPatch.context() as patch:
        save_often(patch)
        calls = count(patch)
        run(place, place / "whole" / "run")
    return place / "whole" / "run", calls


def save_often(patch):
    patch.setattr(
        "l4s.score.bootstrap_f1", lambda *counts_seed_draws: (0.0, 1.0)
    )  # a third of the time, tested elsewhere
    patch.setattr(fit, "LOG_EVERY", 2)
    patch.setattr(fit, "SAVE_SECONDS", 0.0)


def run(place, root):
    machine = Machine("cpu", "fp32", cache=place / "cache")
    for x in open_session(str(place / "tiny.toml"), [], place / "data", root, machine):
        run_recipe(x)


def count(patch):
    """Count the points reached from here on."""
    calls = Counter()
    patch.setattr(rundir, "reached", lambda point: calls.update([point]))
    return calls


def stop_at(patch, point, nth):
    """Stop at the nth time that a point is reached (any point: "")."""
    calls = Counter()

    def reached(name):
        calls.update([name, ""])
        if point in (name, "") and calls[point] == nth:
            raise Killed(name)

    patch.setattr(rundir, "reached", reached)


def files(root):
    """What a run leaves: bytes by name; of metrics, all but the speed. The environment is no result."""
    found = {}
    for path in sorted(path for path in root.rglob("*") if path.is_file() and path.name != "env.json"):
        content = path.read_bytes()
        if path.name == "metrics.jsonl":
            lines = [json.loads(line) for line in content.splitlines()]
            content = [{key: value for key, value in line.items() if key != "patches_per_s"} for line in lines]
        found[str(path.relative_to(root))] = content
    return found


def assert_same(root, other):
    ours, theirs = files(root), files(other)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if ours[name] != theirs[name]] == []


def test_a_whole_run_leaves_every_result(whole):
    root, calls = whole
    names = files(root)
    for member in ("round-0/a", "round-0/b", "round-1/a", "round-1/b"):
        for name in ("weights.safetensors", "done.json", "config.json", "probs/away.none.h5", "probs/away.d4.h5"):
            assert f"{member}/{name}" in names
        assert [line["step"] for line in names[f"{member}/metrics.jsonl"]] == [2, 4, 6]
    for name in ("round-0/ensemble/weights.json", "round-1/pseudo/kept.json", "round-1/pseudo/away.h5"):
        assert name in names
    assert {"submission/tiny-away.zip", "submission/tiny-away.json"} <= names.keys()
    assert not [name for name in names if name.endswith((".part", "last.safetensors")) or "kept-" in name]
    assert calls["fit.step"] == 4 * 6 and calls["fit.saved"] == 4 * 2
    scores = [line["heldout_f1"] for line in names["round-0/a/metrics.jsonl"]]
    assert max(scores) > scores[-1]  # the best weights are no formality either: they are not the last
    kept = json.loads(names["round-1/pseudo/kept.json"])["away"]
    assert 0 < kept["positive"] < 1 and 0 < kept["kept"] < 1  # the labels are no formality


def test_members_and_rounds_differ(whole):
    names = files(whole[0])
    weights = {names[f"round-{number}/{member}/weights.safetensors"] for number in (0, 1) for member in "ab"}
    assert len(weights) == 4


POINTS = [
    ("fit.step", 9),  # b, with EMA and momentum
    ("predict.put", 5),  # half a ProbFile of round 0
    ("pseudo.done", 1),  # before the next fit
]
MORE = [
    ("fit.step", 1),  # before anything is saved
    ("fit.step", 5),  # a: between a saved state and the last step
    ("fit.step", 17),  # round 1, on pseudo labels
    ("fit.saved", 1),
    ("fit.done", 1),
    ("fit.done", 3),
    ("predict.put", 2),  # an evaluation on the held-out source
    ("ensemble.put", 4),
    ("pseudo.written", 1),
    ("submit.done", 1),
]


@pytest.mark.parametrize(("point", "nth"), [*POINTS, *(pytest.param(*point, marks=pytest.mark.slow) for point in MORE)])
def test_a_stopped_run_ends_in_the_same_bytes(place, whole, tmp_path, monkeypatch, point, nth):
    save_often(monkeypatch)
    stop_at(monkeypatch, point, nth)
    with pytest.raises(Killed):
        run(place, tmp_path / "run")
    count(monkeypatch)
    run(place, tmp_path / "run")
    assert_same(tmp_path / "run", whole[0])


@pytest.mark.slow
def test_a_training_without_a_saved_state_begins_again(place, whole, tmp_path, monkeypatch):
    save_often(monkeypatch)
    monkeypatch.setattr(fit, "SAVE_SECONDS", 1e9)
    stop_at(monkeypatch, "fit.step", 5)
    with pytest.raises(Killed):
        run(place, tmp_path / "run")
    calls = count(monkeypatch)
    run(place, tmp_path / "run")
    assert calls["fit.step"] == 4 * 6
    assert_same(tmp_path / "run", whole[0])  # the lines of metrics too: those of the lost steps are gone


@pytest.mark.slow
def test_a_run_that_is_stopped_again_and_again(place, whole, tmp_path, monkeypatch):
    save_often(monkeypatch)
    for _ in range(100):
        stop_at(monkeypatch, "", 11)
        try:
            run(place, tmp_path / "run")
            break
        except Killed:
            continue
    assert_same(tmp_path / "run", whole[0])


def test_a_second_run_keeps_out_of_a_training_under_way(place, whole, tmp_path, monkeypatch):
    save_often(monkeypatch)
    second = []

    def reached(point):
        if point == "fit.step" and not second:
            second.append("tried")
            with pytest.raises(RunError, match=r"another process is at work in .*round-0/a: wait"):
                run(place, tmp_path / "run")

    monkeypatch.setattr(rundir, "reached", reached)
    run(place, tmp_path / "run")
    assert second
    assert_same(tmp_path / "run", whole[0])


def test_a_file_system_without_locks_is_told(tmp_path, monkeypatch):
    def refuse(file, how):
        raise OSError("Operation not supported")

    monkeypatch.setattr("fcntl.flock", refuse)
    with rundir.alone(tmp_path / "run") as unlocked:
        assert unlocked == "Operation not supported"


def test_what_is_finished_is_not_done_again(place, whole, tmp_path, monkeypatch):
    save_often(monkeypatch)
    stop_at(monkeypatch, "fit.step", 4 * 6 - 1)  # step 5 of the last member: its state was saved at step 4
    with pytest.raises(Killed):
        run(place, tmp_path / "run")
    calls = count(monkeypatch)
    run(place, tmp_path / "run")
    assert calls["fit.step"] == 2
    assert calls["pseudo.written"] == 0
    assert calls["ensemble.put"] == whole[1]["ensemble.put"] // 2  # of the last round only
    assert_same(tmp_path / "run", whole[0])
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*.h5")}
    calls = count(monkeypatch)
    run(place, tmp_path / "run")
    assert {point: calls[point] for point in WORK} == dict.fromkeys(WORK, 0)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*.h5")} == before
    assert_same(tmp_path / "run", whole[0])


@pytest.mark.slow
def test_a_finished_folder_is_cleaned_when_the_last_run_could_not(place, whole, tmp_path, monkeypatch):
    save_often(monkeypatch)
    monkeypatch.setattr("l4s.steps.clean", lambda folder: None)
    stop_at(monkeypatch, "fit.done", 1)
    with pytest.raises(Killed):
        run(place, tmp_path / "run")
    folder = tmp_path / "run" / "round-0" / "a"
    assert (folder / fit.EARLIER_STATE).is_file() and list(folder.glob("kept-*"))
    monkeypatch.setattr("l4s.steps.clean", fit.clean)
    count(monkeypatch)
    run(place, tmp_path / "run")
    assert_same(tmp_path / "run", whole[0])


def test_weights_that_a_saved_state_may_need_stay(place, tmp_path, monkeypatch):
    """On a GPU a repeated step may score otherwise: the best weights up to the saved state must still be there."""
    monkeypatch.setattr(fit, "LOG_EVERY", 2)
    monkeypatch.setattr(fit, "SAVE_SECONDS", 0.0)
    save_state = fit.save_state

    def save_once(*arguments):
        save_state(*arguments)
        monkeypatch.setattr(fit, "SAVE_SECONDS", 1e9)

    monkeypatch.setattr(fit, "save_state", save_once)
    monkeypatch.setattr(
        "l4s.steps.heldout_scores", lambda x, member, number, model, step: {"f1": step / 10}
    )  # ever better
    stop_at(monkeypatch, "fit.step", 5)
    with pytest.raises(Killed):
        run(place, tmp_path / "run")
    folder = tmp_path / "run" / "round-0" / "a"
    assert (folder / fit.EARLIER_STATE).is_file()
    assert {path.name for path in folder.glob("kept-*")} == {"kept-2.safetensors", "kept-4.safetensors"}
    monkeypatch.setattr(
        "l4s.steps.heldout_scores", lambda x, member, number, model, step: {"f1": -step / 10}
    )  # ever worse
    stop_at(monkeypatch, "fit.done", 1)
    with pytest.raises(Killed):
        run(place, tmp_path / "run")
    assert (folder / "weights.safetensors").is_file()


KILLER = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import test_resume as t
import pytest
patch, calls = pytest.MonkeyPatch(), []
t.save_often(patch)

def reached(point):
    calls.append(point)
    if calls.count(sys.argv[4]) == int(sys.argv[5]):
        os.kill(os.getpid(), signal.SIGKILL)

patch.setattr(t.rundir, "reached", reached)
t.run(Path(sys.argv[2]), Path(sys.argv[3]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("point", "nth"), [("fit.step", 9), ("predict.put", 5), ("pseudo.written", 1)])
def test_a_killed_process_ends_in_the_same_bytes(place, whole, tmp_path, monkeypatch, point, nth):
    arguments = [str(Path(__file__).parent), str(place), str(tmp_path / "run"), point, str(nth)]
    killed = subprocess.run([sys.executable, "-c", KILLER, *arguments], env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert killed.returncode == -signal.SIGKILL
    save_often(monkeypatch)
    count(monkeypatch)
    run(place, tmp_path / "run")
    assert_same(tmp_path / "run", whole[0])
