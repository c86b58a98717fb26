"""What a run reached: every file of probabilities scored against the truth, as `table.json`, `table.md` and pictures.

Masks of targets are scored against here and nowhere before; what is chosen with them is called oracle.
"""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from l4s.data.domain import Domain, open_domain
from l4s.data.probs import ProbFile, open_probs
from l4s.engine import start_engine
from l4s.errors import RunError
from l4s.experiment import Experiment, open_experiment
from l4s.files import read_json, write_atomic, write_json
from l4s.judge import heldout_thresholds
from l4s.load import Member
from l4s.log import track
from l4s.metrics import paired_bootstrap, pooled_scores
from l4s.plan import cells, of_view, read_plan
from l4s.plots import draw_patches
from l4s.rundir import RunDir
from l4s.score import ScoreTable, score, threshold_of
from l4s.session import Machine
from l4s.table import expected_scores, markdown
from l4s.thresholds import HELDOUT
from l4s.truth import comparable, truth_of

Row = dict[str, Any]
SEED = 0
SHOWN = 5  # patches in a picture
AVERAGED = (
    *("f1", "precision", "recall", "iou", "mean_iou", "accuracy"),
    *("average_precision", "oracle_f1", "predicted_share"),
)
KINDS = ("member", "seeds", "ensemble")  # in the order of the table
ROLES = ("source", "target", "eval")


@dataclass(frozen=True)
class Scored:
    """A file of probabilities that has been scored, and what it is."""

    about: Row
    table: ScoreTable

    @property
    def place(self) -> tuple[str, str, str]:
        """What it shares with the same member's or ensemble's file of another round."""
        return self.about["name"], self.about["domain"], self.about["tta"]


def score_run(x: Experiment) -> list[Row]:
    """Score what a run has predicted so far, and write `table.json` and `table.md`, which depend on nothing else.

    Returns:
        A row for each round x member or ensemble x domain x test-time augmentation whose file exists and whose truth is
        known, and one (kind "seeds") for each member of which there are several seeds: F1 at 0.5 with its bootstrap
        interval, precision, recall, IoU, AP, oracle threshold and F1, landslide shares, regions, and the change since
        round 0 with its paired interval. Empty in all processes but the first.
    """
    rows: list[Row] = []
    if x.engine.main:
        rows = _rows(x)
        _write(x.run, x.recipe.name, x.recipe.about.model_dump(mode="json"), rows, _unscored(x))
    x.engine.wait()
    return rows


def report_run(root: Path, data: Path, cache: Path | None = None, pictures: bool = True) -> dict[str, list[Row]]:
    """Score a run from its directory and the data, cell by cell, and draw its last ensembles; any time, also while it runs.

    A sweep also gets one table of all its cells at `root`.

    Raises:
        RunError: there is no run at `root`, or the data are not those it was made with.
        DataError: the data are broken.
    """
    tables = {}
    for name, run in cells(root).items():
        x = reopen(run, data, cache)
        tables[name] = score_run(x)
        if pictures:
            draw_run(x)
    if len(tables) > 1:
        rows = [row | {"name": f"{cell}/{row['name']}"} for cell, rows in tables.items() for row in rows]
        _write(RunDir(root), root.name, {}, _sorted(rows), [])
    return tables


def reopen(run: RunDir, data: Path, cache: Path | None = None) -> Experiment:
    """A run opened to be looked at: nothing is written into it.

    Raises:
        RunError: there is no run, or the data are not those it was made with.
        DataError: the data are broken.
    """
    recipe = read_plan(run).recipe
    folder = Machine(cache=cache).cache_folder
    domains = {name: open_domain(name, d, recipe.bands, data, folder, track) for name, d in recipe.domain.items()}
    for domain in domains.values():
        _refuse_other(run, data, domain)
    return open_experiment(recipe, start_engine("cpu", "fp32"), run, domains)


def _refuse_other(run: RunDir, data: Path, domain: Domain) -> None:
    """What was predicted of other patches, or of the same ones before they were changed, is not scored on these."""
    known = read_json(run.stats(domain.name))
    masks_came_later = not known["labelled"] and known["hash"] == domain.stats.digest
    if known["content"] != domain.cache.digest and not masks_came_later:
        raise RunError(
            f"domain {domain.name}: what lies in {data} is not what {run.root} was made with (content {known['content']}, "
            f"now {domain.cache.digest}): give --data the folder of the run, or `l4s run` these data into another --run"
        )


