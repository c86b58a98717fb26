"""The folders inside a run directory, and what makes a step finished.

A step owns a folder and writes `done.json` last. A ProbFile or pseudo-label file is finished once it has its name.
Running the same command again skips what is finished; deleting a folder is how to redo a step.
"""

import fcntl
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from l4s.errors import RunError
from l4s.files import link, read_json, write_json

COPY, CONFIG = "recipe.toml", "config.json"  # a run's recipe as it was given, and as it was read
ENVIRONMENT = "env.json"  # where and how a run was started
STARTED, DONE, METRICS = "started.json", "done.json", "metrics.jsonl"  # of a step


@dataclass(frozen=True)
class RunDir:
    """One run on disk, or one `cell` of a sweep."""

    root: Path
    cell: str = ""

    @property
    def runs(self) -> Path:
        """The folder that this run and others lie in."""
        return self.root.parent.parent if self.cell else self.root.parent

    @property
    def config(self) -> Path:
        return self.root / CONFIG

    @property
    def environment(self) -> Path:
        return self.root / ENVIRONMENT

    @property
    def table(self) -> Path:
        return self.root / "table.json"

    def stats(self, domain: str) -> Path:
        return self.root / "stats" / f"{domain}.json"

    def member(self, round_: int, member: str) -> Path:
        return self.root / f"round-{round_}" / member

    def ensemble(self, round_: int, group: str = "") -> Path:
        return self.root / f"round-{round_}" / "-".join(filter(None, ("ensemble", group)))

    def heldout(self, round_: int, group: str = "") -> Path:
        """Where an ensemble's F1 on the held-out sources is highest, by test-time augmentation."""
        return self.ensemble(round_, group) / "heldout.json"

    def pseudo(self, round_: int, group: str = "") -> Path:
        return self.root / f"round-{round_}" / "-".join(filter(None, ("pseudo", group)))

    def kept(self, round_: int, group: str = "") -> Path:
        """How much the pseudo labels of a round keep of each domain."""
        return self.pseudo(round_, group) / "kept.json"

    @property
    def submission(self) -> Path:
        return self.root / "submission"

    def entry(self, recipe: str, domain: str, group: str = "") -> Path:
        """The zip that the last round ends in."""
        return self.submission / f"{'-'.join(filter(None, (recipe, domain, group)))}.zip"

    @property
    def pictures(self) -> Path:
        return self.root / "pictures"

    @staticmethod
    def probs(folder: Path, domain: str, tta: str) -> Path:
        """The ProbFile of a member or an ensemble for a domain under a test-time augmentation."""
        return folder / "probs" / f"{domain}.{tta}.h5"


def command(run: Path, name: str, *options: object) -> str:
    """`l4s NAME` on the run or sweep cell at `run` as it is, with these options: to be typed as it stands."""
    root = whole(run)
    words = [str(root)] if (run / COPY).is_file() else ["RECIPE", "--run", str(root)]
    return f"`{shlex.join(['l4s', name, *words, *map(str, options)])}`"


def whole(run: Path) -> Path:
    """The folder of the run at `run`, or of the sweep that the cell there is part of: a sweep is run as a whole."""
    cell = not (run / ENVIRONMENT).is_file() and (run.parent / ENVIRONMENT).is_file()
    return run.parent if cell else run


def started(run: Path) -> dict[str, Any]:
    """Where the run at `run` was started, and the `data` and overrides (`set`) last given; empty where it does not say."""
    path = whole(run) / ENVIRONMENT
    return read_json(path) if path.is_file() else {}


def reached(point: str) -> None:
    """Named points of a run at which tests stop the process; does nothing."""


def finished(folder: Path) -> bool:
    """Has a step in this folder been finished, whatever its settings were?"""
    return (folder / DONE).is_file()


def begun(folder: Path) -> bool:
    """Has a step in this folder been finished, or only been started?"""
    return finished(folder) or (folder / STARTED).is_file()


def facts_of(folder: Path) -> dict[str, Any]:
    """What a finished step says of itself: its `fingerprint`, and what else `finish` was given."""
    return read_json(folder / DONE)


def is_done(folder: Path, fingerprint: str) -> bool:
    """Has this step been finished, with exactly these settings and inputs?

    Raises:
        RunError: it was finished with others; nothing is overwritten.
    """
    if not finished(folder):
        return False
    found = facts_of(folder).get("fingerprint")
    if found != fingerprint:
        raise RunError(
            f"{folder} was made with other settings or inputs (fingerprint {found}, now {fingerprint}): "
            "delete the folder to redo it, or choose another --run"
        )
    return True


def refuse_other(folder: Path, fingerprint: str) -> None:
    """A step that was begun goes on only with the settings that it was begun with.

    Raises:
        RunError: these are others.
    """
    started = folder / STARTED
    if started.is_file() and read_json(started)["fingerprint"] != fingerprint:
        raise RunError(f"{folder} was started with other settings: delete the folder, or choose another --run")


@contextmanager
def alone(folder: Path) -> Iterator[str]:
    """Keep other processes out of a step whose state in its folder they would overwrite.

    The system lets go of the lock when a process ends, however it does.

    Yields:
        Why the folder could not be locked, on a file system without locks; "" elsewhere.

    Raises:
        RunError: another process has the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("wb") as file:
        unlocked = ""
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunError(f"another process is at work in {folder}: wait for it, or stop it first") from error
        except OSError as error:
            unlocked = str(error)
        yield unlocked


def finish(folder: Path, fingerprint: str, **facts: object) -> None:
    """Mark a step as finished; written after everything else in the folder."""
    write_json(folder / DONE, {"fingerprint": fingerprint, **facts})


def find_equal(folder: Path, fingerprint: str, root: Path, precision: str) -> Path | None:
    """The folder of an equal step of any run below `root`, finished in the same precision; None where there is none."""
    for done in sorted(_finished(root)):
        facts = read_json(done)
        if done.parent != folder and facts.get("fingerprint") == fingerprint and _precision(done, facts) == precision:
            return done.parent
    return None


def _precision(done: Path, facts: Mapping[str, Any]) -> str | None:
    """What a step was finished in; of older ones, what their run or sweep says."""
    if "made" in facts:
        return str(facts["made"]["precision"])
    precision: str | None = started(done.parents[2]).get("precision")
    return precision


def take_over(other: Path, folder: Path, files: Sequence[str]) -> None:
    """Link the `files` of a finished step into a folder, and finish it."""
    for path in sorted(path for pattern in files for path in other.glob(pattern)):
        link(path, folder / path.name)
    link(other / DONE, folder / DONE)


def _finished(root: Path) -> Iterator[Path]:
    """`done.json` of every member in runs and sweep cells below a folder of runs."""
    for runs in ("*", "*/*"):
        yield from root.glob(f"{runs}/round-*/*/{DONE}")
