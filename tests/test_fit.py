"""The loop: what it logs, keeps and refuses, on a model of four weights."""

import json
import math
import types
from dataclasses import replace

import numpy as np
import pytest
import torch
from data_factory import RGB, write_data
from safetensors.torch import load_file
from torch import nn

from l4s import fit as module
from l4s.data.dataset import Part, Slice, Steps, mask_labels
from l4s.data.domain import affine, open_domain
from l4s.engine import start_engine
from l4s.errors import RunError
from l4s.fit import Job, fit
from l4s.interval import trim_metrics
from l4s.models import Output
from l4s.recipe import Augment, DomainConfig, Train
from l4s.tasks import TASKS


class Pixelwise(nn.Module):
    """A logistic regression of the bands: no statistics, so that batches can be cut at will."""

    def __init__(self, seed=0, dropout=0.0):
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Conv2d(3, 1, 1)
        values = torch.Generator().manual_seed(seed)
        nn.init.normal_(self.head.weight, generator=values)
        nn.init.zeros_(self.head.bias)

    def forward(self, image):
        return Output(self.head(self.dropout(image)), {})


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    root = tmp_path_factory.mktemp("fit")
    return open_domain("home", DomainConfig(role="source"), RGB, write_data(root / "data"), root / "cache")


@pytest.fixture(scope="module")
def engine():
    return start_engine("cpu", "fp32")


@pytest.fixture(autouse=True)
def often(monkeypatch):
    monkeypatch.setattr(module, "LOG_EVERY", 2)


def job(home, folder, evaluate=lambda model, step: {"f1": 0.5}, **train):
    config = {"steps": 6, "batch": 4, "augment": Augment(d4=False), "loss": [{"name": "bce"}]} | train
    config = Train.model_validate_json(json.dumps(config, default=lambda section: section.model_dump()))
    source = [Part(home, 0, home.train, *affine(home, "separated", [home]), mask_labels(home))]
    folder.mkdir(exist_ok=True)
    return Job(
        name="round 0 m",
        task=TASKS["segment"](config),
        model=Pixelwise(),
        source_and_target=lambda cut: Steps(source, [], config, 0, cut),
        train=config,
        seed=0,
        folder=folder,
        evaluate=evaluate,
    )


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_one_step_by_hand(home, engine, tmp_path):
    """Plain SGD at a constant rate: w - lr * dL/dw of the mean cross entropy of the first batch."""
    sgd, constant = {"name": "sgd", "lr": 0.5, "weight_decay": 0.0}, {"name": "constant"}
    (path,) = fit(engine, job(home, tmp_path, steps=1, optimiser=sgd, schedule=constant))
    model = Pixelwise()
    batch = job(home, tmp_path).source_and_target(Slice())[0]
    loss = nn.functional.binary_cross_entropy_with_logits(model(batch.image).logits[:, 0], batch.target)
    loss.backward()
    trained = load_file(path)
    torch.testing.assert_close(trained["head.weight"], model.head.weight.detach() - 0.5 * model.head.weight.grad)
    torch.testing.assert_close(trained["head.bias"], model.head.bias.detach() - 0.5 * model.head.bias.grad)
    assert lines(tmp_path)[0]["loss"] == pytest.approx(loss.item(), rel=1e-5)


def test_training_learns(home, engine, tmp_path):
    fit(engine, job(home, tmp_path, steps=30, optimiser={"lr": 0.1}))
    losses = [line["loss"] for line in lines(tmp_path)]
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("accumulate", [2, 4])
def test_accumulation_changes_nothing(home, engine, tmp_path, accumulate):
    whole = load_file(fit(engine, job(home, tmp_path / "a"))[0])
    parts = load_file(fit(engine, job(home, tmp_path / "b", accumulate=accumulate))[0])
    for key in whole:
        torch.testing.assert_close(parts[key], whole[key])
    for ours, theirs in zip(lines(tmp_path / "a"), lines(tmp_path / "b"), strict=True):
        assert ours["bce"] == pytest.approx(theirs["bce"], rel=1e-4)


