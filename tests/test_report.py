"""The table of a run: every number against sklearn, numpy or a slow loop; equal runs make equal bytes."""

import json
import shutil
import statistics
from pathlib import Path

import numpy as np
import pytest
from data_factory import write_h5, write_recipe, write_split
from PIL import Image
from sklearn.metrics import average_precision_score, f1_score, jaccard_score, precision_score, recall_score
from typer.testing import CliRunner

from l4s.cli import app
from l4s.data.probs import write_probs
from l4s.errors import RunError
from l4s.files import write_json
from l4s.plots import BACKGROUND, FALSE, HIT, IGNORED, MISSED, displayed, painted
from l4s.report import draw_run, report_run, score_run
from l4s.session import Machine, open_session
from l4s.table import markdown

RECIPE = """
name = "scored"
rounds = 1

[about]
title = "A title"
paper = "A paper"
expected = { "round-0/ensemble/away" = 0.625, "m-seed1" = 0.25, "nobody" = 0.125 }

[bands]
file = ["b4", "b3", "b2"]

[domain.home]
role = "source"
split = "train"
holdout = { by = "ids", ranges = [[7, 8]] }

[domain.away]
role = "target"
split = "validation"
regions = { north = [1, 2], south = [3, 6] }
tta = ["none", "d4"]

[domain.far]
role = "target"
split = "test"

[member.m]
model = { name = "baseline", size = 16, width = 4 }
grid = { seed = [0, 1, 2], "train.steps" = [1, 2] }

[member.n]
model = { name = "baseline", size = 16, width = 4 }

[predict]
tta = ["none"]
"""
SHAPE = (16, 16)
SEEDS = (0, 1, 2)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Data where one mask has ignored pixels, and a recipe whose `m` has two axes."""
    place = tmp_path_factory.mktemp("report")
    data = write_split(place / "data", "train", range(1, 9))
    write_split(data, "validation", range(1, 7), seed=1)
    write_split(data, "test", range(5), seed=2, masks=False)
    mask = (np.arange(256).reshape(SHAPE) % 3 == 0).astype(np.uint8)
    mask[:5] = 255
    write_h5(data / "ValidData/mask/mask_3.h5", "mask", mask)
    write_recipe(place / "scored.toml", text=RECIPE)
    return place


def open_run(place, root):
    machine = Machine("cpu", "fp32", cache=place / "cache")
    (x,) = open_session(str(place / "scored.toml"), [], place / "data", root, machine)
    return x


def values_of(name: str, domain: str, number: int, tta: str, count: int) -> np.ndarray:
    """Probabilities that differ from file to file, and are better than chance where a mask is 1."""
    seed = [ord(letter) for letter in f"{name}{domain}{tta}"] + [number]
    return np.random.default_rng(seed).random((count, *SHAPE)).astype(np.float16)


def write(x, number, name, domain, tta="none", values=None):
    rows = x.domains[domain].predicted
    values = values_of(name, domain, number, tta, len(rows)) if values is None else values
    about = {"member": name, "fingerprint": f"{name}{number}", "domain": domain, "tta": tta, "kind": "probability"}
    ids = x.domains[domain].ids(rows)
    with write_probs(
        x.run.probs(x.run.member(number, name), domain, tta), ids=ids, shape=values.shape, **about
    ) as writer:
        writer.put(0, values)


@pytest.fixture(scope="module")
def x(place):
    """An experiment whose files of probabilities are there, but for some."""
    x = open_run(place, place / "runs" / "scored")
    for seed in SEEDS:
        for number in (0, 1):
            write(x, number, f"m-seed{seed}-steps1", "away")
    write(x, 0, "m-seed0-steps2", "away")
    write(x, 0, "n", "home")
    write(x, 1, "n", "away", "d4")  # round 0 did not predict this
    for number in (0, 1):
        write(x, number, "ensemble", "away")
        write(x, number, "ensemble", "far")
    return x


@pytest.fixture(scope="module")
def rows(x):
    return score_run(x)


def find(rows, **about):
    (row,) = [row for row in rows if all(row.get(key) == value for key, value in about.items())]
    return row


def truth_and_values(x, row):
    domain = x.domains[row["domain"]]
    rows = domain.predicted
    masks = np.asarray(domain.cache.masks[rows])
    values = values_of(row["name"], row["domain"], row["round"], row["tta"], len(rows)).astype(np.float64)
    return masks, values


def test_there_is_a_row_for_each_file_whose_truth_is_known(rows):
    found = [(row["round"], row["kind"], row["name"], row["domain"], row["tta"]) for row in rows]
    assert found == [
        (0, "member", "m-seed0-steps1", "away", "none"),
        (0, "member", "m-seed0-steps2", "away", "none"),
        (0, "member", "m-seed1-steps1", "away", "none"),
        (0, "member", "m-seed2-steps1", "away", "none"),
        (0, "member", "n", "home", "none"),
        (0, "seeds", "m steps=1", "away", "none"),
        (0, "ensemble", "ensemble", "away", "none"),
        (1, "member", "m-seed0-steps1", "away", "none"),
        (1, "member", "m-seed1-steps1", "away", "none"),
        (1, "member", "m-seed2-steps1", "away", "none"),
        (1, "member", "n", "away", "d4"),
        (1, "seeds", "m steps=1", "away", "none"),
        (1, "ensemble", "ensemble", "away", "none"),
    ]


def test_scores_against_sklearn(x, rows):
    single = [row for row in rows if row["kind"] != "seeds"]
    assert len(single) == 11
    for row in single:
        masks, values = truth_and_values(x, row)
        valid = masks != 255
        t, v = masks[valid], values[valid]
        p = v >= 0.5
        wanted = {
            "f1": f1_score(t, p),
            "precision": precision_score(t, p),
            "recall": recall_score(t, p),
            "iou": jaccard_score(t, p),
            "average_precision": average_precision_score(t, v),
            "oracle_f1": max(f1_score(t, v >= at) for at in np.unique(v)[::50]),
            "predicted_share": p.mean(),
            "true_share": t.mean(),
        }
        oracle = row["oracle_f1"]
        assert oracle >= wanted.pop("oracle_f1") - 1e-12
        assert oracle == pytest.approx(f1_score(t, v >= row["oracle_threshold"]))
        assert {key: row[key] for key in wanted} == pytest.approx(wanted, abs=1e-9)
        assert row["f1_low"] <= row["f1"] <= row["f1_high"]
        assert row["patches"] == len(masks)


def test_targets_are_cut_where_the_held_out_source_was_best(x, rows):
    home = find(rows, round=0, name="n", domain="home")
    assert "heldout" not in home["cuts"]  # that is its oracle
    row = find(rows, round=1, name="n", domain="away")  # of round 1, where n has not predicted home
    assert "heldout" not in row["cuts"]
    write(x, 1, "n", "home")
    row = find(score_run(x), round=1, name="n", domain="away")
    x.run.probs(x.run.member(1, "n"), "home", "none").unlink()
    home_masks, home_values = truth_and_values(x, home | {"round": 1})
    cut = row["cuts"]["heldout"]
    best = max(f1_score(home_masks.ravel(), home_values.ravel() >= at) for at in np.unique(home_values))
    assert f1_score(home_masks.ravel(), home_values.ravel() >= cut["threshold"]) == pytest.approx(best)
    masks, values = truth_and_values(x, row)
    known = masks != 255
    assert cut["f1"] == pytest.approx(f1_score(masks[known], values[known] >= cut["threshold"]))
    assert row["regions"]["north"]["cuts"]["heldout"]["threshold"] == cut["threshold"]
    page = x.run.table.with_suffix(".md").read_text().split("## away, tta d4")[1]
    assert "held-out F1" in page and f"{cut['f1']:.3f} (at {cut['threshold']:.2f})" in page
    score_run(x)


def test_ignored_pixels_were_there(x):
    assert (np.asarray(x.domains["away"].cache.masks) == 255).sum() == 5 * 16


def test_regions(x, rows):
    row = find(rows, round=1, name="ensemble")
    masks, values = truth_and_values(x, row)
    for name, part in {"north": slice(0, 2), "south": slice(2, 6)}.items():
        valid = masks[part] != 255
        found = row["regions"][name]
        assert found["f1"] == pytest.approx(f1_score(masks[part][valid], values[part][valid] >= 0.5))
        assert found["patches"] == part.stop - part.start
    assert "regions" not in find(rows, name="n", domain="home")


def test_the_change_since_round_0_over_the_same_patches(x, rows):
    row = find(rows, round=1, name="m-seed1-steps1")
    counts = []
    for number in (1, 0):
        masks, values = truth_and_values(x, row | {"round": number})
        p, t, valid = values >= 0.5, masks == 1, masks != 255
        kinds = (p & t & valid, p & ~t & valid, ~p & t & valid)
        counts.append(np.stack([kind.sum((1, 2)) for kind in kinds], 1))

    def f1(rows, drawn):
        tp, fp, fn = rows[drawn].sum(0)
        return 2 * tp / (2 * tp + fp + fn)

    every = np.arange(6)
    rng, changes = np.random.default_rng(0), []
    for _ in range(1000):
        drawn = rng.integers(6, size=6)
        changes.append(f1(counts[0], drawn) - f1(counts[1], drawn))
    low, high = np.quantile(changes, [0.025, 0.975])
    wanted = {"f1": f1(counts[0], every) - f1(counts[1], every), "low": low, "high": high}
    assert row["change"] == pytest.approx(wanted, abs=1e-9)
    assert row["change"]["f1"] == pytest.approx(row["f1"] - find(rows, round=0, name="m-seed1-steps1")["f1"])


def test_no_change_where_round_0_has_no_such_file(rows):
    assert "change" not in find(rows, name="n", tta="d4")
    assert all("change" not in row for row in rows if row["round"] == 0)


def test_spread_over_seeds(rows):
    for number in (0, 1):
        row = find(rows, round=number, kind="seeds")
        own = [find(rows, round=number, name=f"m-seed{seed}-steps1") for seed in SEEDS]
        assert (row["n"], row["seeds"], row["true_share"]) == (3, [0, 1, 2], own[0]["true_share"])
        for key in ("f1", "average_precision", "oracle_f1", "predicted_share"):
            values = np.array([each[key] for each in own])
            assert row[key] == pytest.approx(values.mean())
            assert row[f"{key}_sd"] == pytest.approx(values.std(ddof=1))
    changes = [each["change"]["f1"] for each in own]
    assert row["change"] == pytest.approx({"f1": np.mean(changes), "sd": statistics.stdev(changes)})


def test_printed_numbers_stand_beside_their_rows(x, rows):
    assert find(rows, round=0, name="ensemble")["printed"] == 0.625
    assert "printed" not in find(rows, round=1, name="ensemble")
    text = x.run.table.with_suffix(".md").read_text()
    assert "| away 0.625 |" in text
    assert "without a row here: m-seed1 0.25, nobody 0.125." in text


def test_files_hold_the_same_and_no_times(x, rows):
    table = json.loads(x.run.table.read_text())
    assert table["rows"] == json.loads(json.dumps(rows))
    assert (table["recipe"], table["unscored"]) == ("scored", ["far (5 of 5 patches have no mask)"])
    before = {name: (x.run.root / name).read_bytes() for name in ("table.json", "table.md")}
    for name in before:
        (x.run.root / name).unlink()
    score_run(x)
    assert before == {name: (x.run.root / name).read_bytes() for name in before}


def test_the_page_says_what_the_rows_say(x, rows):
    text = x.run.table.with_suffix(".md").read_text()
    assert text.startswith("# scored\n\nA title\n\nA paper\n")
    assert "oracle" in text.lower() and "far" in text.split("Not scored")[1]
    overview, detail = text.split("## away, tta none")
    for row in rows:
        shown = (
            f"{row['f1']:.3f} ± {row['f1_sd']:.3f}"
            if row["kind"] == "seeds"
            else f"{row['f1']:.3f} [{row['f1_low']:.3f}, "
        )
        assert shown in overview
        assert row["tta"] == "d4" or row["domain"] == "home" or shown in detail
    header = next(line for line in overview.splitlines() if line.startswith("| round"))
    assert header.split(" | ")[2:6] == ["home none", "home none oracle", "away d4", "away d4 oracle"]
    columns = {line.count("|") for line in overview.split("## ")[1].splitlines() if line.startswith("|")}
    assert columns == {header.count("|")}
    change = find(rows, round=1, name="ensemble")["change"]
    assert f"{change['f1']:+.3f} [{change['low']:+.3f}, {change['high']:+.3f}]" in text


def test_a_run_without_predictions(place, tmp_path):
    x = open_run(place, tmp_path / "empty")
    assert score_run(x) == []
    assert "Nothing is scored yet" in (tmp_path / "empty/table.md").read_text()
    assert draw_run(x) == []


def test_a_report_from_the_folder_alone_makes_the_same_bytes(place, x, rows, tmp_path):
    wanted = {name: (x.run.root / name).read_bytes() for name in ("table.json", "table.md")}
    shutil.copytree(x.run.root, tmp_path / "moved")
    for name in wanted:
        (tmp_path / "moved" / name).unlink()
    before = {
        path.relative_to(tmp_path): path.read_bytes() for path in (tmp_path / "moved").rglob("*") if path.is_file()
    }
    found = report_run(tmp_path / "moved", place / "data", place / "cache", pictures=False)
    assert found == {"": rows}
    assert wanted == {name: (tmp_path / "moved" / name).read_bytes() for name in wanted}
    after = {
        path.relative_to(tmp_path): path.read_bytes() for path in (tmp_path / "moved").rglob("*") if path.is_file()
    }
    assert {path for path in after if path.name not in wanted} == set(before)
    assert all(after[path] == content for path, content in before.items())


def test_a_sweep_gets_one_table_of_its_cells(place, x, rows, tmp_path):
    for cell in ("lr1", "lr2"):
        shutil.copytree(x.run.root, tmp_path / "sweep" / cell)
    found = report_run(tmp_path / "sweep", place / "data", place / "cache", pictures=False)
    assert found == {"lr1": rows, "lr2": rows}
    table = json.loads((tmp_path / "sweep/table.json").read_text())
    assert len(table["rows"]) == 2 * len(rows)
    assert {row["name"] for row in table["rows"]} >= {"lr1/ensemble", "lr2/ensemble"}
    assert "| **lr2/ensemble** |" in (tmp_path / "sweep/table.md").read_text()


def test_the_command(place, x, rows, tmp_path):
    shutil.copytree(x.run.root, tmp_path / "run")
    arguments = [
        "report",
        str(tmp_path / "run"),
        "--data",
        str(place / "data"),
        "--cache",
        str(place / "cache"),
        "--no-pictures",
    ]
    shown = CliRunner().invoke(app, arguments)
    assert shown.exit_code == 0, shown.output
    assert f"table       {tmp_path / 'run/table.md'}" in shown.stdout and "oracle F1" in shown.stdout
    assert not (tmp_path / "run/pictures").exists()
    assert json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)[""] == json.loads(json.dumps(rows))
    refused = CliRunner().invoke(app, ["report", str(place / "data")])
    assert refused.exit_code == 2
    assert "is no run directory" in refused.stderr


def test_other_data_are_refused(x, place, tmp_path):
    shutil.copytree(x.run.root, tmp_path / "run")
    data = write_split(tmp_path / "data", "train", range(1, 9))
    write_split(data, "validation", [1, 2, 3, 4, 5])
    write_split(data, "test", range(5), masks=False)
    with pytest.raises(RunError, match="what lies in .*data is not what .*run was made with .*give --data the folder"):
        report_run(tmp_path / "run", data, tmp_path / "cache")


def test_masks_that_have_changed_since_are_refused_and_those_that_come_later_are_not(x, place, tmp_path):
    shutil.copytree(x.run.root, tmp_path / "run")
    shutil.copytree(place / "data", tmp_path / "data")
    images = sorted((tmp_path / "data/TestData/img").iterdir())
    for path in images:  # the test set was withheld when the run was made
        name = path.name.replace("image", "mask")
        write_h5(tmp_path / "data/TestData/mask" / name, "mask", np.zeros((16, 16), np.uint8))
    assert report_run(tmp_path / "run", tmp_path / "data", tmp_path / "cache", pictures=False)
    (mask, *_) = sorted((tmp_path / "data/ValidData/mask").iterdir())
    write_h5(mask, "mask", np.ones((16, 16), np.uint8))
    with pytest.raises(RunError, match="is not what .*run was made with"):
        report_run(tmp_path / "run", tmp_path / "data", tmp_path / "cache", pictures=False)


# ---- pictures ----


def test_pictures_of_the_last_ensembles(x):
    made = draw_run(x)
    assert [path.relative_to(x.run.root) for path in made] == [Path("pictures/away.png"), Path("pictures/far.png")]
    sizes = []
    for path in made:
        assert path.stat().st_size < 300_000
        with Image.open(path) as picture:
            assert picture.format == "PNG"
            colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 20)}
            sizes.append(picture.size)
        labelled = path.name == "away.png"
        assert ({HIT, FALSE, MISSED, IGNORED} <= colours) == labelled
    assert sizes[0][0] > sizes[1][0]  # without truth there is one column less
    before = made[0].read_bytes()
    assert draw_run(x)[0].read_bytes() == before


def test_errors_have_their_colours():
    values = np.array([[0.5, 0.49], [0.9, 0.1], [0.9, 0.1]], np.float16)
    mask = np.array([[1, 1], [0, 0], [255, 255]], np.uint8)
    wanted = [[HIT, MISSED], [FALSE, BACKGROUND], [IGNORED, IGNORED]]
    np.testing.assert_array_equal(painted(values, mask, 0.5), wanted)
    np.testing.assert_array_equal(painted(values, None, 0.5), [[HIT, BACKGROUND]] * 3)


def test_bands_are_stretched_alike_in_all_pictures():
    images = (
        np.random.default_rng(0).normal(size=(2, 3, 50, 50)).astype(np.float32) * np.array([1, 5, 9])[:, None, None]
    )
    shown, grey = displayed(images, (2, 1, 0))
    assert shown.shape == (2, 50, 50, 3) and grey is None
    low, high = np.percentile(images[:, 2], [2, 98])
    np.testing.assert_allclose(shown[..., 0], np.clip((images[:, 2] - low) / (high - low), 0, 1), atol=1e-5)
    first, grey = displayed(images, ())
    assert grey == 0
    np.testing.assert_array_equal(first[..., 0], first[..., 2])


def test_what_is_missing_is_shown_black_and_stretches_nothing():
    images = np.random.default_rng(0).normal(size=(2, 3, 9, 9)).astype(np.float32)
    whole, _ = displayed(images, (0, 1, 2))
    holed = images.copy()
    holed[0, :, 0, 0] = np.nan
    holed[:, 2] = np.nan
    shown, _ = displayed(holed, (0, 1, 2))
    assert (
        not shown[0, 0, 0].any() and not shown[..., 2].any() and np.abs(shown[..., :2] - whole[..., :2])[1].max() < 0.1
    )


def test_no_score_where_there_is_nothing_to_find(rows):
    row = find(rows, name="n", domain="home") | {"true_share": 0.0, "f1": 0.0}
    text = markdown("x", {}, [row], [])
    assert text.count("no landslide there") == 4 and "0.000 [" not in text


def test_markdown_without_anything():
    assert "Nothing is scored yet" in markdown("x", {}, [], [])


def test_the_pipeline_ends_in_the_table(monkeypatch, x):
    from l4s import pipeline

    called = []
    for name in ("run_pseudo", "run_fit", "run_predict", "run_ensemble", "run_submit"):
        monkeypatch.setattr(pipeline, name, lambda *_, name=name: called.append(name))
    x.run.table.unlink(missing_ok=True)
    pipeline.run_recipe(x)
    assert called[-1] == "run_submit" and x.run.table.is_file()
    write_json(x.run.table, {})
