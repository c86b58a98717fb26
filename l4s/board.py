"""The leaderboard of our submissions: what each scored, what made it different, and where local scores mislead.

`submissions/leaderboard.csv` has one row for each submission, and `submissions/<name>.json` is its card. The file says
nothing about when it was written: equal additions give equal bytes.
"""

import csv
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import date as Date
from pathlib import Path
from typing import Any, Literal

from l4s.errors import DataError
from l4s.files import write_atomic
from l4s.submit import SAFE_ID, SubmissionCard, read_card

TABLE = "leaderboard.csv"
APART = 0.05  # local and board scores further apart than this are no measure of each other
NAMES_SHOWN = 3

Side = Literal["private", "public"]


@dataclass(frozen=True)
class Row:
    """One submission. Scores are F1 in [0, 1], None where unknown; `local` holds those of the card, by domain."""

    submission: str
    run: str = ""
    recipe: str = ""
    fingerprint: str = ""
    members: tuple[str, ...] = ()
    threshold: float = 0.0
    min_area: int = 0
    local: Mapping[str, float] = field(default_factory=dict)
    public: float | None = None
    private: float | None = None
    note: str = ""
    date: str = ""

    @property
    def local_score(self) -> float | None:
        """Mean of the local scores."""
        return sum(self.local.values()) / len(self.local) if self.local else None

    @property
    def board_score(self) -> float | None:
        """The private score, or the public one where there is no private one yet."""
        return self.public if self.private is None else self.private


@dataclass(frozen=True)
class Standing:
    """A row where it ranks: what its card has other than the best row's, and why to mistrust its local score.

    Without a score there is no best row, and nothing to compare with: `changes` is None, as it is of the best one itself.
    """

    row: Row
    changes: tuple[str, ...] | None
    flags: tuple[str, ...]

    @property
    def best(self) -> bool:
        return self.changes is None and self.row.board_score is not None


COLUMNS = tuple({"local": "local_scores"}.get(each.name, each.name) for each in fields(Row))
CUT = ("fingerprint", "threshold", "min_area")  # what makes the masks: scores belong to them


def add_submission(
    zip: Path,
    folder: Path,
    *,
    public: float | None = None,
    private: float | None = None,
    note: str | None = None,
    date: str | None = None,
    name: str | None = None,
) -> Row:
    """Put a submission on the board, or update what is given of one that is there; keeps its card in `folder`.

    Of one that is there, what the card says is read anew: its local scores may have been found later.

    Args:
        zip: the submission, with its card beside it.
        folder: holds `leaderboard.csv` and the cards.
        public: F1 in [0, 1] on the public test set; `private` likewise.
        date: YYYY-MM-DD; no date is kept unless it is given.
        name: on the board; default the name of the zip.

    Raises:
        DataError: no zip, no card, a card of another zip, a name that means another submission already (by its card, or by
            its line), or a score or date that cannot be.
    """
    card = _card_of(zip)
    name = name or zip.stem
    _refuse_bad(name, public, private, date)
    kept = folder / f"{name}.json"
    if kept.is_file() and read_card(kept).sha256 != card.sha256:
        raise DataError(f"{kept} is the card of another submission called {name!r}: choose another name (--name)")
    rows = {row.submission: row for row in read_board(folder)}
    given = {"public": public, "private": private, "note": note, "date": date}
    row = _updated(rows.get(name), _row(name, card), given)
    rows[name] = row
    # The card first: a row without its card would be broken, a card without its row is merely not listed.
    write_atomic(kept, zip.with_suffix(".json").read_bytes())
    write_atomic(folder / TABLE, _encode(rank(tuple(rows.values()))))
    return row


def read_board(folder: Path) -> tuple[Row, ...]:
    """The rows of `leaderboard.csv`; none where there is no such file.

    Raises:
        DataError: the file is not a leaderboard as `add_submission` writes it.
    """
    path = folder / TABLE
    if not path.is_file():
        return ()
    try:
        lines = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8")), strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not a readable table ({error}): restore it from version control") from error
    if not lines or tuple(lines[0]) != COLUMNS:
        found = ", ".join(lines[0]) if lines else "nothing"
        raise DataError(f"{path} has the columns {found}; a leaderboard has {', '.join(COLUMNS)}: move it away")
    rows = tuple(_decode(path, number, line) for number, line in enumerate(lines[1:], 2))
    names = [row.submission for row in rows]
    if twice := next((each for each in names if names.count(each) > 1), None):
        raise DataError(f"{path} lists {twice!r} twice: keep one of the lines")
    return rows


