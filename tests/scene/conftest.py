"""A tiny run that scenes are predicted with, and the command line as a function."""

from pathlib import Path

import pytest
from data_factory import write_data, write_recipe
from typer.testing import CliRunner

from l4s.cli import app
from l4s.pipeline import train_round
from l4s.session import Machine, open_session


@pytest.fixture(scope="session")
def scene_run(tmp_path_factory) -> Path:
    """A run of two members, a and b, trained on patches of 16 pixels and three bands."""
    place = tmp_path_factory.mktemp("scene-run")
    data, recipe = write_data(place / "data"), write_recipe(place / "tiny.toml")
    sets = ["rounds=0", "train.steps=40", "train.evaluate_every=20", "predict.tta=['none']"]
    for x in open_session(str(recipe), sets, data, place / "run", Machine("cpu", "fp32", cache=place / "cache")):
        train_round(x, 0)
    return place / "run"


@pytest.fixture
def l4s():
    """Run `l4s` with these arguments."""
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])
