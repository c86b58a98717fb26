"""The rows of a report as Markdown for a person: an overview, each domain in full, and the change since round 0."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from l4s.thresholds import EXPECTED_F1, HELDOUT

Row = Mapping[str, Any]
Cell = Callable[[Row], str]
NOTHING = "no landslide there"

HOW = (
    "F1 of the landslide class at threshold 0.5, pooled over all pixels, or over patches where it says so; "
    "in brackets its 95 % interval over patches drawn "
    "again (neighbouring patches are alike: about a new region the doubt is larger); ± is the standard deviation over seeds. "
    '*Held-out* is cut where F1 on the held-out sources is highest (`threshold = "heldout"`), '
    '*label-free* where F1 would be highest if the probabilities were true (`threshold = "expected_f1"`); '
    "*oracle* chose its threshold with the labels it is scored on: a bound, not a result."
)
HOW_SCORES = (
    "Values that are only ordered: 0.5 means nothing to them, and their rows above are at the quantile. Quantile and Otsu choose a "
    "threshold without labels, *oracle* the one of the highest F1 and *oracle_mean_iou* that of the highest mean IoU, with the labels "
    "they are scored on. AUROC below 0.5 is inverted: background has the higher scores; "
    "nothing is turned round."
)
PRINTED = {  # the last part of a key of `about.expected` -> what it is called
    "f1": "F1",
    "precision": "P",
    "recall": "R",
    "iou": "IoU",
    "mean_iou": "mean IoU",
    "accuracy": "accuracy",
    "average_precision": "AP",
    "auroc": "AUROC",
}


def markdown(name: str, about: Mapping[str, Any], rows: Sequence[Row], unscored: Sequence[str]) -> str:
    """The report on these rows, which `l4s.report.score_run` describes. Equal rows give equal text."""
    parts = [f"# {name}", *(str(about[key]) for key in ("title", "data", "paper") if about.get(key)), HOW]
    places = list(dict.fromkeys((r["role"], r["domain"], r["tta"]) for r in sorted(rows, key=_place)))
    if not rows:
        parts.append("Nothing is scored yet.")
    else:
        parts += ["## F1", _overview(rows, places)]
    for place in places:
        there = [row for row in rows if _key(row) == place]
        parts += [f"## {place[1]}, tta {place[2]}", _detail(there)]
        if ordered := [row for row in there if _ordered(row)]:
            parts += [HOW_SCORES, _cuts(ordered)]
    if changed := [row for row in rows if "change" in row]:
        parts += ["## Change of F1 since round 0, over the same patches", _overview(changed, places, _change)]
    if unscored:
        parts.append(f"Not scored: {', '.join(unscored)}.")
    if unmatched := sorted(about.get("expected", {}).keys() - {key for row in rows for key in _expected_keys(row)}):
        printed = ", ".join(f"{key} {about['expected'][key]:g}" for key in unmatched)
        parts.append(f"Printed in the paper, without a row here: {printed}.")
    return "\n\n".join(parts) + "\n"


def expected_scores(row: Row, expected: Mapping[str, float]) -> dict[str, float]:
    """The numbers of a recipe's `about.expected` that speak of this row, by the name of the score."""
    found: dict[str, float] = {}
    for key, name in _expected_keys(row).items():
        if key in expected:
            found.setdefault(name, expected[key])
    return found


def _expected_keys(row: Row) -> dict[str, str]:
    """The keys that may speak of this row, the most special first, and the score each means; F1 where none is named."""
    full = (f"round-{row['round']}", str(row["name"]), str(row["domain"]))
    places = ("/".join(full), "/".join(full[:2]), full[1])
    return dict.fromkeys(places, "f1") | {f"{place}/{name}": name for place in places for name in PRINTED}


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
    header = [
        "round",
        "member",
        "patches",
        "F1",
        "P",
        "R",
        "IoU",
        "mean IoU",
        "accuracy",
        "AP",
    ]
    chosen = any(_cut(row, HELDOUT) for row in rows)
    printed = any("printed_scores" in row for row in rows)
    header += [*(["held-out F1"] if chosen else []), "label-free F1", "oracle F1"]
    header += ["found / true share", *(["printed"] if printed else [])]
    body = []
    for row in rows:
        body.append(
            [str(row["round"]), _label(row), *_scores(row, chosen), *([_printed_scores(row)] if printed else [])]
        )
        blank = [""] if printed else []
        body += [
            ["", f"&nbsp; {name}", *_scores(region, chosen), *blank]
            for name, region in sorted(row.get("regions", {}).items())
        ]
    return _table(header, body)