def test_clipping_bounds_the_gradient(home, engine, tmp_path):
    sgd = {"name": "sgd", "lr": 1.0, "weight_decay": 0.0}
    constant = {"name": "constant"}
    (path,) = fit(engine, job(home, tmp_path, steps=1, optimiser=sgd, schedule=constant, clip=1e-3))
    before = Pixelwise().state_dict()
    moved = torch.cat([(value - before[key]).ravel() for key, value in load_file(path).items()])
    assert float(moved.norm()) == pytest.approx(1e-3, rel=1e-3)


def test_the_schedule_sets_the_rate_of_every_step(home, engine, tmp_path, monkeypatch):
    seen = []
    set_rate = module._set_rate

    def watch(optimiser, train, step):
        set_rate(optimiser, train, step)
        seen.append([group["lr"] for group in optimiser.param_groups])

    monkeypatch.setattr(module, "_set_rate", watch)
    fit(engine, job(home, tmp_path, steps=4, optimiser={"lr": 0.1}, schedule={"name": "poly"}))
    np.testing.assert_allclose(seen, [[0.1] * 2, [0.075] * 2, [0.05] * 2, [0.025] * 2])


def test_ema_weights_are_what_is_judged_and_kept(home, engine, tmp_path):
    judged = []
    watch = job(
        home,
        tmp_path,
        lambda model, step: judged.append(model.head.weight.clone()) or {"f1": 0.5},
        ema=0.5,
        evaluate_every=3,
    )
    (path,) = fit(engine, watch)
    (plain,) = fit(engine, job(home, tmp_path / "plain"))
    assert torch.equal(load_file(path)["head.weight"], judged[-1])
    assert not torch.equal(load_file(path)["head.weight"], load_file(plain)["head.weight"])


def test_ema_is_the_plain_mean_of_the_steps_while_these_are_few(home, engine, tmp_path):
    """It decays by min(1 - 1 / (t + 1), a) at t = 0, 1, ...: nothing of the weights before, 1/2, 2/3, then a."""
    every = []
    watch = job(
        home,
        tmp_path / "a",
        lambda model, step: every.append(model.head.weight.clone()) or {"f1": 0.5},
        evaluate_every=1,
    )
    fit(engine, watch)
    (path,) = fit(engine, job(home, tmp_path / "b", ema=0.75))
    average = torch.zeros_like(every[0])
    for t, weight in enumerate(every):
        decay = min(1 - 1 / (t + 1), 0.75)
        average = decay * average + (1 - decay) * weight
    torch.testing.assert_close(load_file(path)["head.weight"], average)
    (path,) = fit(engine, job(home, tmp_path / "c", ema=0.999))
    torch.testing.assert_close(load_file(path)["head.weight"], torch.stack(every).mean(0))


@pytest.mark.parametrize(("evaluate_every", "accumulate"), [(None, 1), (2, 1), (None, 2)])
def test_precise_statistics_replace_the_moving_ones_and_touch_nothing_else(
    home, engine, tmp_path, evaluate_every, accumulate
):
    def train(name, precise_bn):
        more = {"evaluate_every": evaluate_every, "accumulate": accumulate}
        made = job(home, tmp_path / name, augment=Augment(d4=True, offset=3.0), **more)
        made = replace(made, train=made.train.model_copy(update={"precise_bn": precise_bn}))
        made.model.dropout = nn.BatchNorm2d(3)  # before the head: it sees the images themselves
        (path,) = fit(engine, made)
        return made, load_file(path)

    made, precise = train("precise", 3)
    _, moving = train("moving", 0)
    assert torch.equal(precise["head.weight"], moving["head.weight"])
    steps = made.source_and_target(Slice(accumulate=accumulate)).turned_only(made.train)
    seen = torch.cat([steps[made.train.steps * accumulate + item].image for item in range(3 * accumulate)])
    assert len(seen) == 3 * made.train.batch  # whole batches, however they are cut
    torch.testing.assert_close(precise["dropout.running_mean"], seen.mean((0, 2, 3)))
    torch.testing.assert_close(precise["dropout.running_var"], seen.var((0, 2, 3)))
    assert (moving["dropout.running_var"] > 2 * precise["dropout.running_var"]).all()  # the noise of colour


