"""The leaderboard: rows, updates, ranking, what changed, and scores that contradict each other."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from l4s.board import COLUMNS, Row, add_submission, divergences, rank, read_board, standings
from l4s.cli import app
from l4s.data.probs import open_probs, write_probs
from l4s.errors import DataError
from l4s.submit import submit


def made(
    folder: Path, name: str = "a", *, seed: int = 0, threshold: float = 0.5, min_area: int = 0, **facts: Any
) -> Path:
    """A submission with its card, as the last step of a run makes it."""
    probs = folder / "probs.h5"
    labels = {"member": "ensemble", "fingerprint": f"{seed:016x}", "domain": "iburi", "tta": "d4"}
    with write_probs(probs, ids=["1", "2"], shape=(2, 8, 8), kind="probability", **labels) as writer:
        writer.put(0, np.random.default_rng(seed).random((2, 8, 8), np.float32))
    out = folder / f"{name}.zip"
    about = {"recipe": "demo", "run": "r1", "round": 1, **facts}
    submit(open_probs(probs), out, threshold=threshold, min_area=min_area, facts=about)
    return out


@pytest.fixture
def board(tmp_path: Path) -> Path:
    return tmp_path / "submissions"


def test_a_row_holds_what_the_card_says(tmp_path: Path, board: Path) -> None:
    zip = made(tmp_path, members=["x-seed0", "x-seed1"], local_scores={"taiwan": 0.75, "mars": 0.25})
    add_submission(zip, board, public=0.5, private=0.625, note="first, with a comma")
    with (board / "leaderboard.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row == {
        "submission": "a",
        "run": "r1",
        "recipe": "demo",
        "fingerprint": "0" * 16,
        "members": "x-seed0 x-seed1",
        "threshold": "0.5",
        "min_area": "0",
        "local_scores": '{"mars": 0.25, "taiwan": 0.75}',
        "public": "0.5",
        "private": "0.625",
        "note": "first, with a comma",
        "date": "",
    }
    (read,) = read_board(board)
    assert (read.local_score, read.board_score, read.members) == (0.5, 0.625, ("x-seed0", "x-seed1"))
    assert (board / "a.json").read_bytes() == (tmp_path / "a.json").read_bytes()
    assert sorted(path.name for path in board.iterdir()) == ["a.json", "leaderboard.csv"]


def test_equal_additions_give_equal_bytes(tmp_path: Path, board: Path) -> None:
    zips = [made(tmp_path, name, seed=seed) for seed, name in enumerate("ab")]
    for zip in zips:
        add_submission(zip, board, public=0.5)
    for zip in reversed(zips):
        add_submission(zip, tmp_path / "other", public=0.5)
    assert (board / "leaderboard.csv").read_bytes() == (tmp_path / "other" / "leaderboard.csv").read_bytes()


def test_adding_again_updates_only_what_is_given(tmp_path: Path, board: Path) -> None:
    zip = made(tmp_path)
    add_submission(zip, board, public=0.5, note="kept")
    add_submission(zip, board, private=0.4, date="2026-11-21")
    (row,) = read_board(board)
    assert (row.public, row.private, row.note, row.date) == (0.5, 0.4, "kept", "2026-11-21")
    add_submission(zip, board, public=0.0)
    assert read_board(board)[0].public == 0.0


def test_adding_again_follows_the_card(tmp_path: Path, board: Path) -> None:
    """The local scores may have been found after the zip was first packed."""
    add_submission(made(tmp_path, members=["x"]), board, public=0.5, note="kept")
    add_submission(made(tmp_path, members=["x", "y"], local_scores={"taiwan": 0.75}), board)
    (row,) = read_board(board)
    assert (row.members, row.local, row.public, row.note) == (("x", "y"), {"taiwan": 0.75}, 0.5, "kept")


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"seed": 1}, f"fingerprint {0:016x}, now {1:016x}"),
        ({"threshold": 0.25}, "threshold 0.5, now 0.25"),
    ],
)
def test_a_line_without_its_card_lends_its_scores_to_no_other(
    tmp_path: Path, board: Path, other: dict[str, Any], message: str
) -> None:
    add_submission(made(tmp_path), board, public=0.77)
    before = (board / "leaderboard.csv").read_bytes()
    (board / "a.json").unlink()
    with pytest.raises(DataError, match=f"scores of 'a' on the board are of another submission .{message}"):
        add_submission(made(tmp_path, **other), board)
    assert (board / "leaderboard.csv").read_bytes() == before and not (board / "a.json").exists()
    add_submission(made(tmp_path), board)
    assert read_board(board)[0].public == 0.77


def test_local_scores_at_another_threshold_are_compared_with_nothing(tmp_path: Path, board: Path) -> None:
    add_submission(made(tmp_path, "same", local_scores={"taiwan": 0.5}), board, private=0.52)
    apart = {"threshold": 0.25, "local_scores": {"taiwan": 0.75}, "local_threshold": 0.5}
    add_submission(made(tmp_path, "apart", **apart), board, private=0.51)
    add_submission(made(tmp_path, "own", seed=1, **apart | {"local_threshold": None}), board, private=0.5)
    flags = {each.row.submission: each.flags for each in standings(board)}
    assert flags["same"] == ()
    assert flags["apart"] == (
        "apart: local scores are at threshold 0.5 and the masks are cut at 0.25, so they are not compared",
    )
    assert "own: local scores are at thresholds of their own" in flags["own"][0]
    assert [each.row.local_score for each in standings(board)] == [0.5, 0.75, 0.75]  # shown they are


def test_local_scores_of_all_areas_are_compared_with_nothing_either(tmp_path: Path, board: Path) -> None:
    add_submission(made(tmp_path, "a", min_area=9, local_scores={"taiwan": 0.9}, local_min_area=0), board, private=0.1)
    assert standings(board)[0].flags == (
        "a: local scores are of all areas and the masks leave out those below 9 pixels, so they are not compared",
    )


def test_none_is_the_best_before_there_is_a_score(tmp_path: Path, board: Path) -> None:
    add_submission(made(tmp_path, "a"), board)
    add_submission(made(tmp_path, "b", threshold=0.25), board)
    assert [each.changes for each in standings(board)] == [None, None]
    shown = CliRunner().invoke(app, ["submit", "board", "--folder", str(board)])
    assert shown.exit_code == 0 and "│ best" not in shown.stdout


def test_ranked_by_private_then_public_then_name() -> None:
    rows = [
        Row("none"),
        Row("public", public=0.9),
        Row("b", public=0.5, private=0.4),
        Row("a", public=0.5, private=0.4),
        Row("better-public", public=0.6, private=0.4),
        Row("zero", private=0.0),
        Row("best", private=0.7),
    ]
    order = ["best", "better-public", "a", "b", "zero", "public", "none"]
    assert [row.submission for row in rank(rows)] == order


def test_what_changed_against_the_best(tmp_path: Path, board: Path) -> None:
    add_submission(made(tmp_path, "good", members=["x", "y"]), board, private=0.6)
    facts = {"members": ["x"], "round": 0, "set": ["train.clip=1.0"]}
    add_submission(made(tmp_path, "bad", threshold=0.25, **facts), board, private=0.5)
    best, other = standings(board)
    assert (best.row.submission, best.changes) == ("good", None) and best.best and not other.best
    assert other.changes == (
        *("set train.clip=1.0 (best nothing)", "round 0 (best 1)"),
        *("members x (best x y)", "threshold 0.25 (best 0.5)"),
    )


def test_scores_far_apart_are_flagged_by_the_board_that_counts() -> None:
    rows = [
        Row("far", local={"t": 0.69}, public=0.68, private=0.43),
        Row("near", local={"t": 0.45}, private=0.5),
        Row("public-far", local={"t": 0.3}, public=0.4),
        Row("unknown", public=0.9),
    ]
    flags = divergences(rows)
    assert "local 0.6900 and private 0.4300 are 0.2600 apart" in flags["far"][0]
    assert flags["near"] == flags["unknown"] == ()
    assert "public 0.4000" in flags["public-far"][0]


def test_inversions_name_who_was_underrated() -> None:
    rows = [
        Row("a", local={"t": 0.50}, public=0.53, private=0.46),
        Row("b", local={"t": 0.49}, public=0.52, private=0.48),
        Row("c", local={"t": 0.48}, public=0.50),  # compared on the public board, where it is worse
        Row("d", local={"t": 0.50}, public=0.54, private=0.54),  # equal locally: no inversion
    ]
    flags = divergences(rows)
    assert [name for name, sentences in flags.items() if sentences] == ["a"]
    assert flags["a"] == ("a: b scored lower locally and higher on the board, so do not choose by the local score",)


def test_many_inversions_are_counted() -> None:
    rows = [Row("a", local={"t": 0.9}, private=0.88)]
    rows += [Row(f"b{k}", local={"t": 0.89}, private=0.9) for k in range(5)]
    assert "b0, b1, b2 and 2 more" in divergences(rows)["a"][0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"public": 73.5}, "not in per cent"),
        ({"private": -0.1}, "not in \\[0, 1\\]"),
        ({"private": float("nan")}, "not in \\[0, 1\\]"),
        ({"date": "21.11.2026"}, "YYYY-MM-DD"),
        ({"name": "../a"}, "cannot be called"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_written(
    tmp_path: Path, board: Path, options: dict[str, Any], message: str
) -> None:
    zip = made(tmp_path)
    with pytest.raises(DataError, match=message):
        add_submission(zip, board, **options)
    assert not board.exists()


def test_a_zip_that_is_not_its_card_s(tmp_path: Path, board: Path) -> None:
    zip = made(tmp_path)
    zip.write_bytes(zip.read_bytes() + b"x")
    with pytest.raises(DataError, match=r"a\.zip is not the zip that its card a\.json describes"):
        add_submission(zip, board, public=0.5)
    (tmp_path / "a.json").unlink()
    with pytest.raises(DataError, match=r"a\.zip has no card a\.json beside it"):
        add_submission(zip, board, public=0.5)
    with pytest.raises(DataError, match=r"there is no submission .*none\.zip"):
        add_submission(tmp_path / "none.zip", board, public=0.5)
    assert not board.exists()


def test_another_submission_of_the_same_name(tmp_path: Path, board: Path) -> None:
    add_submission(made(tmp_path), board, public=0.5)
    before = (board / "leaderboard.csv").read_bytes()
    other = made(tmp_path, seed=1)
    with pytest.raises(DataError, match="another submission called 'a'"):
        add_submission(other, board, public=0.6)
    assert (board / "leaderboard.csv").read_bytes() == before
    add_submission(other, board, public=0.6, name="a-second")
    assert [row.submission for row in read_board(board)] == ["a-second", "a"]


def test_local_scores_of_another_form(tmp_path: Path, board: Path) -> None:
    with pytest.raises(DataError, match="local_scores 0.7"):
        add_submission(made(tmp_path, local_scores=0.7), board)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("date,submission\n", "has the columns date, submission"),
        ("", "has the columns nothing"),
        (",".join(COLUMNS) + "\na,b\n", "line 2"),
        (",".join(COLUMNS) + "\na,,,,,high,0,,,,,\n", "line 2: could not convert"),
        (",".join(COLUMNS) + "\na,,,,,0.5,0,{,,,,\n", "line 2"),
        (",".join(COLUMNS) + "\na,,,,,0.5,0,{},nan,,,\n", "line 2: public nan"),
        (",".join(COLUMNS) + "\n" + "a,,,,,0.5,0,{},,,,\n" * 2, "lists 'a' twice"),
    ],
)
def test_a_table_that_is_no_leaderboard_is_not_overwritten(
    tmp_path: Path, board: Path, text: str, message: str
) -> None:
    board.mkdir()
    (board / "leaderboard.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        add_submission(made(tmp_path), board, public=0.5)
    assert (board / "leaderboard.csv").read_text() == text


def test_a_row_without_its_card(tmp_path: Path, board: Path) -> None:
    add_submission(made(tmp_path), board, public=0.5)
    (board / "a.json").unlink()
    with pytest.raises(DataError, match=r"a\.json is missing"):
        standings(board)


def test_the_commands(tmp_path: Path, board: Path) -> None:
    run = CliRunner().invoke
    shown = run(app, ["submit", "board", "--folder", str(board)])
    assert shown.exit_code == 0
    assert "no submissions" in shown.stdout
    for seed, (name, private) in enumerate((("good", "0.61"), ("bad", "0.4"))):
        zip = made(tmp_path, name, seed=seed, local_scores={"taiwan": 0.6 + seed / 100})
        added = run(
            app, ["submit", "add", str(zip), "--private", private, "--note", "[b]odd[/]", "--folder", str(board)]
        )
        assert added.exit_code == 0, added.output
        assert f"{name}: public -, private {float(private):.4f}" in added.stdout
    shown = run(app, ["submit", "board", "--folder", str(board)])
    assert shown.exit_code == 0
    lines = shown.stdout.splitlines()
    assert [line.split("│")[2].strip() for line in lines if "│" in line] == ["good", "bad"]
    assert "[b]odd[/]" in shown.stdout
    marked = [line for line in lines if line.startswith("! bad")]
    assert len(marked) == 2
    table = json.loads(run(app, ["submit", "board", "--folder", str(board), "--json"]).stdout)
    assert [each["submission"] for each in table] == ["good", "bad"]
    assert table[1]["flags"]