def rank(rows: Sequence[Row]) -> tuple[Row, ...]:
    """Rows by private score, then by public score, best first; those without one stand last, by name."""

    def key(row: Row) -> tuple[float, float, str]:
        low = -1.0
        return (
            -(low if row.private is None else row.private),
            -(low if row.public is None else row.public),
            row.submission,
        )

    return tuple(sorted(rows, key=key))


def standings(folder: Path) -> tuple[Standing, ...]:
    """The whole board, ranked, compared with its best row, with what to mistrust.

    Local scores at another threshold than the submission's are shown, and compared with nothing.

    Raises:
        DataError: as `read_board`, or a row has no card.
    """
    rows = rank(read_board(folder))
    cards = {row.submission: _kept_card(folder, row) for row in rows}
    best = rows[0] if rows and rows[0].board_score is not None else None
    apart = {name: _cut_otherwise(name, card) for name, card in cards.items()}
    flags = divergences([replace(row, local={}) if apart[row.submission] else row for row in rows])
    return tuple(
        Standing(
            row,
            differences(cards[row.submission], cards[best.submission]) if best and row != best else None,
            (*apart[row.submission], *flags[row.submission]),
        )
        for row in rows
    )


def differences(card: SubmissionCard, best: SubmissionCard) -> tuple[str, ...]:
    """What a submission has other than the best one, such as `threshold 0.4 (best 0.5)`."""
    ours, theirs = _choices(card), _choices(best)
    return tuple(f"{key} {value} (best {theirs[key]})" for key, value in ours.items() if value != theirs[key])


def divergences(rows: Sequence[Row]) -> dict[str, tuple[str, ...]]:
    """For each submission, sentences on where its local and board scores contradict each other.

    They lie more than `APART` from each other, or submissions with a lower local score do better on the board. Two
    submissions are compared on the private board if both have that score, else on the public one.
    """
    return {row.submission: tuple(filter(None, (_gap(row), _inversion(row, rows)))) for row in rows}


def _cut_otherwise(name: str, card: SubmissionCard) -> tuple[str, ...]:
    """A sentence where the local scores are of another threshold than the masks: nothing can be compared with them."""
    if "local_threshold" in card.facts:
        local = card.facts["local_threshold"]
        at = "thresholds of their own" if local is None else f"threshold {local}"
        told = f"local scores are at {at} and the masks are cut at {card.threshold:g}"
    elif "local_min_area" in card.facts:
        told = f"local scores are of all areas and the masks leave out those below {card.min_area} pixels"
    else:
        return ()
    return (f"{name}: {told}, so they are not compared",)


def _gap(row: Row) -> str:
    if row.local_score is None or row.board_score is None or abs(row.local_score - row.board_score) <= APART:
        return ""
    side = "public" if row.private is None else "private"
    return (
        f"{row.submission}: local {row.local_score:.4f} and {side} {row.board_score:.4f} are "
        f"{abs(row.local_score - row.board_score):.4f} apart, so the local score does not measure the {side} test set"
    )


def _inversion(row: Row, rows: Sequence[Row]) -> str:
    better = [other.submission for other in rows if _inverted(row, other)]
    if not better:
        return ""
    more = f" and {len(better) - NAMES_SHOWN} more" if better[NAMES_SHOWN:] else ""
    names = ", ".join(better[:NAMES_SHOWN]) + more
    return (
        f"{row.submission}: {names} scored lower locally and higher on the board, so do not choose by the local score"
    )


def _inverted(row: Row, other: Row) -> bool:
    """Did `other` score lower locally, and higher on the board?"""
    side: Side = "public" if None in (row.private, other.private) else "private"
    ours, theirs = getattr(row, side), getattr(other, side)
    if None in (row.local_score, other.local_score, ours, theirs):
        return False
    assert row.local_score is not None and other.local_score is not None
    return bool(other.local_score < row.local_score and theirs > ours)


def _card_of(zip: Path) -> SubmissionCard:
    """The card beside a zip, which must describe exactly this zip."""
    path = zip.with_suffix(".json")
    if not zip.is_file():
        raise DataError(f"there is no submission {zip}: pack one with `l4s submit pack`")
    if zip.suffix != ".zip" or not path.is_file():
        raise DataError(f"{zip} has no card {path.name} beside it: only a .zip of `l4s submit pack` can be added")
    card = read_card(path)
    if (found := hashlib.sha256(zip.read_bytes()).hexdigest()) != card.sha256:
        raise DataError(
            f"{zip} is not the zip that its card {path.name} describes (sha256 {found[:12]}, card {card.sha256[:12]}): "
            "pack it again"
        )
    return card


