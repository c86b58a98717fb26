"""A study of few labels as text: average precision, counting errors, and how much lines differ."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from l4s.counts import PARTS
from l4s.thresholds import PROBABLE

Row = Mapping[str, Any]
COUNTED = {
    "miscount": ("threshold", "all", "median_size"),
    "on empty: median": ("threshold", "empty", "median"),
    "on empty: mean": ("threshold", "empty", "mean"),
    "on landslides: median": ("threshold", "landslide", "median"),
    "on landslides: mean": ("threshold", "landslide", "mean"),
    "sums on empty": ("sum", "empty", "median"),
}
"""Column -> rule, part of the patches and figure."""
NOTHING = "–"


def markdown(rows: Sequence[Row], domain: str, chose: bool) -> str:
    """The rows as three tables: average precision, counting errors, and paired differences between the lines.

    Args:
        domain: what was predicted, which the first line names.
        chose: its labels chose the checkpoints, which the first line then says.
    """
    head = f"Few labels, scored on {domain}"
    head += (
        ", whose labels chose the checkpoints (the hold-out of a source): too good for a test.\n" if chose else ".\n"
    )
    precision = [
        (*_place(row), str(row["seeds"]), _over(row["over_seeds"], 3), f"{row['average_precision']:.3f}")
        for row in rows
    ]
    counted = [(*_place(row), *(_counted(row, *column) for column in COUNTED.values())) for row in rows]
    tables = [
        head,
        _table(("network", "patches", "seeds", "AP", "AP of the average"), precision),
        f"AP is the mean over seeds of the members' own, ± its standard error (in brackets sd / n: the paper's code divides "
        f"like that, over checkpoints, not seeds), then that of the averaged prediction. A random answer has "
        f"{rows[0]['random']:.3f}.\n",
        _table(("network", "patches", *COUNTED), counted),
        f"Landslide pixels of the averaged prediction (of members: mean over seeds ± standard error). Miscount: median over "
        f"patches of |predicted - true| at {PROBABLE}; then median and mean of predicted - true; `sums` adds up "
        "probabilities.\n",
    ]
    if pairs := list(_pairs(rows)):
        tables += [
            _table(("network", "against", "patches", *PARTS), pairs),
            f"Mean |predicted - true| at {PROBABLE} less that of the line it is held against, on the same patches, with its "
            "95 % interval; below 0 the first is closer.\n",
        ]
    return "\n".join(tables)


def _place(row: Row) -> tuple[str, str]:
    return row["line"], str(row["size"] or "all")


def _over(over: Mapping[str, Any], digits: int) -> str:
    words = _mean(over, digits)
    return words if over["error"] is None else f"{words} ({over['sd_over_n']:.{digits}f})"


def _mean(over: Mapping[str, Any], digits: int) -> str:
    error = "" if over["error"] is None else f" ± {over['error']:.{digits}f}"
    return f"{over['mean']:.{digits}f}{error}"


def _counted(row: Row, rule: str, part: str, figure: str) -> str:
    value = row["counts"][rule][part][figure]
    return NOTHING if value is None else f"{value:.0f} ({_mean(row['counts_over_seeds'][rule][part][figure], 0)})"


def _pairs(rows: Sequence[Row]) -> Iterator[tuple[str, ...]]:
    """Each pair of lines once for each training size."""
    for place, row in enumerate(rows):
        later = {other["line"] for other in rows[place + 1 :]}
        for line, parts in row["against"].items():
            if line in later:
                yield row["line"], line, str(row["size"] or "all"), *(_difference(parts.get(part)) for part in PARTS)


def _difference(found: Mapping[str, float] | None) -> str:
    return f"{found['difference']:+.1f} [{found['low']:.1f}, {found['high']:.1f}]" if found else NOTHING


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return "".join(f"| {' | '.join(line)} |\n" for line in (head, ["---"] * len(head), *lines))
