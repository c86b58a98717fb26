"""What a run can say of itself without its data: the facts of a submission, and who trains when."""

import json
import tomllib
from pathlib import Path

import pytest
from data_factory import RECIPE

from l4s.errors import RunError
from l4s.load import expand, load_recipe, parse_recipe
from l4s.plan import Plan, asked, data_folder, submission_facts
from l4s.rundir import RunDir


def planned(tmp_path, rows=(), **tables):
    """The plan of the tiny recipe with other tables, and a report of these rows."""
    recipe = parse_recipe(tomllib.loads(RECIPE) | tables, "tiny")
    run = RunDir(tmp_path / "run")
    run.root.mkdir(exist_ok=True)
    run.table.write_text(json.dumps({"rows": rows}))
    return Plan(run, recipe, expand(recipe))


def row(f1, tta="d4", threshold=0.5, **where):
    place = {"role": "source", "kind": "ensemble", "name": "ensemble", "round": 1, "domain": "home"}
    return place | {"f1": f1, "tta": tta, "threshold": threshold} | where


@pytest.mark.parametrize(("tta", "f1"), [("d4", 0.7), ("none", 0.6)])
def test_local_scores_are_of_the_view_that_is_ensembled(tmp_path, tta, f1):
    plan = planned(tmp_path, [row(0.7), row(0.6, "none")], ensemble={"tta": tta})
    assert submission_facts(plan, 1, "", threshold=0.5, min_area=0) == {
        "recipe": "tiny",
        "run": "run",
        "round": 1,
        "members": ["a", "b"],
        "local_scores": {"home": f1},
    }


def test_another_view_can_be_submitted(tmp_path):
    plan = planned(tmp_path, [row(0.7), row(0.6, "none")])
    assert submission_facts(plan, 1, "", threshold=0.5, min_area=0, tta="none")["local_scores"] == {"home": 0.6}


def test_the_only_view_there_is_stands_for_another_and_none_of_several_does(tmp_path):
    others = [row(0.5, "none", domain="only"), row(0.4, "none", domain="two"), row(0.3, "flip", domain="two")]
    plan = planned(tmp_path, [row(0.7), *others])
    assert submission_facts(plan, 1, "", threshold=0.5, min_area=0)["local_scores"] == {"home": 0.7, "only": 0.5}


def test_other_rows_are_no_local_scores(tmp_path):
    others = [row(0.7, role="target"), row(0.7, kind="member"), row(0.7, name="ensemble-x"), row(0.7, round=0)]
    assert "local_scores" not in submission_facts(planned(tmp_path, others), 1, "", threshold=0.5, min_area=0)


def test_the_threshold_of_local_scores_is_told_where_the_submission_has_another(tmp_path):
    plan = planned(tmp_path, [row(0.7)])
    assert submission_facts(plan, 1, "", threshold=0.4, min_area=0)["local_threshold"] == 0.5
    assert "local_threshold" not in submission_facts(plan, 1, "", threshold=0.5, min_area=0)


def test_small_areas_are_no_part_of_local_scores(tmp_path):
    plan = planned(tmp_path, [row(0.7)])
    assert submission_facts(plan, 1, "", threshold=0.5, min_area=9)["local_min_area"] == 0
    assert "local_min_area" not in submission_facts(
        planned(tmp_path, [row(0.7, role="target")]), 1, "", threshold=0.5, min_area=9
    )


def test_several_thresholds_of_local_scores_are_none(tmp_path):
    plan = planned(tmp_path, [row(0.7, threshold=0.8), row(0.6, threshold=0.9, domain="other")])
    assert submission_facts(plan, 1, "", threshold=0.5, min_area=0)["local_threshold"] is None


def test_hrnet_ocr_joins_the_winner_s_last_round(tmp_path):
    """Zhao 2022 averages three networks; Table 1 has HRNet-OCR in round 4 alone."""
    recipe = load_recipe("zhao2022")
    plan = Plan(RunDir(tmp_path), recipe, expand(recipe))
    three = {"segformer", "swin", "efficientnetv2"}
    trained = [{member.name for member in plan.trained(number)} for number in range(recipe.rounds + 1)]
    assert trained == [three] * 4 + [three | {"hrnet-ocr"}]


