"""What a person sees: lines whose brackets are kept, tables that fit, errors without tracebacks, and what comes next."""

import io
import json
import shlex
import shutil

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner
from vector_factory import write_codes, write_mask

from l4s import log
from l4s.cli import app, loop, show
from l4s.errors import DataError
from l4s.files import read_json
from l4s.rundir import RunDir, command
from l4s.scene.raster import open_scene
from l4s.status import outcome


def narrow(monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))


@pytest.mark.parametrize("path", ["a [b]/c", "a [/b]", "[red]c"])
def test_brackets_in_a_path_are_no_markup(monkeypatch, path):
    written = io.StringIO()
    monkeypatch.setattr(log, "console", Console(file=written, force_terminal=True, width=200, color_system=None))
    log.info(path)
    log.warn(path)
    with log.live(path, 2) as update:
        update(1, path)
    assert written.getvalue().count(path) >= 4


def test_what_the_system_refuses_is_wrong_use_and_no_traceback(l4s, tiny, tmp_path):
    (tmp_path / "file").write_text("")
    shown = l4s("ensemble", "--runs", tiny / "run", "--domain", "away", "--out", tmp_path / "file" / "x.h5")
    assert shown.exit_code == 2 and isinstance(shown.exception, SystemExit)
    assert shown.stderr.splitlines()[-1].startswith(f"error: {tmp_path / 'file'}")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("train", "l4s-rgb"), "interrupted: the same command goes on where it stopped\n"),
        (("score", "a", "b"), "interrupted\n"),
    ],
)
def test_ctrl_c_says_whether_the_command_goes_on(l4s, monkeypatch, arguments, says):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "asked", stop)
    monkeypatch.setattr("l4s.compare.score_files", stop)
    shown = l4s(*arguments)
    assert (shown.exit_code, shown.stderr) == (130, says)


@pytest.mark.parametrize(("asked", "coloured"), [("", True), ("1", False)])
def test_no_colour_where_none_is_wanted(monkeypatch, tmp_path, asked, coloured):
    monkeypatch.setenv("NO_COLOR", asked)
    shown = CliRunner().invoke(app, ["status", str(tmp_path)], color=True)
    assert shown.exit_code == 2 and ("\x1b[" in shown.stderr) is coloured


@pytest.mark.parametrize("arguments", [("-h",), ("run", "-h"), ("scene", "predict", "-h")])
def test_h_is_help(l4s, arguments):
    shown = l4s(*arguments)
    assert shown.exit_code == 0 and "Usage" in shown.stdout


