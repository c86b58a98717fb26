"""Where a run stands, from its small files; and the plan behind it, which must answer as the open experiment does."""

import json
import subprocess
import sys

from typer.testing import CliRunner

from l4s import rundir
from l4s.cli import app
from l4s.files import write_atomic, write_json
from l4s.load import parse_recipe, resolved
from l4s.plan import read_plan
from l4s.rundir import RunDir
from l4s.status import cell_status, run_status

MODEL = {"name": "baseline", "size": 16, "width": 4}
TABLE = {
    "name": "some",
    "rounds": 1,
    "domain": {
        "home": {"role": "source", "holdout": {"by": "block", "share": 0.25}},
        "whole": {"role": "source", "split": "whole"},
        "away": {"role": "target", "split": "validation", "tta": ["none", "d4"]},
    },
    "member": {
        "a": {"model": MODEL, "train": {"steps": 100, "batch": 8}},
        "b": {"model": MODEL, "grid": {"seed": [0, 1], "normalise": ["separated", "source"]}},
    },
    "round": [{"round": 1, "train": ["b"], "labels_from": ["b"]}],
    "predict": {"tta": ["d4"]},
}


def begin(root, **changes):
    """A run directory of which only the recipe is there."""
    run = RunDir(root)
    write_atomic(run.config, json.dumps(resolved(parse_recipe({**TABLE, **changes}, "test"))).encode())
    return run


def member(state, number, name):
    (found,) = [each for each in state["rounds"][number]["members"] if each["name"] == name]
    return found


def lines(folder, *rows, end=""):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + end)


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def test_nothing_has_begun(tmp_path):
    state = cell_status(read_plan(begin(tmp_path)), now=0)
    assert [[each["name"] for each in entry["members"]] for entry in state["rounds"]] == [
        [
            "a",
            "b-seed0-normalise-separated",
            "b-seed0-normalise-source",
            "b-seed1-normalise-separated",
            "b-seed1-normalise-source",
        ],
        [
            "b-seed0-normalise-separated",
            "b-seed0-normalise-source",
            "b-seed1-normalise-separated",
            "b-seed1-normalise-source",
        ],
    ]
    assert member(state, 0, "a") == {
        **{"name": "a", "state": "missing", "step": 0, "steps": 100, "loss": None, "heldout_f1": None},
        **{"patches_per_s": None, "eta_s": None, "age_s": None, "predicted": 0, "files": 3},
    }
    assert state["rounds"][0]["pseudo"] == []
    assert state["rounds"][1]["pseudo"] == [{"name": "pseudo", "state": "missing", "domains": {}}]
    assert state["submissions"] == []


def test_a_training_tells_its_step_and_when_it_ends(tmp_path):
    run = begin(tmp_path)
    folder = run.member(0, "a")
    lines(
        folder,
        {"step": 20, "loss": 2.0, "patches_per_s": 4.0, "heldout_f1": 0.25},
        {"step": 40, "loss": 1.5, "patches_per_s": 16.0},
        end='{"step": 60, "lo',
    )
    touch(folder / "started.json")
    written = (folder / "metrics.jsonl").stat().st_mtime
    found = member(cell_status(read_plan(run), now=written + 90), 0, "a")
    assert found["state"] == "training"
    assert (found["step"], found["loss"], found["heldout_f1"], found["patches_per_s"]) == (40, 1.5, 0.25, 16.0)
    assert found["eta_s"] == 30  # 60 steps of 8 patches at 16 a second
    assert found["age_s"] == 90


def test_started_without_a_line_yet(tmp_path):
    run = begin(tmp_path)
    touch(run.member(0, "a") / "started.json")
    found = member(cell_status(read_plan(run), now=0), 0, "a")
    assert (found["state"], found["step"], found["eta_s"], found["age_s"]) == ("training", 0, None, None)


def test_a_finished_training_has_no_eta(tmp_path):
    run = begin(tmp_path)
    lines(run.member(0, "a"), {"step": 80, "loss": 1.0, "patches_per_s": 8.0})  # stopped early
    rundir.finish(run.member(0, "a"), "key", weights=["weights.safetensors"])
    found = member(cell_status(read_plan(run), now=0), 0, "a")
    assert (found["state"], found["step"], found["eta_s"], found["age_s"]) == ("done", 80, None, None)


def test_files_are_counted(tmp_path):
    run = begin(tmp_path)
    touch(run.probs(run.member(0, "a"), "home", "d4"))
    touch(run.probs(run.member(0, "a"), "away", "none"))
    touch(run.probs(run.member(0, "a"), "away", "flip"))  # not asked for
    touch(run.probs(run.member(0, "a"), "whole", "d4"))  # a source that holds nothing out is not predicted
    state = cell_status(read_plan(run), now=0)
    assert (member(state, 0, "a")["predicted"], member(state, 0, "a")["files"]) == (2, 3)
    assert state["rounds"][0]["ensembles"] == [{"name": "ensemble", "state": "missing", "predicted": 0, "files": 3}]


