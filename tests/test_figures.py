"""Pictures of what members attend to, and of several side by side."""

import numpy as np
import pytest
from data_factory import write_data, write_recipe
from typer.testing import CliRunner

from l4s import figures
from l4s.cli import app
from l4s.data.probs import open_probs
from l4s.experiment import weights
from l4s.member import trained_member
from l4s.pipeline import run_recipe
from l4s.plots import FEATURE, draw_tiles
from l4s.promote import demote
from l4s.session import Machine, open_session

RECIPE = """
name = "seen"

[bands]
file = ["b4", "b3", "b2"]
groups = { rgb = ["b4", "b3"], dem = ["b2"] }

[domain.home]
role = "source"
split = "train"
holdout = { by = "ids", ranges = [[7, 8]] }

[domain.away]
role = "eval"
split = "validation"

[train]
steps = 2
batch = 2

[member.fused]
model = { name = "fusion", size = 16, width = 2 }

[member.plain]
model = { name = "baseline", size = 16, width = 2 }

[predict]
tta = ["none"]
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("figures")
    recipe = write_recipe(place / "seen.toml", text=RECIPE)
    machine = Machine("cpu", "fp32", cache=place / "cache")
    for x in open_session(str(recipe), [], write_data(place / "data"), place / "run", machine):
        run_recipe(x)
    return place


def report(place, *options):
    command = ["report", str(place / "run"), "--data", str(place / "data"), "--cache", str(place / "cache"), *options]
    return CliRunner().invoke(app, command)


def test_attention_lies_over_the_image_beside_a_feature(place, monkeypatch):
    drawn = {}
    monkeypatch.setattr(
        figures, "draw_tiles", lambda out, columns, names, legend: drawn.update({out.name: columns}) or out
    )
    assert report(place, "--attention", "fused").exit_code == 0
    assert sorted(drawn) == ["attention-fused-away.png", "attention-fused-home.png"]
    home, away = drawn["attention-fused-home.png"], drawn["attention-fused-away.png"]
    assert list(home)[:4] == ["image", "truth", "prediction", "attention"] and list(home)[4].startswith("feature ")
    assert list(away)[:3] == ["image", "prediction", "attention"]  # no masks
    for columns in (home, away):
        assert {tile.shape for tile in columns["attention"]} == {(16, 16, 3)}
        feature = np.stack(columns[list(columns)[-1]])
        assert feature.min() == 0 and feature.max() == 1


def test_what_is_drawn_is_the_pass_that_predicts(place, tmp_path):
    """Statistics of the domain's own, BatchNorm's of its images, and the promoted size."""
    (x,) = open_session(
        str(place / "seen.toml"),
        ["member.fused.norm=domain", "member.fused.train.scale.factor=2.0", "member.fused.adabn=true"],
        place / "data",
        tmp_path / "run",
        Machine("cpu", "fp32", cache=place / "cache"),
    )
    run_recipe(x)
    member = next(m for m in x.members if m.name == "fused")
    models = trained_member(x.recipe, member, 0, weights(x.run.member(0, "fused")), x.engine)
    said = []
    models[0].register_forward_hook(lambda _, __, output: said.append(output.logits))
    for name in ("home", "away"):
        domain = x.domains[name]
        maps, features = figures._looked_at(x, models, member, domain, domain.predicted.tolist())
        assert maps.shape == (len(domain.predicted), 16, 16) and features.shape[1] == 2
        probs = open_probs(x.run.probs(x.run.member(0, "fused"), name, "none")).read()
        drawn = demote(said[-1].sigmoid().squeeze(1), (16, 16)).numpy()
        np.testing.assert_allclose(drawn, probs, atol=1e-3)


def test_a_feature_is_drawn_on_one_scale(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr("matplotlib.axes.Axes.imshow", lambda axes, tile, **look: shown.append((tile.max(), look)))
    draw_tiles(tmp_path / "a.png", {f"{FEATURE} 3": [np.zeros((2, 2)), np.full((2, 2), 0.5)]}, ["a", "b"])
    assert [(top, look["vmin"], look["vmax"]) for top, look in shown] == [(0, 0, 1), (0.5, 0, 1)]


def test_answers_for_whole_patches_are_drawn_too(place, tmp_path):
    recipe = write_recipe(tmp_path / "seen.toml", text=RECIPE)
    sets = ["member.fused.model={name='patch_classifier',size=16,encoder='resnet18'}", "member.fused.task='classify'"]
    machine = Machine("cpu", "fp32", cache=place / "cache")
    for x in open_session(str(recipe), sets, place / "data", tmp_path / "run", machine):
        run_recipe(x)
    for path in figures.draw_comparison(tmp_path / "run", place / "data", ["fused"], place / "cache"):
        assert path.stat().st_size > 1000


def test_members_side_by_side(place):
    result = report(place, "--compare", "fused,plain")
    assert result.exit_code == 0, result.output
    for name in ("home", "away"):
        path = place / "run" / "pictures" / f"members-fused-plain-{name}.png"
        assert str(path) in result.stdout and path.read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--attention", "plain"], "shows no attention"),
        (["--attention", "fusd"], "did you mean 'fused'"),
        (["--compare", "fused,other"], "has no member 'other'"),
        (["--compare", "fused", "--study", "home"], "two commands"),
        (["--compare", "fused", "--no-pictures"], "--no-pictures is for the table"),
    ],
)
def test_what_cannot_be_drawn(place, options, message):
    result = report(place, *options)
    assert result.exit_code == 2 and message in " ".join(result.output.replace("│", " ").split())