def test_words_and_numbers_are_never_broken(monkeypatch, capsys):
    narrow(monkeypatch, 40)
    name, number, told = "a-name-of-its-own", "20000/20000", "several words that may stand below each other"
    show.table("title", ("name", "number", "nothing here", "files"), [(name, number, "", told)] * 2)
    printed = capsys.readouterr().out
    assert printed.count(name) == printed.count(number) == 2
    assert "nothing" not in printed  # a column of numbers that no row has
    cells = [line.split("│") for line in printed.splitlines() if "│" in line]
    assert " ".join(cell[3].strip() for cell in cells[: len(cells) // 2]) == told


@pytest.mark.parametrize(("columns", "wide"), [(80, 80), (200, 200), ("", 400)])
def test_a_piped_table_is_as_wide_as_columns_says(monkeypatch, capsys, columns, wide):
    narrow(monkeypatch, columns)
    show.table("title", ("what",), [("word " * 200,)])
    assert max(map(len, capsys.readouterr().out.splitlines())) == wide


def test_status_fits_a_terminal(l4s, tiny, monkeypatch):
    narrow(monkeypatch, 80)
    shown = l4s("status", tiny / "run").stdout
    assert "ensemble" in shown and "held-out" in shown and "unfinished" not in shown
    assert all(len(line) <= 80 for line in shown.splitlines()[1:])


def test_one_row_of_scores_is_lines(l4s, tiny, monkeypatch):
    narrow(monkeypatch, 80)
    shown = l4s("score", tiny / "run/round-0/ensemble/probs/away.d4.h5", tiny / "data/ValidData/mask")
    assert shown.exit_code == 0, shown.stderr
    labels = [line.split("  ")[1].strip() for line in shown.stdout.splitlines()[1:]]
    assert labels[:4] == ["patches", "F1", "95 %", "P"]
    assert all(len(line) <= 80 for line in shown.stdout.splitlines()[1:])


def test_a_run_in_place_of_a_prediction(l4s, tiny):
    shown = l4s("score", tiny / "run", tiny / "data/ValidData/mask")
    assert shown.exit_code == 2
    assert f"{tiny / 'run'} is a run: give one of its probs/*.h5, or use `l4s report" in shown.stderr


def test_a_command_for_a_run_is_the_one_it_was_started_with(tmp_path):
    run = tmp_path / "my runs" / "one"
    run.mkdir(parents=True)
    assert command(run, "train", "--round", 1) == f"`l4s train RECIPE --run '{run}' --round 1`"
    (run / "recipe.toml").write_text("")
    (run / "env.json").write_text("{}")
    for place in (run, run / "cell"):  # a cell of a sweep is made by the command of all
        place.mkdir(exist_ok=True)
        (place / "recipe.toml").write_text("")
        assert command(place, "predict", "--round", 0) == f"`l4s predict '{run}' --round 0`"


def test_what_a_run_came_to(tiny):
    found = outcome(RunDir(tiny / "run"))
    rows = read_json(tiny / "run/table.json")["rows"]
    last = [row for row in rows if row["round"] == 1 and row["kind"] == "ensemble"]
    assert found["round"] == 1
    assert [row["f1"] for row in found["scores"]] == [row["f1"] for row in last] != []


def test_a_dry_run_shows_what_is_left_without_data_and_leaves_nothing(l4s, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shown = l4s("run", "l4s-rgb-scale", "--dry-run", "--set", "train.steps=300", "--data", "nowhere")
    assert shown.exit_code == 0, shown.output
    assert "2 trainings with at most 600 steps are left" in shown.stdout
    assert [line for line in shown.stdout.splitlines() if line.startswith("runs/")] == [
        "runs/l4s-rgb-scale/x1",
        "runs/l4s-rgb-scale/x2",
    ]
    assert not list(tmp_path.iterdir())


def test_a_dry_run_of_a_finished_run_has_nothing_left(l4s, tiny):
    shown = l4s("run", tiny / "tiny.toml", "--dry-run", "--run", tiny / "run")
    assert shown.exit_code == 0, shown.output
    assert "0 trainings with at most 0 steps are left" in shown.stdout


def test_a_dry_run_says_what_the_run_will_refuse(l4s, tiny):
    shown = l4s("run", tiny / "tiny.toml", "--dry-run", "--run", tiny / "run", "--set", "member.b.seed=5")
    assert shown.exit_code == 0, shown.output
    told = " ".join(shown.stderr.split())  # the run had fewer steps
    assert (
        "round-0/a was made with other values of train.evaluate_every, train.steps, and the run will refuse it" in told
    )
    assert "round-0/b was made with other values of seed, train.evaluate_every, train.steps, and" in told


def test_a_dry_run_builds_the_networks(l4s):
    shown = l4s("run", "boehm2022-fast", "--dry-run", "--set", "member.none.model.widths=[0]")
    assert shown.exit_code == 2 and "member.none: model.widths" in " ".join(shown.stderr.split())


def test_a_dry_run_refuses_a_loss_that_does_not_exist(l4s):
    shown = l4s("run", "l4s-rgb", "--dry-run", "--set", "train.loss=[{ name = 'dise' }]")
    assert shown.exit_code == 2
    assert "did you mean 'dice'" in shown.stderr


@pytest.mark.slow
def test_a_finished_run_says_so_and_what_comes_next(l4s, tiny, tmp_path):
    shutil.copytree(tiny / "run", tmp_path / "run")
    place = ("--data", tiny / "data", "--run", tmp_path / "run", "--cache", tiny / "cache")
    options = ("--set", "train.steps=2", "--set", "train.evaluate_every=1", "--device", "cpu")
    shown = l4s("run", tiny / "tiny.toml", *place, *options)
    assert shown.exit_code == 0, shown.output
    assert "round 0: 2 of 2 members are trained already" in shown.stderr
    assert "F1 of landslides in round 1" in shown.stdout and "away" in shown.stdout
    assert f"l4s report {tmp_path / 'run'}\n" in shown.stdout
    card = json.loads((tmp_path / "run/submission/tiny-away.json").read_text())
    assert f"tiny-away.zip: {card['positive_share']:.2%} landslide" in shown.stdout
    assert ("marks no landslide" in shown.stderr) is (card["positive_share"] == 0)
    (check,) = [line.strip() for line in shown.stdout.splitlines() if line.startswith("  l4s submit check")]
    assert l4s(*shlex.split(check)[1:]).exit_code == 0


@pytest.mark.slow
def test_a_report_is_a_table_of_f1_and_paths(l4s, tiny, tmp_path):
    shutil.copytree(tiny / "run", tmp_path / "run")
    shown = l4s("report", tmp_path / "run", "--cache", tiny / "cache", "--no-pictures")  # the run knows its data
    assert shown.exit_code == 0, shown.output
    assert "oracle F1" in shown.stdout and f"table       {tmp_path / 'run/table.md'}" in shown.stdout
    assert "95 %" not in shown.stdout and "##" not in shown.stdout
    assert "not scored: far (4 of 4 patches have no mask)" in shown.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        "data stats DIR --picture s.txt",
        "data classes DIR --picture s.tif",
        "scene predict scene.tif out.png --run RUN",
        "scene place a.h5 chips out.png",
        "scene picture scene.tif out.tif",
    ],
)
def test_a_wrong_ending_is_refused_before_anything_is_read(l4s, tiny, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    names = {"DIR": tiny / "data", "RUN": tiny / "run"}
    shown = l4s(*(names.get(word, word) for word in arguments.split()))
    assert shown.exit_code == 2
    assert any(f"does not end in {ending}" in shown.stderr for ending in (".png", ".tif"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("data chip one", "got 1 path, where"),
        ("data stats nowhere", "error: nowhere does not exist"),
        ("data classes nowhere", "error: nowhere does not exist"),
        ("data check nowhere", "error: nowhere does not exist"),
        ("data split nowhere", "error: nowhere does not exist"),
        ("submit check nowhere.zip", "error: there is no file nowhere.zip"),
    ],
)
def test_advice_names_what_the_command_has(l4s, arguments, says):
    shown = l4s(*arguments.split())
    assert shown.exit_code == 2
    assert says in " ".join(shown.stderr.replace("│", " ").split())
    assert "--data" not in shown.stderr


HALF = np.repeat([[254] * 10 + [0] * 10], 20, axis=0)  # of 10 m pixels, landslide for sure or none


def test_areas_have_units(l4s, tmp_path):
    probs, out = write_codes(tmp_path / "map.tif", HALF), tmp_path / "out.gpkg"
    assert l4s("scene", "polygons", probs, out).stdout == f"{out}: 1 landslides, 200 pixels, 0.02 km² (2 ha)\n"
    assert json.loads(l4s("scene", "polygons", probs, out, "--json").stdout)["area_m2"] == 20_000
    plain = write_codes(tmp_path / "plain.tif", HALF, crs=None)
    assert "area 20000 in squared units of the file" in l4s("scene", "polygons", plain, out).stdout
    assert json.loads(l4s("scene", "polygons", plain, out, "--json").stdout)["area"] == 20_000


def test_a_mask_is_no_map(l4s, tmp_path):
    shown = l4s("scene", "polygons", write_mask(tmp_path / "mask.tif", HALF > 0), tmp_path / "out.gpkg")
    assert shown.exit_code == 2 and "a mask goes to --mask" in shown.stderr


def test_bands_that_are_there_are_listed_once(tmp_path):
    with pytest.raises(DataError) as caught:
        open_scene(write_codes(tmp_path / "map.tif", HALF), ["red"])
    assert str(caught.value).count("probability") == 1
