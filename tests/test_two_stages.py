"""Two stages: a siamese network is trained, frozen and embedded; small networks learn of its embeddings, and of few patches."""

import json
import os
import shutil

import numpy as np
import pytest
import torch
from data_factory import write_h5, write_recipe
from safetensors.torch import load_file
from sklearn.metrics import average_precision_score
from typer.testing import CliRunner

from l4s import files, rundir
from l4s.apply import Use, predict_images
from l4s.cli import app
from l4s.data.dataset import Part, mask_labels
from l4s.data.domain import affine, open_domain
from l4s.data.probs import open_probs
from l4s.data.subset import subset
from l4s.embed import embed, open_embeddings
from l4s.ensemble import ensemble
from l4s.errors import DataError, RecipeError, RunError
from l4s.inputs import view_of
from l4s.load import load_recipe
from l4s.member import trained_member
from l4s.models.contract import Output
from l4s.pipeline import run_recipe, train_round
from l4s.recipe import DomainConfig
from l4s.rundir import command
from l4s.session import Machine, open_session
from l4s.steps import run_ensemble

RECIPE = """
name = "two"

[bands]
file = ["vv_pre", "vh_pre", "vv_post", "vh_post"]
terrain = []
rgb = ["vv_pre", "vh_pre", "vv_post"]
groups = { pre = ["vv_pre", "vh_pre"], post = ["vv_post", "vh_post"] }

[domain.home]
role = "source"
split = "train"
holdout = { by = "ids", ranges = [[9, 12]] }

[domain.test]
role = "eval"
split = "test"
normalise = "source"

[train]
steps = 4
batch = 2
evaluate_every = 2
optimiser = { lr = 1e-2 }
augment = { d4 = true, gain = 0.1 }

[member.stage1]
model = { name = "siamese", size = 16, encoder = "cnn", embedding = 2, head = "mean", kernel = 3 }
task = "classify"
train = { loss = [{ name = "bce" }], keep = 1, keep_by = "accuracy", patience = 9, stop_by = "loss" }
predicts = ["home"]

[member.with]
model = { name = "pair_cnn", size = 16, widths = [3], kernel = 3, embedding = 4 }
features = "member:stage1"
train = { keep = 2, keep_by = "ap" }
ensemble = "with"
grid = { "train.subset" = [2, 4], seed = [0, 1] }

[member.without]
model = { name = "pair_cnn", size = 16, widths = [3], kernel = 3 }
train = { keep = 2, keep_by = "ap" }
ensemble = "without"
grid = { "train.subset" = [2, 4], seed = [0, 1] }

[ensemble]
group_by = ["train.subset"]

[predict]
tta = ["none"]
"""


def write_pairs(root, split, ids, seed):
    """Pairs whose landslides are darker after; every second patch has none."""
    for number in ids:
        rng = np.random.default_rng((seed, number))
        mask = np.zeros((16, 16), np.uint8)
        if number % 2:
            mask[3:9, 4:12] = 1
        image = rng.normal(size=(16, 16, 4))
        image[..., 2:] -= 3 * mask[..., None]
        folder = {"train": "TrainData", "test": "TestData"}[split]
        write_h5(root / folder / "img" / f"image_{number}.h5", "img", image)
        write_h5(root / folder / "mask" / f"mask_{number}.h5", "mask", mask)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("two")
    write_pairs(place / "data", "train", range(1, 13), 0)
    write_pairs(place / "data", "test", range(1, 7), 1)
    return place


def opened(place, root, *sets):
    recipe = write_recipe(place / "two.toml", text=RECIPE)
    (x,) = open_session(str(recipe), sets, place / "data", root, Machine("cpu", "fp32", cache=place / "cache"))
    return x


@pytest.fixture(scope="module")
def finished(place):
    x = opened(place, place / "runs" / "two")
    run_recipe(x)
    return x


def test_members_are_trained_after_those_whose_embeddings_they_read(finished):
    names = [member.name for member in finished.members]
    assert names.index("stage1") < min(k for k, name in enumerate(names) if name.startswith("with-"))
    assert {path.name for path in (finished.run.root / "round-0" / "stage1" / "probs").iterdir()} == {"home.none.h5"}
    assert "test" in {
        path.name.split(".")[0]
        for path in (finished.run.root / "round-0" / "ensemble-with-subset-2" / "probs").iterdir()
    }