def _kept_card(folder: Path, row: Row) -> SubmissionCard:
    path = folder / f"{row.submission}.json"
    if not path.is_file():
        raise DataError(
            f"{path} is missing, the card of {row.submission!r}: add the submission again, or drop its line"
        )
    return read_card(path)


def _refuse_bad(name: str, public: float | None, private: float | None, date: str | None) -> None:
    if not SAFE_ID.fullmatch(name):
        raise DataError(f"a submission cannot be called {name!r}: use letters, digits, '_', '.' and '-' (--name)")
    for side, score in (("public", public), ("private", private)):
        if score is not None and not 0 <= score <= 1:
            raise DataError(f"--{side} {score:g} is not in [0, 1]: give F1 as 0.7354, not in per cent")
    try:
        Date.fromisoformat(date or "2022-06-20")
    except ValueError as error:
        raise DataError(f"--date {date!r} is not of the form YYYY-MM-DD") from error


def _row(name: str, card: SubmissionCard) -> Row:
    facts = card.facts
    return Row(
        submission=name,
        run=str(facts.get("run", "")),
        recipe=str(facts.get("recipe", "")),
        fingerprint=card.fingerprint,
        members=_members(card),
        threshold=card.threshold,
        min_area=card.min_area,
        local=_local(name, facts.get("local_scores", {})),
    )


def _updated(before: Row | None, row: Row, given: Mapping[str, Any]) -> Row:
    """A row made of its card, with what was `given` now, and what was given `before`."""
    if before and (other := [key for key in CUT if getattr(before, key) != getattr(row, key)]):
        was, now = (getattr(each, other[0]) for each in (before, row))
        raise DataError(
            f"the scores of {row.submission!r} on the board are of another submission ({other[0]} {was}, now {now}): "
            "choose another name (--name), or drop its line"
        )
    kept = {key: getattr(before, key) for key in given} if before else {}
    return replace(row, **kept | {key: value for key, value in given.items() if value is not None})


def _members(card: SubmissionCard) -> tuple[str, ...]:
    """The members averaged, which the facts list where they are known; else the one that the ProbFile names."""
    return tuple(map(str, card.facts.get("members", [card.member])))


def _local(name: str, scores: Any) -> dict[str, float]:
    numbers = scores.values() if isinstance(scores, Mapping) else [scores]
    if not isinstance(scores, Mapping) or any(isinstance(n, bool) or not isinstance(n, int | float) for n in numbers):
        raise DataError(
            f"the card of {name!r} has local_scores {scores!r}, not F1 by domain such as {{'taiwan': 0.69}}"
        )
    return {str(domain): float(score) for domain, score in scores.items()}


def _choices(card: SubmissionCard) -> dict[str, str]:
    """What a person chose, by name, as the board shows it."""
    facts = card.facts
    return {
        "recipe": str(facts.get("recipe", "unknown")),
        "set": " ".join(map(str, facts.get("set", []))) or "nothing",
        "round": str(facts.get("round", "unknown")),
        "members": " ".join(_members(card)),
        "domain": card.domain,
        "tta": card.tta,
        "threshold": f"{card.threshold:g}",
        "min_area": str(card.min_area),
    }


def _encode(rows: Sequence[Row]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        cells = asdict(row) | {"members": " ".join(row.members), "local": json.dumps(row.local, sort_keys=True)}
        writer.writerow("" if cell is None else cell for cell in cells.values())
    return text.getvalue().encode()


def _decode(path: Path, number: int, line: Sequence[str]) -> Row:
    try:
        cells: dict[str, Any] = dict(zip((each.name for each in fields(Row)), line, strict=True))
        numbers = {"threshold": float(cells["threshold"]), "min_area": int(cells["min_area"])}
        scores = {side: float(cells[side]) if cells[side] else None for side in ("public", "private")}
        if wrong := [f"{side} {score}" for side, score in scores.items() if score is not None and not 0 <= score <= 1]:
            raise ValueError(f"{wrong[0]} is not in [0, 1]")
        local = _local(cells["submission"], json.loads(cells["local"] or "{}"))
    except ValueError as error:
        raise DataError(f"{path}, line {number}: {error}; restore it from version control") from error
    return Row(**{**cells, **numbers, **scores, "local": local, "members": tuple(cells["members"].split())})
