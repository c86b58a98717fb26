"""Devices, processes and precision."""

import gc
import types
import weakref

import pytest
import torch
from torch import nn

from l4s import engine as module
from l4s.engine import Engine, probe_precision, start_engine
from l4s.errors import RunError


@pytest.fixture(scope="module")
def engine():
    return start_engine("cpu", "fp32", workers=3)


def test_one_process_on_the_cpu(engine):
    assert (engine.device.type, engine.rank, engine.world, engine.main) == ("cpu", 0, 1, True)
    assert (engine.precision, engine.workers) == ("fp32", 3)
    assert engine.collect([1, 2]) == [1, 2] and engine.agree("x") == "x" and engine.agree(None) is None
    engine.wait()


def test_a_model_is_placed_and_called_as_it_is(engine):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    placed = engine.place(model)
    assert placed[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert engine.distribute(placed) is placed
    before = placed[1].running_mean.clone()
    engine.share_buffers(placed)
    assert torch.equal(placed[1].running_mean, before)


def test_networks_of_finished_trainings_are_let_go(engine):
    gone = weakref.ref(engine.distribute(engine.place(nn.Linear(2, 2))))
    gc.collect()
    assert gone() is None


def test_one_process_has_nobody_to_be_silent_to(engine):
    weight = torch.ones(2, requires_grad=True)
    with engine.silent(nn.Identity(), quiet=True):
        (weight * torch.tensor([2.0, 3.0])).sum().backward()
    assert weight.grad.tolist() == [2.0, 3.0]


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_precision_is_what_matrix_products_are_computed_in(precision, dtype):
    engine = start_engine("cpu", precision)
    assert engine.precision == precision
    with engine.autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype
    assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


def test_the_probe_decides_between_two():
    assert probe_precision(torch.device("cpu")) in ("fp32", "bf16")
    assert start_engine("cpu", "auto").precision in ("fp32", "bf16")


@pytest.mark.parametrize(("seconds", "expected"), [(0.5, "bf16"), (1.0, "fp32"), (5.0, "fp32"), (0.8, "fp32")])
def test_the_probe_wants_a_clear_gain(monkeypatch, seconds, expected):
    monkeypatch.setattr(module, "_time", lambda layer, image, dtype: seconds if dtype is torch.bfloat16 else 1.0)
    assert probe_precision(torch.device("cpu")) == expected


def test_the_probe_leaves_random_numbers_alone():
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    probe_precision(torch.device("cpu"))
    state = torch.random.get_rng_state()
    assert torch.equal(before, state)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"device": "tpu"}, "--device tpu does not exist, did you mean 'cpu'"),
        ({"device": "cuda:1"}, "--device cuda:1 does not exist, did you mean 'cuda'"),
        ({"device": "cpu", "precision": "fp16"}, "--precision fp16 does not exist, did you mean 'bf16'"),
    ],
)
def test_flags_that_mean_nothing(flags, message):
    with pytest.raises(RunError, match=message):
        start_engine(**flags)


def test_a_gpu_that_is_not_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RunError, match="--device cuda: torch finds no GPU here"):
        start_engine("cuda", "fp32")
    assert start_engine("auto", "fp32").device.type == "cpu"


@pytest.mark.parametrize(("launched", "seen"), [("2", 1), ("4", 2)])
def test_processes_that_did_not_find_each_other(monkeypatch, launched, seen):
    """What accelerate does under torchrun where nothing tells it that the CPU is meant: as many worlds as processes."""
    monkeypatch.setenv("WORLD_SIZE", launched)
    monkeypatch.setattr(module, "Accelerator", lambda **options: alone(num_processes=seen))
    with pytest.raises(RunError, match=f"{launched} processes were launched but this one sees {seen}"):
        start_engine("cpu", "fp32")


def test_what_accelerate_is_told(monkeypatch):
    """Buffers are not broadcast at every step, waiting is allowed, and a user's own configuration is no part of a run."""
    seen = {}
    monkeypatch.setattr(module, "Accelerator", lambda **options: seen.update(options) or alone())
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    start_engine("cpu", "fp32")
    ddp, group = seen["kwargs_handlers"]
    assert seen["cpu"] is True and ddp.broadcast_buffers is False and group.timeout.days == 1
    assert (seen["mixed_precision"], seen["dynamo_backend"]) == ("no", "no")


@pytest.mark.parametrize("odd", [{"distributed_type": "FSDP"}, {"device": torch.device("meta")}])
def test_accelerate_configured_for_something_else(monkeypatch, odd):
    monkeypatch.setattr(module, "Accelerator", lambda **options: alone(**odd))
    with pytest.raises(RunError, match=r"plain processes on the CPU are wanted; see `accelerate config`"):
        start_engine("cpu", "fp32")


def alone(**odd):
    about = {"device": torch.device("cpu"), "num_processes": 1, "distributed_type": "NO"}
    return types.SimpleNamespace(**about | odd)


def test_deterministic_refuses_what_may_differ():
    before = torch.are_deterministic_algorithms_enabled()
    try:
        assert isinstance(start_engine("cpu", "fp32", deterministic=True), Engine)
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(before)