def test_embeddings_are_those_of_the_frozen_network(finished):
    """In evaluation, of the chosen weights, for every patch; kept as float16."""
    x = finished
    first = next(member for member in x.members if member.name == "stage1")
    second = next(member for member in x.members if member.name == "with-subset2-seed0")
    (weights,) = (x.run.root / "round-0" / "stage1").glob("weights*.safetensors")
    (model,) = trained_member(x.recipe, first, 0, [weights], x.engine)
    for domain in x.domains.values():
        (path,) = (x.run.root / "round-0" / "stage1" / "embeddings").glob(f"{domain.name}-*.npy")
        stored = open_embeddings(path)
        view = view_of(x, domain, first, 0)
        with torch.no_grad():
            wanted = model.eval()(view.images(np.arange(len(domain)))).extras["embedding"]
        assert stored.shape == (len(domain), 4, 16, 16) and stored.dtype == np.float16
        np.testing.assert_allclose(stored, wanted, atol=2e-3)
        seen = view_of(x, domain, second, 0).images(np.array([1, 0]))
        np.testing.assert_array_equal(seen[:, 4:], stored[[1, 0]].astype(np.float32))


def test_best_weights_are_chosen_by_the_score_that_is_named(finished):
    lines = [
        json.loads(line)
        for line in (finished.run.root / "round-0" / "stage1" / "metrics.jsonl").read_text().splitlines()
    ]
    judged = [line for line in lines if "heldout_accuracy" in line]
    assert judged and all({"heldout_f1", "heldout_loss"} <= line.keys() for line in judged)
    assert {"heldout_f1", "heldout_ap"} <= json.loads(
        (finished.run.root / "round-0" / "with-subset2-seed0" / "metrics.jsonl").read_text().splitlines()[-1]
    ).keys()


@pytest.mark.slow
def test_a_stop_while_embeddings_are_written_leaves_nothing_half(place, tmp_path, monkeypatch, finished):
    class Killed(BaseException):
        pass

    def stop(point):
        if point == "embed.written":
            raise Killed

    monkeypatch.setattr(rundir, "reached", stop)
    root = tmp_path / "run"
    with pytest.raises(Killed):
        run_recipe(opened(place, root))
    assert not list(root.glob("round-0/stage1/embeddings/*"))
    monkeypatch.undo()
    run_recipe(opened(place, root))
    for path in sorted(finished.run.root.glob("round-0/*/weights*.safetensors")):
        ours, theirs = load_file(root / path.relative_to(finished.run.root)), load_file(path)
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_new_images_get_what_the_run_itself_predicts(place, finished, tmp_path):
    left = tmp_path / "out.h5.members" / "stage1.npy"  # of other images, by a process that was killed
    left.parent.mkdir()
    np.save(left, np.ones((6, 4, 16, 16), np.float16))
    command = [
        "predict",
        "--run",
        str(finished.run.root),
        "--images",
        str(place / "data" / "TestData"),
        "--normalise",
        "source",
    ]
    command += ["--group", "with-subset-4", "--out", str(tmp_path / "out.h5"), "--cache", str(place / "cache")]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    ours = open_probs(tmp_path / "out.h5")
    theirs = open_probs(finished.run.root / "round-0" / "ensemble-with-subset-4" / "probs" / "test.none.h5")
    assert ours.ids == theirs.ids
    np.testing.assert_array_equal(np.stack(list(ours.patches())), np.stack(list(theirs.patches())))


def test_another_first_stage_trains_the_second_anew(place, finished, tmp_path):
    other = opened(place, tmp_path / "run", "member.stage1.seed=1")
    for name, same in (("with-subset2-seed0", False), ("without-subset2-seed0", True)):
        keys = [x.fit_key(next(m for m in x.members if m.name == name), 0) for x in (finished, other)]
        assert (keys[0] == keys[1]) is same


def test_new_images_are_other_predictions_where_their_embeddings_are(place, finished, tmp_path):
    shutil.copytree(finished.run.root, tmp_path / "runs" / "two")  # its trainings are taken over
    x = opened(place, tmp_path / "runs" / "source", "member.stage1.normalise=source")
    run_recipe(x)
    machine, out = Machine("cpu", "fp32", cache=place / "cache"), tmp_path / "new.h5"
    arguments = (x.run.root, place / "data" / "TestData", out, machine)
    first = predict_images(*arguments, Use(group="with-subset-2")).read()
    with pytest.raises(RunError, match="was made with another run, images or settings"):
        predict_images(*arguments, Use(group="with-subset-2", normalise="separated"))
    out.unlink()
    second = predict_images(*arguments, Use(group="with-subset-2", normalise="separated")).read()
    assert (first != second).any()