def draw_run(x: Experiment) -> list[Path]:
    """Draw some patches of each predicted domain, with the last of each ensemble that there is.

    They go from the best F1 to the worst, or evenly over the ids where there is no truth.

    Returns:
        The files, which lie in `pictures` beside the table.
    """
    made = []
    for domain in x.predicted() if x.engine.main else ():
        files = {about["name"]: path for about, path in _files(x, domain) if about["kind"] == "ensemble"}
        for name, path in files.items():
            probs = open_probs(path)
            rows, notes = shown_patches(domain, probs)
            out = x.run.pictures / f"{domain.name}{name.removeprefix('ensemble')}.png"
            made.append(draw_patches(out, domain, probs, rows, threshold=threshold_of(probs), notes=notes))
    return made


def _rows(x: Experiment) -> list[Row]:
    scored: list[Scored] = []
    chosen = _heldout(x)
    for domain in x.predicted():
        truth = truth_of(domain)
        if truth is None:
            continue
        for about, path in _files(x, domain):
            probs = open_probs(path)
            if not comparable(domain, probs):
                continue
            of = {"of": "pixels" if probs.shapes[0] else "patches"}
            at = of_view(chosen[about["round"], about["name"]], about["tta"])
            others = {} if at is None or about["role"] == "source" else {HELDOUT: at}
            scored.append(Scored(about | of, score(probs, truth, others=others, seed=SEED)))
    first = {entry.place: entry.table for entry in scored if entry.about["round"] == 0}
    rows = [_row(entry, first.get(entry.place)) for entry in scored]
    return _sorted([_with_printed(row, x.recipe.about.expected) for row in rows + _over_seeds(rows)])


def _heldout(x: Experiment) -> dict[tuple[int, str], dict[str, float]]:
    """The thresholds that each member and ensemble of each round would have chosen on the held-out sources."""
    numbers = range(x.recipe.rounds + 1)
    return {
        (n, about["name"]): heldout_thresholds(x, members, folder)
        for n in numbers
        for about, members, folder in _makers(x, n)
    }


def _files(x: Experiment, domain: Domain) -> Iterator[tuple[Row, Path]]:
    """Files of a domain's probabilities that exist, and what they are; by round, members before ensembles."""
    for number in range(x.recipe.rounds + 1):
        for about, _, folder in _makers(x, number):
            for tta in x.plan.tta(domain.name):
                path = x.run.probs(folder, domain.name, tta)
                if path.is_file():
                    where = {"round": number, "domain": domain.name, "role": domain.config.role, "tta": tta}
                    yield about | where, path


def _makers(x: Experiment, number: int) -> Iterator[tuple[Row, Sequence[Member], Path]]:
    """Who predicts in a round, of whom, and where: its members and their ensembles."""
    members = x.trained(number)
    for member in members:
        about = {"kind": "member", "name": member.name, "base": _base(member), "seed": member.config.seed}
        yield about, [member], x.run.member(number, member.name)
    for group, averaged in x.plan.grouped(members).items():
        folder = x.run.ensemble(number, group)
        yield {"kind": "ensemble", "name": folder.name}, averaged, folder


def _base(member: Member) -> str:
    """What the seeds of one member have in common: its table in the recipe, and its other axes."""
    axes = [f"{key.rsplit('.', 1)[-1]}={value}" for key, value in sorted(member.axes.items()) if key != "seed"]
    return " ".join((member.base, *axes))


def _row(entry: Scored, first: ScoreTable | None) -> Row:
    table = entry.table
    about = {"threshold": table.threshold, "fingerprint": table.source["fingerprint"], "values": table.source["kind"]}
    row = entry.about | about | asdict(table.pooled)
    if len(table.regions) > 1:
        row["regions"] = {name: asdict(region) for name, region in table.regions.items()}
    if first is not None and entry.about["round"]:
        change, low, high = paired_bootstrap(table.counts, first.counts, SEED)
        row["change"] = {"f1": change, "low": low, "high": high}
    return row