def test_without_steps_the_weights_stay_as_they_are(home, engine, tmp_path):
    """`[[round]] steps = 0`: precise statistics would be of this run's images."""
    made = job(home, tmp_path)
    made = replace(made, train=made.train.model_copy(update={"steps": 0, "precise_bn": 3}))
    made.model.dropout = nn.BatchNorm2d(3)
    before = {key: value.clone() for key, value in made.model.state_dict().items()}
    (path,) = fit(engine, made)
    after = load_file(path)
    assert after.keys() == before.keys() and all(torch.equal(after[key], before[key]) for key in before)


@pytest.mark.parametrize(("accumulate", "ema"), [(1, None), (2, 0.9)])
def test_dropout_crops_and_averages_go_on_as_they_would_have(home, engine, tmp_path, monkeypatch, accumulate, ema):
    monkeypatch.setattr(module, "SAVE_SECONDS", 0.0)

    def drawn(folder):
        drawing = job(home, folder, accumulate=accumulate, ema=ema, scale={"factor": [1.0, 2.0], "crop": 12})
        return replace(drawing, model=Pixelwise(dropout=0.5))

    def stop(point):
        if point == "fit.saved" and (tmp_path / "b" / module.EARLIER_STATE).is_file():
            raise KeyboardInterrupt

    whole = load_file(fit(engine, drawn(tmp_path / "a"))[0])
    monkeypatch.setattr(module.rundir, "reached", stop)
    with pytest.raises(KeyboardInterrupt):
        fit(engine, drawn(tmp_path / "b"))
    torch.manual_seed(99)  # whatever was drawn in between
    monkeypatch.setattr(module.rundir, "reached", lambda point: None)
    resumed = load_file(fit(engine, drawn(tmp_path / "b"))[0])
    assert all(torch.equal(resumed[key], whole[key]) for key in whole)


def test_every_evaluation_has_its_line(home, engine, tmp_path):
    fit(engine, job(home, tmp_path, lambda model, step: {"f1": step / 10}, steps=7, evaluate_every=3))
    assert [(line["step"], line.get("heldout_f1")) for line in lines(tmp_path)] == [
        (2, None),
        (3, 0.3),
        (4, None),
        (6, 0.6),
        (7, 0.7),
    ]


def test_the_time_that_judging_takes_is_no_training(home, engine, tmp_path, monkeypatch):
    now = [0.0]

    def later(seconds):
        now[0] += seconds

    clock = types.SimpleNamespace(monotonic=lambda: now[0])
    monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr("l4s.interval.time", clock)
    monkeypatch.setattr(module.rundir, "reached", lambda point: later(1.0 if point == "fit.step" else 0.0))
    fit(engine, job(home, tmp_path, lambda model, step: later(100.0) or {"f1": 0.5}, evaluate_every=2))
    assert [line["patches_per_s"] for line in lines(tmp_path)] == [4.0] * 3


def test_the_recipe_says_what_decays():
    for decay_all, decays in ((False, [0.5, 0.0]), (True, [0.5])):
        optimiser = {"name": "adam", "weight_decay": 0.5, "decay_all": decay_all}
        groups = module.optimiser_of(Train(optimiser=optimiser), Pixelwise()).param_groups
        assert [group["weight_decay"] for group in groups] == decays


def watched(scores, steps):
    """An evaluation that says these scores in turn and notes the weights of the steps asked for."""
    weights = {}

    def evaluate(model, step):
        weights[step] = model.head.weight.detach().clone()
        return {"f1": scores[steps.index(step)]}

    return evaluate, weights


def test_the_best_weights_are_kept_the_best_first_and_the_earlier_of_equals(home, engine, tmp_path):
    evaluate, weights = watched([0.3, 0.5, 0.5, 0.1], [2, 4, 6, 8])
    paths = fit(engine, job(home, tmp_path, evaluate, steps=8, evaluate_every=2, keep=3))
    assert [path.name for path in paths] == [f"weights-{place}.safetensors" for place in (1, 2, 3)]
    for path, step in zip(paths, (4, 6, 2), strict=True):
        assert torch.equal(load_file(path)["head.weight"], weights[step])