def test_embeddings_of_other_weights_are_refused(place, finished, tmp_path):
    """The folder holds a first stage of other settings: the second must not train on what that one says."""
    shutil.copytree(finished.run.root, tmp_path / "run")
    for folder in (tmp_path / "run" / "round-0").glob("with-*"):
        shutil.rmtree(folder)
    with pytest.raises(RunError, match="stage1 was made with other settings"):
        opened(place, tmp_path / "run", "member.stage1.seed=1")
    shutil.rmtree(tmp_path / "run" / "round-0" / "stage1")
    other = opened(place, tmp_path / "run", "member.stage1.seed=1")
    with pytest.raises(RunError, match="reads what stage1 says, which is not trained"):
        train_round(other, 0, ["with"])


def study(place, root, *options, domain="test"):
    command = ["report", str(root), "--data", str(place / "data"), "--study", domain, "--cache", str(place / "cache")]
    return CliRunner().invoke(app, [*command, *options])


@pytest.fixture(scope="module")
def rows(finished, place):
    result = study(place, finished.run.root, "--json")
    assert result.exit_code == 0, result.output
    (rows,) = json.loads(result.stdout).values()
    return rows


def test_the_study_scores_what_is_averaged(finished, place, rows):
    root = finished.run.root
    assert [(row["line"], row["size"]) for row in rows] == [(n, s) for n in ("with", "without") for s in (2, 4)]
    truth = np.stack([finished.domains["test"].cache.mask(row) for row in range(6)])
    for row in rows:
        values = read_all(root / "round-0" / f"ensemble-{row['line']}-subset-{row['size']}")
        wanted = average_precision_score(truth.ravel(), values.ravel())
        assert row["average_precision"] == pytest.approx(wanted, abs=1e-6)
        errors = (values >= 0.5).sum((1, 2)) - (truth == 1).sum((1, 2))
        assert row["counts"]["threshold"]["empty"]["median"] == np.median(errors[1::2])
        assert row["counts"]["sum"]["all"]["mean"] == pytest.approx(
            (values.sum((1, 2)) - truth.sum((1, 2))).mean(), abs=1e-6
        )
        assert row["checkpoints"] == 4 and row["seeds"] == 2 and row["random"] == pytest.approx(truth.mean())
    assert {path.name for path in (root / "pictures").glob("study-test-*")} == {
        f"study-test-{name}.png" for name in ("precision", "counts", "chips")
    }
    unknown = study(place, root, domain="tst")
    assert unknown.exit_code == 2 and "did you mean 'test'" in unknown.output


def read_all(folder):
    probs = open_probs(folder / "probs" / "test.none.h5")
    return np.stack(list(probs.patches())).astype(np.float64)


def test_error_bars_of_the_study_belong_to_what_they_stand_beside(finished, rows):
    """Means over members with the error of that mean; the averaged prediction scores something else."""
    root = finished.run.root
    truth = np.stack([finished.domains["test"].cache.mask(row) for row in range(6)])
    for row in rows:
        folders = [root / "round-0" / f"{row['line']}-subset{row['size']}-seed{seed}" for seed in (0, 1)]
        values = [read_all(folder) for folder in folders]
        each = [average_precision_score(truth.ravel(), value.ravel()) for value in values]
        over = row["over_seeds"]
        assert over["each"] == pytest.approx(each, abs=1e-6) and over["mean"] == pytest.approx(np.mean(each), abs=1e-6)
        assert over["error"] == pytest.approx(np.std(each, ddof=1) / 2**0.5, abs=1e-6)
        medians = [np.median(((value >= 0.5).sum((1, 2)) - (truth == 1).sum((1, 2)))[::2]) for value in values]
        found = row["counts_over_seeds"]["threshold"]["landslide"]["median"]
        assert found["mean"] == np.mean(medians)
        assert found["error"] == pytest.approx(np.std(medians, ddof=1) / 2**0.5)
    text = (root / "study-test.md").read_text()
    first = rows[0]["over_seeds"]
    assert f"| with | 2 | 2 | {first['mean']:.3f} ± {first['error']:.3f} ({first['sd_over_n']:.3f}) |" in text


def test_the_study_prints_how_much_lines_differ(finished, rows):
    assert set(rows[0]["against"]) == {"without"} and set(rows[0]["against"]["without"]) == {
        "all",
        "empty",
        "landslide",
    }
    found = rows[0]["against"]["without"]["landslide"]
    wanted = f"{found['difference']:+.1f} [{found['low']:.1f}, {found['high']:.1f}] |"
    (line,) = [
        line
        for line in (finished.run.root / "study-test.md").read_text().splitlines()
        if line.startswith("| with | without | 2 |")
    ]
    assert line.endswith(wanted)