def _with_printed(row: Row, expected: Mapping[str, float]) -> Row:
    """The row with the paper's numbers: `printed` is an F1, `printed_scores` the others by name."""
    printed = expected_scores(row, expected)
    row = row | ({"printed": printed.pop("f1")} if "f1" in printed else {})
    return row | ({"printed_scores": printed} if printed else {})


def _over_seeds(rows: Sequence[Row]) -> list[Row]:
    """Mean and standard deviation (n - 1) over the seeds of one member, where there are several."""
    groups: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        if row["kind"] == "member":
            groups.setdefault(tuple(row[key] for key in ("round", "base", "domain", "role", "tta")), []).append(row)
    return [_spread(group) for group in groups.values() if len(group) > 1]


def _spread(group: Sequence[Row]) -> Row:
    first = group[0]
    row = {key: first[key] for key in ("round", "base", "domain", "role", "tta", "true_share", "values", "of")}
    row["threshold"] = first["threshold"] if len({each["threshold"] for each in group}) == 1 else None
    row |= {"kind": "seeds", "name": first["base"], "n": len(group), "seeds": sorted(each["seed"] for each in group)}
    for key in AVERAGED:
        values = [each[key] for each in group]
        row |= {key: statistics.fmean(values), f"{key}_sd": statistics.stdev(values)}
    if all(each["auroc"] is not None for each in group):
        row["auroc"] = statistics.fmean(each["auroc"] for each in group)
    if first["cuts"]:
        shared = [name for name in first["cuts"] if all(name in each["cuts"] for each in group)]
        row["cuts"] = {name: _means([each["cuts"][name] for each in group]) for name in shared}
    changes = [each["change"]["f1"] for each in group if "change" in each]
    if len(changes) == len(group):
        row["change"] = {"f1": statistics.fmean(changes), "sd": statistics.stdev(changes)}
    return row


def _means(cuts: Sequence[Mapping[str, float]]) -> Row:
    return {key: statistics.fmean(each[key] for each in cuts) for key in cuts[0]}


def _sorted(rows: Sequence[Row]) -> list[Row]:
    # not in the recipe's order: a recipe read back from config.json has lost it, and the bytes must be the same
    return sorted(
        rows,
        key=lambda r: (r["round"], KINDS.index(r["kind"]), r["name"], ROLES.index(r["role"]), r["domain"], r["tta"]),
    )


def _unscored(x: Experiment) -> list[str]:
    """Domains without rows, or with fewer than files, and why."""
    told = []
    for domain in x.predicted():
        rows = domain.predicted
        if missing := int((~domain.cache.labelled[rows]).sum()):
            told.append(f"{domain.name} ({missing} of {len(rows)} patches have no mask)")
        elif domain.by_patch and any(not comparable(domain, open_probs(path)) for _, path in _files(x, domain)):
            told.append(f"pixels of {domain.name} (its labels are of whole patches)")
    return sorted(told)


def _write(run: RunDir, name: str, about: Mapping[str, Any], rows: Sequence[Row], unscored: Sequence[str]) -> None:
    write_json(run.table, {"recipe": name, "about": about, "rows": rows, "unscored": unscored})
    write_atomic(run.table.with_suffix(".md"), markdown(name, about, rows, unscored).encode())


def shown_patches(domain: Domain, probs: ProbFile) -> tuple[list[int], list[str]]:
    """Positions in `probs` of the patches to draw, and a note for each."""
    truth = truth_of(domain)
    if truth is None:
        return _spaced(range(len(probs))), []
    counts = score(probs, truth, draws=1).counts  # predicted in the order of the truth
    f1 = [pooled_scores(*map(int, row)).f1 for row in counts]
    with_landslide = np.flatnonzero(counts[:, 0] + counts[:, 2]).tolist() or range(len(probs))
    rows = _spaced(sorted(with_landslide, key=lambda row: -f1[row]))
    return rows, [f"F1 {f1[row]:.2f}" for row in rows]


def _spaced(rows: Sequence[int]) -> list[int]:
    """At most `SHOWN` of these, evenly spaced, with the first and the last."""
    chosen = np.linspace(0, len(rows) - 1, min(SHOWN, len(rows))).round().astype(int)
    return [rows[place] for place in chosen]
