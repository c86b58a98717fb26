"""Every shipped recipe goes through all its rounds on generated data, with its networks, losses and rules, small and short."""

import json

import pytest
from data_factory import write_data, write_split

from l4s.data.synth import write_dataset
from l4s.load import load_cells, load_recipe, shipped
from l4s.pipeline import run_recipe
from l4s.session import Machine, open_session
from l4s.submit import check

SIZE = 32
RGB = ("l4s-rgb", "kimura2019-patches")  # recipes of the project's own benchmark, with three bands
CHIPS = ("kimura2019", "kimura2019-unlabelled")  # recipes of chips of a scene, with four bands
MARS = "kimura2019-mars"  # seven bands
FIRST = {"zhao2022-table2": "zhao2022"}  # recipes that start from the weights of another

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("recipes")
    write_dataset(place / "ms", seed=0, patches=(6, 4, 4), size=SIZE)
    write_data(place / "rgb", size=SIZE)
    write_split(place / "rgb", "test", range(101, 105), size=SIZE, seed=2, masks=False)
    write_split(place / "chips", "train", range(1, 9), size=SIZE, bands=4)
    write_split(place / "chips", "test", range(9, 13), size=SIZE, bands=4, seed=1)
    write_split(place / "mars", "train", range(1, 9), size=SIZE, bands=7)
    write_split(place / "mars", "validation", range(1, 5), size=SIZE, bands=7, seed=1)
    return place


def small(name):
    """One step of four patches of 32 pixels, one seed, no downloads; everything else is the recipe's."""
    recipe = load_recipe(name)
    sets = ["train.schedule.warmup=0", "predict.batch=8"]  # AdaBN needs two pixels a batch
    if name.startswith(RGB):
        sets += ["domain.taiwan.holdout={by='block', share=0.3}"]
        sets += ["member.lite0.grid.seed=[0]"] if "lite0" in recipe.member else []
    for base, member in recipe.member.items():
        factor = member.train.scale.factor
        assert isinstance(factor, float)
        sets += [f"member.{base}.train.steps=1", f"member.{base}.train.batch=4", f"member.{base}.train.keep=0"]
        sets += [f"member.{base}.model.size={int(SIZE * factor)}"]
        sets += [f"member.{base}.model.width=4"] if member.model.name == "anomaly_unet" else []
        sets += [f"member.{base}.task.positive_share=0.1"] if member.train.balance else []  # every patch has landslides
        sets += [f"member.{base}.model.weights=none"] if "weights" in member.model.options else []
    return sets


def run(place, name):
    data = place / ("rgb" if name.startswith(RGB) else "chips" if name in CHIPS else "mars" if name == MARS else "ms")
    machine = Machine("cpu", "fp32", cache=place / "cache")
    opened = []
    for x in open_session(name, small(name), data, place / "runs" / name, machine):
        run_recipe(x)
        opened.append(x)
    return opened


@pytest.mark.parametrize("name", shipped())
def test_a_recipe_runs_to_its_last_round(place, name):
    if name in FIRST:
        run(place, FIRST[name])
    cells = run(place, name)
    assert len(cells) == len(load_cells(name))
    for x in cells:
        rows = json.loads(x.run.table.read_text())["rows"]
        last = x.recipe.rounds
        made = {(row["round"], row["name"]) for row in rows}
        wanted = {(number, member.name) for number in range(last + 1) for member in x.trained(number)}
        wanted |= {(last, x.run.ensemble(last, group).name) for group in x.grouped(x.trained(last))}
        assert wanted <= made
        shown = [{"f1": row.get("printed")} | row.get("printed_scores", {}) for row in rows]
        printed = {value for scores in shown for value in scores.values() if value is not None}
        assert printed == set(x.recipe.about.expected.values()), "every printed number stands beside a row of ours"
        if x.recipe.submit:
            (zip_,) = x.run.submission.glob("*.zip")
            domain = x.domains[x.recipe.submit.domain]
            assert check(zip_, domain.ids(domain.predicted), (SIZE, SIZE)).ok
