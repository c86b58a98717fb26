"""What is said of where something was made."""

import shutil
import subprocess
from pathlib import Path

import pytest

from l4s import environment


def git(folder: Path, *words: str) -> str:
    who = ("-c", "user.name=somebody", "-c", "user.email=a@b.c")
    return subprocess.run(
        ["git", *who, "-C", str(folder), *words], check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_the_commit_is_that_of_the_checkout_it_runs_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not of a checkout of something else that it is installed inside of."""
    package = tmp_path / "project" / "l4s"
    package.mkdir(parents=True)
    git(tmp_path, "init", "-q", "project")
    git(package, "commit", "-q", "--allow-empty", "-m", "first")
    monkeypatch.setattr(environment, "__file__", str(package / "environment.py"))
    assert environment._commit() == git(package, "rev-parse", "--short=12", "HEAD")
    inside = tmp_path / "project" / ".venv" / "l4s"
    inside.mkdir(parents=True)
    monkeypatch.setattr(environment, "__file__", str(inside / "environment.py"))
    assert environment._commit() is None