def test_fewer_evaluations_than_weights_to_keep(home, engine, tmp_path):
    paths = fit(engine, job(home, tmp_path, steps=4, evaluate_every=4, keep=3))
    assert [path.name for path in paths] == ["weights.safetensors"]


def test_patience_ends_training_and_the_best_weights_stay(home, engine, tmp_path):
    evaluate, weights = watched([0.3, 0.5, 0.5, 0.4, 0.9], [2, 4, 6, 8, 10])
    (path,) = fit(engine, job(home, tmp_path, evaluate, steps=10, evaluate_every=2, keep=1, patience=2))
    assert list(weights) == [2, 4, 6, 8]  # 0.9 is never seen
    assert torch.equal(load_file(path)["head.weight"], weights[4])
    assert lines(tmp_path)[-1]["step"] == 8


def test_a_loss_that_is_not_finite_is_told_before_anything_is_scored(home, engine, tmp_path):
    scored = []
    bad = job(home, tmp_path, lambda model, step: scored.append(step) or {"f1": 0.0}, steps=3, evaluate_every=1)
    nn.init.constant_(bad.model.head.weight, math.nan)
    with pytest.raises(RunError, match="round 0 m: the loss is not finite by step 1 .*lower the learning rate"):
        fit(engine, bad)
    assert scored == []


@pytest.mark.parametrize(
    ("counts", "world", "accumulate", "fits"),
    [
        ((16, 0), 1, 1, True),
        ((16, 0), 4, 2, True),
        ((16, 0), 3, 1, False),
        ((16, 0), 32, 1, False),
        ((8, 8), 8, 1, True),
        ((14, 2), 2, 1, True),
        ((14, 2), 4, 1, False),  # two processes would see no target row
        ((2, 14), 2, 2, False),
    ],
)
def test_a_batch_must_fit_the_processes(counts, world, accumulate, fits):
    steps = types.SimpleNamespace(counts=counts)
    train = Train(batch=sum(counts), accumulate=accumulate)
    asked = types.SimpleNamespace(name="m", train=train)
    if fits:
        module._refuse_uneven(asked, steps, world)
        return
    with pytest.raises(
        RunError, match=f"{counts[0]} source and {counts[1]} target rows does not fit {world} processes"
    ):
        module._refuse_uneven(asked, steps, world)


def test_lines_beyond_a_step_are_dropped_and_so_are_broken_ones(tmp_path):
    path = tmp_path / "metrics.jsonl"
    trim_metrics(path, 3)
    assert not path.exists()
    path.write_text('{"step": 2}\n{"step": 4}\n{"step": 6}\n{"st')
    trim_metrics(path, 4)
    assert path.read_text() == '{"step": 2}\n{"step": 4}\n'


def test_seeds_of_steps_and_ranks_differ():
    seeds = {module._mix(seed, step, rank) for seed in range(3) for step in range(20) for rank in range(3)}
    assert len(seeds) == 180 and all(0 <= seed < 2**63 for seed in seeds)


class Pooled(nn.Module):
    """A network whose BatchNorm sees one value a channel of each patch."""

    def __init__(self):
        super().__init__()
        self.norm, self.head = nn.BatchNorm2d(3), nn.Conv2d(3, 1, 1)

    def forward(self, image):
        return Output(self.head(image + self.norm(image.mean((2, 3), keepdim=True))), {})


def test_a_batch_that_is_too_small_for_batchnorm_is_told(home, engine, tmp_path, capsys):
    asked = replace(job(home, tmp_path, accumulate=4), model=Pooled())
    with pytest.raises(RunError, match=r"a batch holds too little for BatchNorm .*lower train.accumulate"):
        fit(engine, asked)
    assert "BatchNorm and the losses see 1 row(s) of a kind at a time" in " ".join(capsys.readouterr().err.split())
