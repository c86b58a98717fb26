"""A tiny run that went through every step, and the command line as a function."""

from pathlib import Path

import pytest
from data_factory import write_recipe, write_split
from typer.testing import CliRunner

from l4s.cli import app
from l4s.pipeline import run_recipe
from l4s.session import Machine, open_session

SHORT = """
[domain.away-by-source]
role = "eval"
split = "validation"
normalise = "source"
tta = ["none"]

[domain.far]
role = "target"
split = "test"
"""


@pytest.fixture
def l4s():
    """Run `l4s` with these arguments."""
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    """A folder with `data` and the finished run `run`: home (source), away (masks known) and far (masks withheld)."""
    place = tmp_path_factory.mktemp("tiny")
    data = write_split(place / "data", "train", range(1, 9))
    write_split(data, "validation", range(1, 6), seed=1, gain=4.0, offset=20.0)
    write_split(data, "test", range(11, 15), seed=2, gain=2.0, offset=-5.0, masks=False)
    recipe = write_recipe(place / "tiny.toml", SHORT)
    machine = Machine("cpu", "fp32", cache=place / "cache")
    for x in open_session(str(recipe), ["train.steps=2", "train.evaluate_every=1"], data, place / "run", machine):
        run_recipe(x)
    return place