def test_the_organisers_adam_decays_every_parameter():
    assert load_recipe("l4s-baseline").member["unet"].train.optimiser.decay_all


def test_a_round_names_a_whole_grid_or_one_of_it(tmp_path):
    rounds = [{"round": 0, "train": ["a", "b"]}, {"round": 1, "train": ["b", "a-seed1"], "labels_from": ["a-seed0"]}]
    member = tomllib.loads(RECIPE)["member"]
    member["a"]["grid"] = {"seed": [0, 1]}
    plan = planned(tmp_path, member=member, round=rounds)
    names = [[member.name for member in plan.trained(number)] for number in (0, 1)]
    assert names == [["a-seed0", "a-seed1", "b"], ["a-seed1", "b"]]


@pytest.mark.parametrize("cell", ["", "lr1"])
def test_a_run_and_each_cell_of_a_sweep_know_their_data(tmp_path, cell):
    root = tmp_path / "run"
    (root / cell).mkdir(parents=True)
    (root / cell / "config.json").write_text("{}")
    with pytest.raises(RunError, match="does not tell which data it was made with: give --data"):
        data_folder(root / cell)
    (root / "env.json").write_text(json.dumps({"data": "/there"}))
    assert data_folder(root / cell) == data_folder(root) == Path("/there")


def test_a_run_that_lies_in_another_one_is_no_cell_of_it(tmp_path):
    for root, data in ((tmp_path, "/outer"), (tmp_path / "inner", "/inner")):
        root.mkdir(exist_ok=True)
        (root / "config.json").write_text("{}")
        (root / "env.json").write_text(json.dumps({"data": data}))
    assert data_folder(tmp_path / "inner") == Path("/inner") and data_folder(tmp_path) == Path("/outer")


def test_what_is_no_run_has_no_data(tmp_path):
    with pytest.raises(RunError, match="is no run directory"):
        data_folder(tmp_path)


def test_a_card_tells_what_the_run_changed_in_its_recipe_and_no_folders(tmp_path):
    plan = planned(tmp_path)
    sets = ["train.steps=2", "member.a.init='/home/me/w.pt'", "member.b.init=C:\\w.pt", "name=2026-11-21T10:00:00"]
    (tmp_path / "run" / "env.json").write_text(json.dumps({"set": sets}))
    told = submission_facts(plan, 1, "", threshold=0.5, min_area=0)["set"]
    assert told == ["train.steps=2", "member.a.init=...", "member.b.init=...", "name=2026-11-21T10:00:00"]


@pytest.mark.parametrize("cell", ["", "lr1"])
def test_the_folder_of_a_run_stands_for_what_it_was_started_with(tmp_path, cell):
    root = tmp_path / "run"
    (root / cell).mkdir(parents=True)
    (root / cell / "config.json").write_text("{}")
    (root / "env.json").write_text(json.dumps({"data": "/there", "set": ["rounds=1"]}))
    recipe = str(root / cell / "recipe.toml")
    for folder in {root, root / cell}:  # a sweep is run as a whole
        assert asked(str(folder), [], None, None) == (recipe, ["rounds=1"], Path("/there"), root)
        assert asked(str(folder), ["rounds=2"], Path("d"), root) == (recipe, ["rounds=1", "rounds=2"], Path("d"), root)
        with pytest.raises(RunError, match="is a run, which goes on where it lies: leave --run .*other out"):
            asked(str(folder), [], None, tmp_path / "other")


def test_what_is_no_folder_of_a_run_is_a_recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("demo").mkdir()  # the name of a recipe, whatever lies here
    for recipe in ("mine.toml", "demo"):
        assert asked(recipe, ["rounds=1"], None, Path("r")) == (recipe, ["rounds=1"], Path("data"), Path("r"))
    Path("some").mkdir()
    with pytest.raises(RunError, match="some is no run directory"):
        asked("some", [], None, None)