def test_ensembles_and_labels_apart(tmp_path):
    run = begin(tmp_path, ensemble={"group_by": ["normalise"]})
    kept = {"away": {"kept": 0.75, "ignored": 0.25, "positive": 0.125}}
    write_json(run.pseudo(1, "normalise-source") / "kept.json", kept)
    rundir.finish(run.pseudo(1, "normalise-source"), "key")
    rundir.finish(run.ensemble(1, "normalise-separated"), "key")
    last = cell_status(read_plan(run), now=0)["rounds"][1]
    assert last["pseudo"] == [
        {"name": "pseudo-normalise-separated", "state": "missing", "domains": {}},
        {"name": "pseudo-normalise-source", "state": "done", "domains": kept},
    ]
    assert [(each["name"], each["state"]) for each in last["ensembles"]] == [
        ("ensemble-normalise-separated", "done"),
        ("ensemble-normalise-source", "missing"),
    ]


def test_submissions(tmp_path):
    run = begin(tmp_path)
    card = {"name": "some-away", "patches": 5, "positive_share": 0.0625, "threshold": 0.5, "min_area": 3, "sha256": "0"}
    write_json(run.submission / "some-away.json", card)
    touch(run.submission / "half-written.zip")
    del card["sha256"]
    assert cell_status(read_plan(run), now=0)["submissions"] == [card]


def test_cells_of_a_sweep_also_those_that_have_not_begun(tmp_path):
    text = 'rounds = 0\n[domain.home]\nrole = "source"\n[member.a]\nmodel = { name = "baseline" }\n[sweep]\n"train.steps" = [1, 2]\n'
    write_json(tmp_path / "env.json", {"set": ['sweep={ "train.steps" = [1, 2, 3] }']})
    for cell in ("steps1", "steps3"):
        begin(tmp_path / cell)
        (tmp_path / cell / "recipe.toml").write_text(text)
    found = {row["cell"]: row for row in run_status(tmp_path, now=0)}
    assert list(found) == ["steps1", "steps3", "steps2"]
    assert found["steps2"]["rounds"] == [] and found["steps1"]["recipe"] == "some"
    assert {row["goes_on_with"] for row in found.values()} == {f"`l4s run {tmp_path}`"}  # as a whole
    (tmp_path / "env.json").write_text("{}")  # of an older run: what its recipe needs beside it is not known
    (tmp_path / "steps1" / "recipe.toml").write_text(text.replace("[member.a]", "[member.a]\nneeds = ['b']"))
    assert [row["cell"] for row in run_status(tmp_path, now=0)] == ["steps1", "steps3"]


def test_the_command(tmp_path):
    run = begin(tmp_path / "run")
    lines(run.member(0, "a"), {"step": 40, "loss": 1.5, "patches_per_s": 1.0, "heldout_f1": 0.6251})
    touch(run.member(0, "a") / "started.json")
    write_json(run.pseudo(1) / "kept.json", {"away": {"kept": 0.75, "ignored": 0.25, "positive": 0.125}})
    rundir.finish(run.pseudo(1), "key")
    shown = CliRunner().invoke(app, ["status", str(run.root)])
    assert shown.exit_code == 0, shown.output
    (line,) = [line for line in shown.stdout.splitlines() if "│ a " in line]
    assert line.replace("│", " ").split() == ["0", "a", "training", "40/100", "1.5000", "0.625", "1", "8", "min", "0/3"]
    assert "away: 75.0% kept, 12.50% of it landslide" in shown.stdout
    again = rundir.command(run.root, "run")
    assert shown.stdout.splitlines()[-1] == f"unfinished; once it has stopped, {again} goes on with it"
    (state,) = json.loads(CliRunner().invoke(app, ["status", str(run.root), "--json"]).stdout)
    assert member(state, 0, "a")["eta_s"] == 480
    assert "silent" not in shown.stdout


def test_a_training_that_went_silent(tmp_path):
    import os

    run = begin(tmp_path)
    lines(run.member(0, "a"), {"step": 40, "loss": 1.5, "patches_per_s": 1.0})
    touch(run.member(0, "a") / "started.json")
    os.utime(run.member(0, "a") / "metrics.jsonl", (0, 0))
    assert "training, silent for" in CliRunner().invoke(app, ["status", str(tmp_path)]).stdout


def test_no_run(tmp_path):
    shown = CliRunner().invoke(app, ["status", str(tmp_path)])
    assert shown.exit_code == 2
    assert f"error: {tmp_path} is no run directory" in shown.stderr


def test_status_imports_no_torch(tmp_path):
    begin(tmp_path / "run")
    script = (
        "import sys; from l4s.cli import app; app(sys.argv[1:], standalone_mode=False); print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "status", tmp_path / "run"], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "False"


def test_a_plan_is_what_an_open_run_does(tmp_path):
    from data_factory import write_data, write_recipe

    from l4s.session import Machine, open_session

    write_data(tmp_path / "data")
    lines = (
        '[domain.again]\nrole = "eval"\nsplit = "train"',
        '[member.c]\nmodel = { name = "baseline", size = 16 }\ngrid = { seed = [1, 2], normalise = ["source", "separated"] }',
    )
    recipe = write_recipe(tmp_path / "tiny.toml", *lines)
    machine = Machine("cpu", "fp32", cache=tmp_path / "cache")
    (x,) = open_session(str(recipe), [], tmp_path / "data", tmp_path / "run", machine)
    plan = read_plan(x.run)
    assert plan.recipe == x.recipe
    assert plan.members == x.members
    assert plan.predicted() == [domain.name for domain in x.predicted()] == ["home", "away", "again"]
