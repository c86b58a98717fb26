"""Every shipped recipe goes through all its rounds on generated data, with its networks, losses and rules, small and short."""

import json

import pytest
from data_factory import write_data, write_split

from l4s.data.synth import write_dataset
from l4s.data.synth_pictures import write_pictures
from l4s.load import load_cells, load_recipe, shipped
from l4s.pipeline import run_recipe
from l4s.sar.synth import write_regions
from l4s.session import Machine, open_session
from l4s.submit import check

SIZE = 32
DATA = {
    "l4s-rgb": "rgb",  # recipes of the project's own benchmark, with three bands
    "kimura2019-patches": "rgb",
    "kimura2019-mars": "mars",  # seven bands
    "kimura2019": "chips",  # chips of a scene, with four bands
    "lissak2024-mars": "mars",
    "lissak2024-iburi": "few",
    "lissak2024": "pictures",
    "boehm2022": "sar",
}
"""How a recipe's name begins -> its data, the longest that fits; the release's 14 bands elsewhere."""
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
    write_split(place / "mars", "test", range(1, 5), size=SIZE, bands=7, seed=2, masks=False)
    write_split(place / "few", "train", range(1, 9), size=SIZE)
    write_split(place / "few", "validation", range(1, 9), size=SIZE, seed=1)
    write_regions(place / "sar", seed=0, chips=(20, 16), size=SIZE, visits=5)
    write_pictures(place / "pictures" / "bijie", "bijie", {"landslide": 10, "non-landslide": 10}, 0)
    write_pictures(place / "pictures" / "hokkaido", "hokkaido", {"train": 4, "validation": 1, "test": 2}, 0)
    return place


def kind(name):
    """The data of a recipe."""
    return next((DATA[start] for start in sorted(DATA, key=len, reverse=True) if name.startswith(start)), "ms")


def small(name):
    """One step of four patches of 32 pixels, one seed, no downloads; everything else is the recipe's."""
    recipe = load_recipe(name)
    sets = ["train.schedule.warmup=0", "predict.batch=8"]  # AdaBN needs two pixels a batch
    for domain, config in recipe.domain.items():
        sets += [f"domain.{domain}.holdout={{by='block', share=0.3}}"] if config.holdout.by == "ids" else []
        sets += [f"domain.{domain}.fit.side={SIZE}"] if config.fit and config.fit.by == "resize" else []
    for base, member in recipe.member.items():
        factor = member.train.scale.factor
        assert isinstance(factor, float)
        sets += [f"member.{base}.train.steps=1", f"member.{base}.train.batch=4"]
        sets += [] if member.train.patience or member.train.keep_by != "f1" else [f"member.{base}.train.keep=0"]
        sets += [f"member.{base}.train.freeze=0"] if member.train.freeze else []
        sets += [f"member.{base}.grid={{'train.subset'=[2], seed=[0]}}"] if "train.subset" in member.grid else []
        sets += [f"member.{base}.grid.seed=[0]"] if "train.subset" not in member.grid and "seed" in member.grid else []
        sets += [f"member.{base}.model.size={int(SIZE * factor)}"]
        sets += [f"member.{base}.model.width=4"] if member.model.name in ("anomaly_unet", "fusion") else []
        sets += [f"member.{base}.task.positive_share=0.1"] if member.train.balance else []  # every patch has landslides
        sets += [f"member.{base}.model.weights=none"] if "weights" in member.model.options else []
    return sets


def run(place, name):
    data = place / kind(name)
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
        wanted |= {(last, x.run.ensemble(last, group).name) for group in x.plan.grouped(x.trained(last))}
        assert wanted <= made
        shown = [{"f1": row.get("printed")} | row.get("printed_scores", {}) for row in rows]
        printed = {value for scores in shown for value in scores.values() if value is not None}
        assert printed == set(x.recipe.about.expected.values()), "every printed number stands beside a row of ours"
        if x.recipe.submit:
            (zip_,) = x.run.submission.glob("*.zip")
            domain = x.domains[x.recipe.submit.domain]
            assert check(zip_, domain.ids(domain.predicted), (SIZE, SIZE)).ok
