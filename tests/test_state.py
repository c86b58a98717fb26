"""What training needs to go on: everything comes back, and the next steps are the same to the last bit."""

import os

import pytest
import torch
from safetensors.torch import load_file
from timm.utils import ModelEmaV3
from torch import nn

from l4s.optim import build_optimizer
from l4s.state import Progress, load_state, save_state, save_weights

OPTIONS = {"adamw": {}, "adam": {"amsgrad": True}, "sgd": {"momentum": 0.9}}


def network(seed=0, width=24):
    """Enough channels that vectorised and strided arithmetic could differ."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, 2 * width, 3)
        return nn.Sequential(*layers).to(memory_format=torch.channels_last)


def parts(name="adamw", ema=True, seed=0):
    model = network(seed)
    optimiser = build_optimizer(name, model.named_parameters(), lr=1e-2, **OPTIONS[name])
    return model, optimiser, ModelEmaV3(model, decay=0.7) if ema else None


def train(model, optimiser, ema, steps):
    for step in steps:
        images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(step))
        model(images.contiguous(memory_format=torch.channels_last)).square().mean().backward()
        optimiser.step()
        optimiser.zero_grad()
        if ema is not None:
            ema.update(model, step=step + 1)


def tensors(model, optimiser, ema):
    found = dict(model.state_dict()) | {f"ema/{key}": value for key, value in (ema.state_dict() if ema else {}).items()}
    for index, state in optimiser.state_dict()["state"].items():
        found |= {f"{index}/{key}": torch.as_tensor(value) for key, value in state.items() if value is not None}
    return {key: value.clone() for key, value in found.items()}


def assert_equal(ours, theirs):
    assert ours.keys() == theirs.keys()
    for key in ours:
        assert torch.equal(ours[key], theirs[key]), key


@pytest.mark.parametrize("ema", [True, False])
@pytest.mark.parametrize("name", OPTIONS)
def test_training_goes_on_as_if_it_had_not_stopped(tmp_path, name, ema):
    straight = parts(name, ema)
    train(*straight, range(7))
    stopped = parts(name, ema)
    train(*stopped, range(3))
    save_state(tmp_path / "last.safetensors", Progress(3, [(2, {"f1": 0.25})]), *stopped)
    resumed = parts(name, ema, seed=5)  # other weights, so that all of them must come from the file
    progress = load_state(tmp_path / "last.safetensors", *resumed)
    assert (progress.step, progress.evaluations) == (3, [(2, {"f1": 0.25})])
    assert_equal(tensors(*resumed), tensors(*stopped))
    train(*resumed, range(3, 7))
    assert_equal(tensors(*resumed), tensors(*straight))


def test_learning_rates_are_those_of_the_recipe(tmp_path):
    """The loop writes them at every step: a state must not bring back old ones."""
    model, optimiser, _ = parts()
    train(model, optimiser, None, range(1))
    optimiser.param_groups[0]["lr"] = 123.0
    save_state(tmp_path / "last.safetensors", Progress(1), model, optimiser, None)
    model, optimiser, _ = parts()
    load_state(tmp_path / "last.safetensors", model, optimiser, None)
    assert [group["lr"] for group in optimiser.param_groups] == [1e-2, 1e-2]
    assert [group["initial_lr"] for group in optimiser.param_groups] == [1e-2, 1e-2]


def test_without_a_file_nothing_changes(tmp_path):
    model, optimiser, ema = parts()
    before = tensors(model, optimiser, ema)
    assert load_state(tmp_path / "none.safetensors", model, optimiser, ema) == Progress(0, [])
    assert_equal(tensors(model, optimiser, ema), before)


def test_equal_states_are_equal_bytes(tmp_path):
    for name in ("a", "b"):
        model, optimiser, ema = parts()
        train(model, optimiser, ema, range(2))
        save_state(tmp_path / name, Progress(2), model, optimiser, ema)
        save_weights(tmp_path / f"{name}-weights", model)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a-weights").read_bytes() == (tmp_path / "b-weights").read_bytes()


def test_weights_are_parameters_and_buffers(tmp_path):
    model = network()
    train(model, torch.optim.SGD(model.parameters(), lr=0.1), None, range(2))
    save_weights(tmp_path / "weights.safetensors", model)
    assert_equal(load_file(tmp_path / "weights.safetensors"), dict(model.state_dict()))
    assert load_file(tmp_path / "weights.safetensors")["1.num_batches_tracked"] == 2


def test_a_state_that_cannot_be_written_leaves_the_older_one(tmp_path, monkeypatch):
    model, optimiser, ema = parts()
    save_state(tmp_path / "last.safetensors", Progress(1), model, optimiser, ema)
    before = (tmp_path / "last.safetensors").read_bytes()

    def full(_):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        save_state(tmp_path / "last.safetensors", Progress(2), model, optimiser, ema)
    assert (tmp_path / "last.safetensors").read_bytes() == before
