"""The rows of a report as Markdown for a person: an overview, each domain in full, and the change since round 0."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
Cell = Callable[[Row], str]
NOTHING = "no landslide there"

HOW = (
    "F1 of the landslide class at threshold 0.5, pooled over all pixels; in brackets its 95 % interval over patches drawn "
    "again (neighbouring patches are alike: about a new region the doubt is larger); ± is the standard deviation over seeds. "
    "*Oracle* chose its threshold with the labels it is scored on: a bound, not a result."
)


def markdown(name: str, about: Mapping[str, Any], rows: Sequence[Row], unscored: Sequence[str]) -> str:
    """The report on these rows, which `l4s.report.score_run` describes. Equal rows give equal text."""
    parts = [f"# {name}", *(str(about[key]) for key in ("title", "data", "paper") if about.get(key)), HOW]
    places = list(dict.fromkeys((r["role"], r["domain"], r["tta"]) for r in sorted(rows, key=_place)))
    if not rows:
        parts.append("Nothing is scored yet.")
    else:
        parts += ["## F1", _overview(rows, places)]
    for place in places:
        parts += [f"## {place[1]}, tta {place[2]}", _detail([row for row in rows if _key(row) == place])]
    if changed := [row for row in rows if "change" in row]:
        parts += ["## Change of F1 since round 0, over the same patches", _overview(changed, places, _change)]
    if unscored:
        parts.append(f"Not scored, because masks are withheld: {', '.join(unscored)}.")
    if unmatched := sorted(about.get("expected", {}).keys() - {key for row in rows for key in expected_keys(row)}):
        printed = ", ".join(f"{key} {about['expected'][key]:g}" for key in unmatched)
        parts.append(f"Printed in the paper, without a row here: {printed}.")
    return "\n\n".join(parts) + "\n"


def expected_keys(row: Row) -> tuple[str, str, str]:
    """The keys of a recipe's `about.expected` that speak of this row, the most special first."""
    full = (f"round-{row['round']}", str(row["name"]), str(row["domain"]))
    return "/".join(full), "/".join(full[:2]), full[1]


def _overview(rows: Sequence[Row], places: Sequence[tuple[str, str, str]], cell: Cell | None = None) -> str:
    """Rounds x members in lines, a column group a domain: F1 and oracle F1, or what `cell` says."""
    lines: dict[tuple[int, str, str], dict[tuple[str, str, str], Row]] = {}
    for row in rows:
        lines.setdefault((row["round"], row["kind"], row["name"]), {})[_key(row)] = row
    columns: dict[str, Cell] = {"": cell} if cell else {"": _f1, " oracle": _oracle}
    header = ["round", "member", *(f"{domain} {tta}{what}" for _, domain, tta in places for what in columns)]
    printed = any("printed" in row for row in rows) and not cell
    body = []
    for (number, _, _), by_place in lines.items():
        some = next(iter(by_place.values()))
        cells = [show(by_place[place]) if place in by_place else "" for place in places for show in columns.values()]
        body.append([str(number), _label(some), *cells, *([_printed(by_place.values())] if printed else [])])
    return _table(header + (["printed"] if printed else []), body)


def _detail(rows: Sequence[Row]) -> str:
    header = ["round", "member", "patches", "F1", "P", "R", "IoU", "AP", "oracle F1", "found / true share"]
    body = []
    for row in rows:
        body.append([str(row["round"]), _label(row), *_scores(row)])
        body += [["", f"&nbsp; {name}", *_scores(region)] for name, region in sorted(row.get("regions", {}).items())]
    return _table(header, body)


def _scores(row: Row) -> list[str]:
    shares = f"{row['predicted_share']:.2%} / {row['true_share']:.2%}"
    numbers = [_mean(row, key) for key in ("precision", "recall", "iou", "average_precision")]
    return [str(row.get("patches", "")), _f1(row), *numbers, _oracle(row), shares]


def _f1(row: Row) -> str:
    if row["true_share"] == 0:
        return NOTHING
    return _mean(row, "f1") if "n" in row else f"{row['f1']:.3f} [{row['f1_low']:.3f}, {row['f1_high']:.3f}]"


def _oracle(row: Row) -> str:
    if row["true_share"] == 0:
        return NOTHING
    return _mean(row, "oracle_f1") if "n" in row else f"{row['oracle_f1']:.3f} (at {row['oracle_threshold']:.2f})"


def _mean(row: Row, key: str) -> str:
    return f"{row[key]:.3f} ± {row[f'{key}_sd']:.3f}" if "n" in row else f"{row[key]:.3f}"


def _change(row: Row) -> str:
    change = row["change"]
    if "sd" in change:
        return f"{change['f1']:+.3f} ± {change['sd']:.3f}"
    return f"{change['f1']:+.3f} [{change['low']:+.3f}, {change['high']:+.3f}]"


def _label(row: Row) -> str:
    if row["kind"] == "seeds":
        return f"{row['name']}, {row['n']} seeds"
    return f"**{row['name']}**" if row["kind"] == "ensemble" else f"{row['name']}"


def _printed(rows: Iterable[Row]) -> str:
    return ", ".join(f"{row['domain']} {row['printed']:g}" for row in rows if "printed" in row)


def _key(row: Row) -> tuple[str, str, str]:
    return row["role"], row["domain"], row["tta"]


def _place(row: Row) -> tuple[int, str, str]:
    return ("source", "target", "eval").index(row["role"]), row["domain"], row["tta"]


def _table(header: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