def test_studies_of_two_domains_lie_side_by_side(finished, place, tmp_path):
    """And that of a source's hold-out says what its labels did."""
    shutil.copytree(finished.run.root, tmp_path / "run")
    printed = [study(place, tmp_path / "run", domain=domain).stdout for domain in ("test", "home")]
    texts = [(tmp_path / f"run/study-{domain}.md").read_text() for domain in ("test", "home")]
    assert printed == texts and "on test." in texts[0].splitlines()[0]
    assert "on home, whose labels chose the checkpoints" in texts[1].splitlines()[0]
    for domain, chose in (("test", False), ("home", True)):
        about = json.loads((tmp_path / f"run/study-{domain}.json").read_text())
        assert about["domain"] == domain and about["chose_checkpoints"] is chose
        for name in ("precision", "counts", "chips"):
            assert (tmp_path / f"run/pictures/study-{domain}-{name}.png").is_file()


def test_masks_side_by_side_are_of_equally_many_patches(finished, place, tmp_path, monkeypatch):
    """As far as the study is finished: `with` has both sizes, `without` the smaller one, and then the larger one alone."""
    root = tmp_path / "run"
    shutil.copytree(finished.run.root, root)
    drawn, told = [], []
    monkeypatch.setattr("l4s.study.draw_chips", lambda out, domain, probs, size: drawn.append((sorted(probs), size)))
    monkeypatch.setattr("l4s.log.warn", told.append)
    (root / "round-0/ensemble-without-subset-4/probs/test.none.h5").rename(tmp_path / "later")
    assert study(place, root).exit_code == 0
    assert drawn == [(["with", "without"], 2)] and not told
    (tmp_path / "later").rename(root / "round-0/ensemble-without-subset-4/probs/test.none.h5")
    (root / "round-0/ensemble-without-subset-2/probs/test.none.h5").unlink()
    (root / "round-0/ensemble-with-subset-4/probs/test.none.h5").unlink()
    assert study(place, root).exit_code == 0
    assert len(drawn) == 1 and "is not drawn: no number of training patches is common to with, without" in told[0]


def copied(finished, root, *sets):
    """The finished run under other settings of what is done with its members; no member is trained again."""
    shutil.copytree(finished.run.root, root)
    for folder in root.glob("round-0/ensemble*"):
        shutil.rmtree(folder)
    return root, sets


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (["ensemble.group_by=['train.subset', 'seed']"], "two ensembles of line 'with"),
        (["ensemble.group_by=[]"], "averages members trained on 2, 4 patches"),
    ],
)
def test_what_is_no_point_of_a_study(finished, place, tmp_path, sets, message):
    root, sets = copied(finished, tmp_path / "run", *sets)
    run_ensemble(opened(place, root, *sets), 0)
    result = study(place, root)
    assert result.exit_code == 2 and message in result.output
    assert "set ensemble.group_by = ['train.subset'], and member.x.ensemble" in result.output


@pytest.mark.slow
def test_a_study_reads_the_augmentation_that_is_ensembled(finished, place, tmp_path):
    root, sets = copied(finished, tmp_path / "run", "predict.tta=['none', 'flip']", "ensemble.tta='none'")
    x = opened(place, root, *sets)
    for group, members in x.plan.grouped(x.trained(0)).items():  # nobody has predicted the flipped ones
        for domain in x.predicted(*members):
            out = x.run.probs(x.run.ensemble(0, group), domain.name, "none")
            paths = [x.run.probs(x.run.member(0, member.name), domain.name, "none") for member in members]
            ensemble([open_probs(path) for path in paths], out, fingerprint=x.ensemble_key(members, 0, domain, "none"))
    assert study(place, root).exit_code == 0


@pytest.mark.slow
def test_files_that_a_run_no_longer_means_are_not_studied(finished, place, tmp_path):
    shutil.copytree(finished.run.root, tmp_path / "run")
    few, many = (tmp_path / "run/round-0" / f"ensemble-with-subset-{size}/probs/test.none.h5" for size in (2, 4))
    shutil.copyfile(few, many)
    result = study(place, tmp_path / "run")
    assert result.exit_code == 2 and "was made with other settings or inputs" in result.output
    assert command(tmp_path / "run", "ensemble", "--round", 0) in result.output
    many.unlink()
    assert study(place, tmp_path / "run").exit_code == 0  # a study that is not finished is drawn as far as it is
    (tmp_path / "run/round-0/with-subset2-seed0/probs/test.none.h5").unlink()
    missing = study(place, tmp_path / "run")
    needed = command(tmp_path / "run", "predict", "--round", 0)
    assert missing.exit_code == 2 and f"test.none.h5 is missing: run {needed} first" in missing.output


