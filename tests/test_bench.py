"""`l4s bench` times what `l4s train` does, and leaves nothing behind."""

import json
from pathlib import Path

from data_factory import write_data, write_recipe
from typer.testing import CliRunner

from l4s.cli import app


def test_bench_prints_both_rates_of_a_member(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path / "data")
    write_recipe(tmp_path / "tiny.toml")
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    flags = ["--steps", "2", "--precision", "fp32", "--cache", str(tmp_path / "cache"), "--json"]
    result = CliRunner().invoke(app, ["bench", "tiny.toml", "--data", "data", *flags])
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)
    assert rows
    for row in rows:
        assert row["cache"] > 0 and row["resident"] > 0
        assert row["ratio"] == row["cache"] / row["resident"]
    made = {path for path in tmp_path.rglob("*") if path.is_file() and tmp_path / "cache" not in path.parents}
    assert made == before
