"""From the arguments of a command to open experiments."""

import json

import pytest
from data_factory import write_data, write_recipe

from l4s.errors import DataError, RecipeError, RunError
from l4s.load import parse_recipe
from l4s.rundir import RunDir
from l4s.session import Machine, open_session


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("session")
    write_data(place / "data")
    recipe = write_recipe(place / "tiny.toml").read_text()
    (place / "bare.toml").write_text(recipe[: recipe.index("[submit]")])
    return place


def opened(place, root, *sets, data=None, recipe="tiny.toml", **flags):
    machine = Machine(**{"device": "cpu", "precision": "fp32", "cache": place / "cache"} | flags)
    return list(open_session(str(place / recipe), sets, data or place / "data", root, machine))


def test_an_open_run_says_what_it_is_made_of(place, tmp_path):
    (x,) = opened(place, tmp_path / "run", "train.steps=3")
    assert x.run == RunDir(tmp_path / "run") and x.run.runs == tmp_path
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert parse_recipe(config, "config") == x.recipe and x.recipe.member["a"].train.steps == 3
    assert (tmp_path / "run" / "recipe.toml").read_bytes() == (place / "tiny.toml").read_bytes()
    stats = json.loads((tmp_path / "run" / "stats" / "home.json").read_text())
    assert (stats["patches"], stats["train"], stats["heldout"], stats["labelled"]) == (8, 6, 2, 8)
    assert stats["mean"] == x.domains["home"].stats.mean.tolist() and stats["subdomain_sizes"] == [8]
    environment = json.loads((tmp_path / "run" / "env.json").read_text())
    assert environment["precision"] == "fp32" and environment["processes"] == 1
    assert environment["data"] == str(place / "data") and environment["set"] == ["train.steps=3"]
    opened(place, tmp_path / "run", "train.steps=3", "rounds=2")
    again = json.loads((tmp_path / "run" / "env.json").read_text())
    assert again == environment | {"set": ["train.steps=3", "rounds=2"]}  # what config.json holds now
    assert {"torch", "numpy", "albumentations"} <= environment["libraries"].keys()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.loss=[{name='bse'}]", "loss 'bse'"),
        ("train.schedule.name=pole", "schedule 'pole'"),
        ("rouns=1", "rouns"),
    ],
)
def test_a_wrong_recipe_is_told_before_data_are_looked_for(place, tmp_path, override, message):
    with pytest.raises(RecipeError, match=message):
        opened(place, tmp_path / "run", override, data=tmp_path / "nowhere")
    assert not (tmp_path / "run").exists()
    with pytest.raises(DataError, match="nowhere does not exist"):
        opened(place, tmp_path / "run", data=tmp_path / "nowhere")


def test_a_network_that_does_not_take_its_images_is_told_before_data_are_looked_for(place, tmp_path):
    model = "member.a.model={name='patch_classifier',size=24,encoder='levit_128s'}"
    sets = (model, "member.a.task=classify", "rounds=0")
    with pytest.raises(RecipeError, match="member.a: model.encoder = 'levit_128s' takes no images of 24 pixels"):
        opened(place, tmp_path / "run", *sets, data=tmp_path / "nowhere", recipe="bare.toml")


SWIN = "member.a.model={name='patch_classifier',size=32,encoder='swin_tiny_patch4_window7_224'}"


@pytest.mark.parametrize(
    "sets",
    [
        (SWIN, "train.scale.factor=2"),  # 16 pixels become 32
        (SWIN, "train.scale={factor=4,crop=32}"),
        (SWIN, "train.scale={factor=[2,3]}"),  # of many sizes none is the one
        (SWIN, "train.scale.factor=1.5"),  # 24: built for the next multiple of 32
        (SWIN.replace("swin_tiny_patch4_window7_224", "resnet18"), "train.scale.factor=4"),  # does not depend on it
    ],
)
def test_a_network_may_be_as_large_as_its_images(place, tmp_path, sets):
    opened(place, tmp_path / "run", "member.a.task=classify", "rounds=0", *sets, recipe="bare.toml")


@pytest.mark.parametrize("scale", ["{factor=4}", "{factor=4,crop=64}"])
def test_a_network_that_is_built_for_another_size_of_images_is_refused(place, tmp_path, scale):
    sets = (SWIN, f"train.scale={scale}", "member.a.task=classify", "rounds=0")
    with pytest.raises(RecipeError, match="member.a: model.size = 32, but .* home have 64 pixels.* model.size = 64"):
        opened(place, tmp_path / "run", *sets, recipe="bare.toml")


def test_a_wrong_cell_is_told_before_the_first_is_run(place, tmp_path):
    text = (place / "tiny.toml").read_text() + "[sweep]\n'train.schedule.name' = ['poly', 'pole']\n"
    (place / "wrong.toml").write_text(text)
    with pytest.raises(RecipeError, match="schedule 'pole'"):
        opened(place, tmp_path / "run", recipe="wrong.toml")


def test_cells_of_a_sweep_are_runs_of_their_own(place, tmp_path):
    write_recipe(place / "sweep.toml", "[sweep]", "'pseudo.upper' = [0.6, 0.8]")
    cells = opened(place, tmp_path / "run", recipe="sweep.toml")
    assert [x.run.root.name for x in cells] == ["upper0.6", "upper0.8"]
    assert [x.recipe.pseudo.upper for x in cells] == [0.6, 0.8]
    assert {x.run.runs for x in cells} == {tmp_path}  # where `init = "run:NAME/..."` and equal steps are looked for
    assert (tmp_path / "run" / "upper0.8" / "config.json").is_file() and (tmp_path / "run" / "env.json").is_file()


def test_a_run_keeps_its_precision(place, tmp_path):
    opened(place, tmp_path / "run", precision="bf16")
    (x,) = opened(place, tmp_path / "run", precision="auto")
    assert x.engine.precision == "bf16"
    with pytest.raises(RunError, match="was started in bf16, not fp32: leave --precision out"):
        opened(place, tmp_path / "run", precision="fp32")


def test_a_round_without_labellers_is_refused_before_anything_is_trained(place, tmp_path):
    lines = "[ensemble]", "group_by = ['seed']", "[[round]]", "round = 0", "train = ['a']"
    write_recipe(place / "groups.toml", *lines)
    with pytest.raises(RecipeError, match="round 1, ensemble 'seed-0': no member of round 0 would label its targets"):
        opened(
            place, tmp_path / "run", "member.b.grid={seed=[0]}", "member.b.train.start=restart", recipe="groups.toml"
        )