def test_other_masks_of_the_same_patches_are_not_studied(finished, place, tmp_path):
    shutil.copytree(place / "data", tmp_path / "data")
    write_h5(tmp_path / "data/TestData/mask/mask_2.h5", "mask", np.ones((16, 16), np.uint8))
    result = study(tmp_path, finished.run.root, "--cache", str(tmp_path / "cache"))
    assert result.exit_code == 2 and "domain test: what lies in" in result.output and "l4s run" in result.output


def test_more_patches_than_there_are_is_said_before_anything_is_trained(place, tmp_path):
    with pytest.raises(
        RecipeError, match="'with-subset40-seed0' has train.subset = 40, but its sources have 8 patches"
    ):
        opened(place, tmp_path / "run", "member.with.grid={'train.subset'=[2, 40], seed=[0]}")


class Network(torch.nn.Module):
    """Says what it is given plus 5, and what else is to be done between two batches."""

    def __init__(self, between):
        super().__init__()
        self.between = between

    def forward(self, image):
        self.between()
        return Output(image[:, :1, 0, 0], {"embedding": image + 5})


class Ones:
    norm = 0

    def __init__(self, count):
        self.rows = np.arange(count)

    def images(self, rows):
        return torch.ones(len(rows), 2, 4, 4)


def test_processes_that_embed_the_same_patches_do_not_meet(finished, tmp_path, monkeypatch):
    """One is half done when another begins and ends; both end in a whole file."""
    out = tmp_path / "embeddings" / "home.npy"
    calls = []

    def meanwhile():
        calls.append(os.getpid())
        if len(calls) == 2:
            monkeypatch.setattr(files.os, "getpid", lambda: -1)
            embed(finished.engine, Network(lambda: None), Ones(6), out, batch=2)
            assert (open_embeddings(out) == 6).all()
            monkeypatch.undo()

    embed(finished.engine, Network(meanwhile), Ones(6), out, batch=2)
    assert len(calls) == 3 and (open_embeddings(out) == 6).all()
    assert list(out.parent.iterdir()) == [out]


def test_an_embedding_that_cannot_be_leaves_nothing(finished, tmp_path):
    def fail():
        raise RuntimeError("no memory")

    with pytest.raises(RuntimeError, match="no memory"):
        embed(finished.engine, Network(fail), Ones(2), tmp_path / "e.npy", batch=2)
    calls = []

    def fail_later():
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("no memory")

    with pytest.raises(RuntimeError, match="no memory"):
        embed(finished.engine, Network(fail_later), Ones(6), tmp_path / "e.npy", batch=2)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def home(place):
    bands = load_recipe(write_recipe(place / "two.toml", text=RECIPE)).bands
    return open_domain("home", DomainConfig(role="source"), bands, place / "data", place / "cache")


def parts_of(home):
    return [Part(home, 0, home.train, *affine(home, "separated", [home]), mask_labels(home))]


@pytest.mark.parametrize("count", [1, 2, 5, 12])
def test_a_subset_keeps_the_share_of_landslides(home, count):
    (part,) = subset(parts_of(home), count, seed=3)
    positive = sum(home.patches[row].number % 2 for row in part.rows)
    assert len(set(part.rows.tolist())) == len(part.rows) == count
    assert positive == max(1, round(count / 2))


def test_each_seed_draws_anew(home):
    drawn = {tuple(subset(parts_of(home), 4, seed)[0].rows.tolist()) for seed in range(6)}
    assert len(drawn) > 3
    with pytest.raises(DataError, match="train.subset = 13, but the sources have 12 patches"):
        subset(parts_of(home), 13, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["member.with.features='member:stage'"], "needs 'stage'"),
        (["member.with.features='member:without'"], "name a member of model 'siamese'"),
        (["member.with.model.embedding=3"], "has room for 3 channels of embeddings and 'stage1' gives 4"),
        (["member.without.model.embedding=4"], "has features = None and room for 4"),
        (["member.stage1.predicts=['hom']"], "predicts 'hom'"),
        (["member.with.train.keep=0"], "keep_by is read with keep"),
        (["member.stage1.train.scale.factor=2.0"], "has features of 'stage1', which sees scaled images"),
        (["member.stage1.adabn=true"], "has features of 'stage1', which are not adapted: leave adabn out"),
        (["round=[{round=0,train=['with']}]"], "has features of 'stage1', which round 0 does not train"),
    ],
)
def test_settings_that_cannot_be(place, change, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe(write_recipe(place / "two.toml", text=RECIPE), change)