def _cuts(rows: Sequence[Row]) -> str:
    """Scores that are only ordered at each of their thresholds: F1 / IoU / mean IoU."""
    names = list(rows[0]["cuts"])
    header = ["round", "member", "AUROC", *(f"{name}: F1 / IoU / mean IoU" for name in names)]
    body = []
    for row in rows:
        each = [" / ".join(f"{row['cuts'][name][key]:.3f}" for key in ("f1", "iou", "mean_iou")) for name in names]
        body.append([str(row["round"]), _label(row), _auroc(row), *each])
    return _table(header, body)


def _auroc(row: Row) -> str:
    value = row.get("auroc")
    if value is None:
        return ""
    return f"{value:.3f}" if value >= 0.5 else f"{value:.3f} (inverted)"


def _printed_scores(row: Row) -> str:
    scores = row.get("printed_scores", {})
    return ", ".join(f"{text} {scores[name]:g}" for name, text in PRINTED.items() if name in scores)


def _scores(row: Row, chosen: bool) -> list[str]:
    """Cells of a row; with that of the threshold chosen on held-out sources where any row of its table has one."""
    shares = f"{row['predicted_share']:.2%} / {row['true_share']:.2%}"
    keys = ("precision", "recall", "iou", "mean_iou", "accuracy", "average_precision")
    numbers = [_mean(row, key) for key in keys]
    cuts = [_at(row, name) for name in ([HELDOUT] if chosen else []) + [EXPECTED_F1]]
    return [str(row.get("patches", "")), _f1(row), *numbers, *cuts, _oracle(row), shares]


def _ordered(row: Row) -> bool:
    """Are its values only ordered, and cut at quantiles?"""
    return "quantile" in (row.get("cuts") or ())


def label_free_scores(row: Row) -> Mapping[str, float] | None:
    """The scores of a row of probabilities at the threshold that reads no labels."""
    return _cut(row, EXPECTED_F1)


def _cut(row: Row, name: str) -> Mapping[str, float] | None:
    found: Mapping[str, float] | None = (row.get("cuts") or {}).get(name)
    return found


def _at(row: Row, name: str) -> str:
    cut = _cut(row, name)
    return "" if cut is None or row["true_share"] == 0 else f"{cut['f1']:.3f} (at {cut['threshold']:.2f})"


def _f1(row: Row) -> str:
    if row["true_share"] == 0:
        return NOTHING
    where = " at quantile" if _ordered(row) else ""
    shown = _mean(row, "f1") if "n" in row else f"{row['f1']:.3f} [{row['f1_low']:.3f}, {row['f1_high']:.3f}]"
    return shown + where


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
    of = " (patches)" if row.get("of") == "patches" else ""
    if row["kind"] == "seeds":
        return f"{row['name']}{of}, {row['n']} seeds"
    return f"**{row['name']}**{of}" if row["kind"] == "ensemble" else f"{row['name']}{of}"


def _printed(rows: Iterable[Row]) -> str:
    return ", ".join(f"{row['domain']} {row['printed']:g}" for row in rows if "printed" in row)


def _key(row: Row) -> tuple[str, str, str]:
    return row["role"], row["domain"], row["tta"]


def _place(row: Row) -> tuple[int, str, str]:
    return ("source", "target", "eval").index(row["role"]), row["domain"], row["tta"]


def _table(header: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
