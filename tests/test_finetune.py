"""Members of one recipe on sources of their own: one is trained, another goes on from it; encoders that wait."""

import json

import numpy as np
import pytest
import torch
from data_factory import write_data, write_recipe, write_split
from safetensors.torch import load_file

from l4s import fit as loop
from l4s import steps
from l4s.data.dataset import Slice
from l4s.data.domain import affine
from l4s.errors import RecipeError
from l4s.load import load_recipe
from l4s.optim import encoder_parameters
from l4s.pipeline import run_recipe
from l4s.session import Machine, open_session

RECIPE = """
name = "fine"

[bands]
file = ["b4", "b3", "b2"]

[domain.home]
role = "source"
split = "train"
holdout = { by = "ids", ranges = [[7, 8]] }

[domain.small]
role = "source"
split = "test"
holdout = { by = "ids", ranges = [[5, 6]], gap = 1 }

[train]
steps = 6
batch = 2
optimiser = { lr = 1e-2 }

[member.big]
model = { name = "baseline", size = 16, width = 2 }
source = ["home"]

[member.scratch]
model = { name = "baseline", size = 16, width = 2 }
source = ["small"]

[member.tuned]
model = { name = "baseline", size = 16, width = 2 }
source = ["small"]
init = "member:big"
train = { freeze = 4, optimiser = { encoder_lr_factor = 0.1 } }

[predict]
tta = ["none"]
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("finetune")
    write_split(write_data(place / "data"), "test", range(1, 7), seed=3, gain=2.0, offset=5.0)
    return place


def opened(place, root, *sets):
    recipe = write_recipe(place / "fine.toml", text=RECIPE)
    (x,) = open_session(str(recipe), sets, place / "data", root, Machine("cpu", "fp32", cache=place / "cache"))
    return x


def weights(root, member):
    return load_file(root / "round-0" / member / "weights.safetensors")


def test_a_member_trains_on_its_own_sources_and_all_are_predicted_on_both(place, tmp_path, monkeypatch):
    seen = {}
    fit = steps.fit

    def watch(engine, job):
        rows = [part.domain.name for part, _, _ in job.source_and_target(Slice()).rows(0)]
        seen[job.name.split()[-1]] = set(rows)
        return fit(engine, job)

    monkeypatch.setattr(steps, "fit", watch)
    run_recipe(opened(place, tmp_path / "run"))
    assert seen == {"big": {"home"}, "scratch": {"small"}, "tuned": {"small"}}
    rows = json.loads((tmp_path / "run" / "table.json").read_text())["rows"]
    assert {(row["name"], row["domain"]) for row in rows if row["kind"] == "member"} == {
        (member, domain) for member in seen for domain in ("home", "small")
    }


def test_a_frozen_encoder_waits_and_then_learns(place, tmp_path, monkeypatch):
    """Until `freeze`, its weights are those it started from; what moves in it is BatchNorm's running statistics."""
    states = []
    step = loop.train_step

    def watch(engine, job, model, *rest):
        terms = step(engine, job, model, *rest)
        if "tuned" in job.name:
            states.append({name: value.detach().clone() for name, value in model.named_parameters()})
        return terms

    monkeypatch.setattr(loop, "train_step", watch)
    run_recipe(opened(place, tmp_path / "run"))
    before = weights(tmp_path / "run", "big")
    for number, state in enumerate(states):
        moved = {name for name, value in state.items() if not torch.equal(value, before[name])}
        assert any(not name.startswith("encoder.") for name in moved)
        assert any(name.startswith("encoder.") for name in moved) == (number >= 4)


def test_statistics_of_the_source_are_those_of_the_members_own(place, tmp_path):
    x = opened(place, tmp_path / "run", "normalise=source")
    home, small = x.domains["home"], x.domains["small"]
    big = next(member for member in x.members if member.name == "big")
    scale, shift = x.affine(small, big)
    expected = affine(small, "separated", [])
    wanted = small.cache.std / home.cache.std
    np.testing.assert_allclose(scale[0], wanted, rtol=1e-5)
    np.testing.assert_allclose(shift[0], (small.cache.mean - home.cache.mean) / home.cache.std, rtol=1e-4)
    assert not np.allclose(scale, expected[0])
    np.testing.assert_allclose(x.affine(home, big)[0], 1.0, rtol=1e-6)


def test_another_source_redoes_nothing(place, tmp_path):
    """A member's training depends on the sources that it reads, not on those beside it."""
    first = opened(place, tmp_path / "run")
    other = opened(place, tmp_path / "other", "domain.small.holdout.ranges=[[1,2]]")
    big = [next(m for m in x.members if m.name == "big") for x in (first, other)]
    scratch = [next(m for m in x.members if m.name == "scratch") for x in (first, other)]
    assert first.fit_key(big[0], 0) == other.fit_key(big[1], 0)
    assert first.fit_key(scratch[0], 0) != other.fit_key(scratch[1], 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["member.big.source=['hom']"], "source 'hom' is no source domain, did you mean 'home'"),
        (["member.tuned.train.freeze=6"], "freeze = 6 leaves none of 6 steps"),
        (["member.big.train.mixup.alpha=0"], "greater than 0"),
        (["member.big.model={name='patch_classifier'}", "member.big.task=classify", "train.mixup={}"], "soft labels"),
    ],
)
def test_settings_that_cannot_be(place, change, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe(write_recipe(place / "fine.toml", text=RECIPE), change)


def test_freezing_what_no_model_has():
    with pytest.raises(RecipeError, match="no parameter is named 'encoder"):
        encoder_parameters([("head.weight", torch.nn.Parameter(torch.zeros(1)))])
