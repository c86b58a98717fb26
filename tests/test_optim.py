"""Parameter groups, and schedules against torch's own schedulers step by step."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from l4s.errors import RecipeError, RunError
from l4s.optim import OPTIMIZERS, SCHEDULES, build_optimizer, factor
from l4s.recipe import Optimiser, Train


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
        self.head = nn.Conv2d(2, 1, 1)
        self.encoder_like = nn.Linear(1, 1)  # the name only begins alike


class Wrapped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = Net()


def by_name(optimiser: torch.optim.Optimizer, module: nn.Module) -> dict[str, dict]:
    groups = {id(p): group for group in optimiser.param_groups for p in group["params"]}
    return {name: groups[id(p)] for name, p in module.named_parameters() if id(p) in groups}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize(("module", "prefix"), [(Net, ""), (Wrapped, "net.")])
def test_groups(name: str, module: type[nn.Module], prefix: str) -> None:
    model = module()
    optimiser = build_optimizer(name, model.named_parameters(), lr=0.2, weight_decay=0.3, encoder_lr_factor=0.1)
    found = {key.removeprefix(prefix): group for key, group in by_name(optimiser, model).items()}
    expected = {
        "encoder.0.weight": (0.02, 0.3),
        "encoder.0.bias": (0.02, 0.0),
        "encoder.1.weight": (0.02, 0.0),
        "encoder.1.bias": (0.02, 0.0),
        "head.weight": (0.2, 0.3),
        "head.bias": (0.2, 0.0),
        "encoder_like.weight": (0.2, 0.3),
        "encoder_like.bias": (0.2, 0.0),
    }
    rates = {key: (pytest.approx(lr), decay) for key, (lr, decay) in expected.items()}
    assert {key: (group["lr"], group["weight_decay"]) for key, group in found.items()} == rates
    assert all(group["initial_lr"] == group["lr"] for group in optimiser.param_groups)
    assert sum(len(group["params"]) for group in optimiser.param_groups) == len(expected)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_decay_all_is_torch_with_one_group(name: str) -> None:
    ours, theirs = Net(), Net()
    theirs.load_state_dict(ours.state_dict())
    optimisers = [
        build_optimizer(name, ours.named_parameters(), lr=0.1, weight_decay=0.5, decay_all=True),
        OPTIMIZERS[name](theirs.parameters(), lr=0.1, weight_decay=0.5),
    ]
    for model, optimiser in zip((ours, theirs), optimisers, strict=True):
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, 0.25)
        optimiser.step()
    for left, right in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(left, right)


def test_decay_all_without_a_decay_is_refused() -> None:
    with pytest.raises(RecipeError, match="decay_all has no effect: weight_decay is 0"):
        build_optimizer("adam", Net().named_parameters(), lr=0.1, weight_decay=0.0, decay_all=True)


def test_decay_all_left_out_is_no_part_of_a_fingerprint() -> None:
    assert Train(optimiser=Optimiser(name="adam")).model_dump(exclude_defaults=True) == {"optimiser": {"name": "adam"}}


def test_without_gradient_only_decayed_parameters_shrink() -> None:
    model = Net()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimiser = build_optimizer("adamw", model.named_parameters(), lr=0.1, weight_decay=0.5)
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimiser.step()
    for name, p in model.named_parameters():
        assert torch.allclose(p, before[name] * (1 - 0.1 * 0.5 if p.ndim > 1 else 1.0)), name


def test_frozen_parameters_are_left_out() -> None:
    model = Net()
    model.encoder.requires_grad_(False)
    optimiser = build_optimizer("sgd", model.named_parameters(), lr=0.1)
    assert set(by_name(optimiser, model)) == {"head.weight", "head.bias", "encoder_like.weight", "encoder_like.bias"}
    with pytest.raises(RecipeError, match="encoder_lr_factor = 0.1 has no effect"):
        build_optimizer("sgd", model.named_parameters(), lr=0.1, encoder_lr_factor=0.1)
    with pytest.raises(RecipeError, match="nothing to train"):
        build_optimizer("sgd", model.requires_grad_(False).named_parameters(), lr=0.1)


@pytest.mark.parametrize(
    ("name", "options", "kind"),
    [
        ("adamw", {"betas": [0.8, 0.99], "eps": 1e-6}, torch.optim.AdamW),
        ("adam", {"amsgrad": True}, torch.optim.Adam),
        ("sgd", {"momentum": 0.9, "nesterov": True}, torch.optim.SGD),
    ],
)
def test_options_reach_torch(name: str, options: dict, kind: type) -> None:
    optimiser = build_optimizer(name, Net().named_parameters(), lr=0.1, **options)
    assert type(optimiser) is kind
    for key, value in options.items():
        assert optimiser.defaults[key] == (tuple(value) if isinstance(value, list) else value)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("adamww", {}, "optimiser 'adamww' does not exist, did you mean 'adamw'.*adam, adamw, sgd"),
        ("adamw", {"beta": (0.9, 0.9)}, "no option 'beta', did you mean 'betas'.*amsgrad, betas"),
        ("adamw", {"momentum": 0.9}, "no option 'momentum'"),
        ("sgd", {"nesterov": True}, "sgd' refuses .*'nesterov': True.*momentum"),
        ("adamw", {"betas": (2.0, 0.9)}, "refuses"),
    ],
)
def test_wrong_options_are_refused(name: str, options: dict, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        build_optimizer(name, Net().named_parameters(), lr=0.1, **options)


# ---- schedules ----


def torch_factors(total: int, build) -> list[float]:
    """Learning rates of a torch scheduler at steps 0 .. total - 1, for a peak of 1."""
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = build(optimiser)
    rates = []
    for _ in range(total):
        rates.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize(
    ("total", "options"),
    [
        (100, {}),
        (37, {}),
        (7, {}),
        (2, {}),
        (3, {"pct_start": 0.0}),
        (50, {"pct_start": 0.9, "div": 10.0, "final_div": 100.0}),
    ],
)
def test_one_cycle_equals_torch_at_every_step(total: int, options: dict[str, float]) -> None:
    spelled = {"pct_start": "pct_start", "div": "div_factor", "final_div": "final_div_factor"}

    def build(optimiser: torch.optim.Optimizer) -> torch.optim.lr_scheduler.OneCycleLR:
        given = {spelled[key]: value for key, value in options.items()}
        return torch.optim.lr_scheduler.OneCycleLR(
            optimiser, max_lr=1.0, total_steps=total + 1, cycle_momentum=False, **given
        )

    # One step more than is read: torch refuses to be stepped past its last one.
    expected = torch_factors(total, build)
    ours = [factor("one_cycle", step, total + 1, **options) for step in range(total)]
    assert ours == pytest.approx(expected, rel=1e-9, abs=1e-15)


def test_one_cycle_ends() -> None:
    assert factor("one_cycle", 0, 100) == pytest.approx(1 / 25)
    assert factor("one_cycle", 29, 100) == pytest.approx(1.0)
    assert factor("one_cycle", 99, 100) == pytest.approx(1 / 25e4)
    assert factor("one_cycle", 100, 100) == pytest.approx(1 / 25e4)
    assert factor("one_cycle", 0, 10, pct_start=0.1) == 1.0  # a rise of no steps


def test_cosine_and_poly_equal_torch_at_every_step() -> None:
    lr_scheduler = torch.optim.lr_scheduler
    cosine = torch_factors(40, lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=40, eta_min=0.1))
    assert [factor("cosine", step, 40, floor=0.1) for step in range(40)] == pytest.approx(cosine, rel=1e-9)
    poly = torch_factors(40, lambda o: lr_scheduler.PolynomialLR(o, total_iters=40, power=0.9))
    assert [factor("poly", step, 40, power=0.9) for step in range(40)] == pytest.approx(poly, rel=1e-9)


def test_values_worked_out_by_hand() -> None:
    assert factor("poly", 25, 100) == 0.75
    assert factor("poly", 100, 100) == 0.0
    assert factor("poly", 75, 100, power=0.5) == 0.5
    assert factor("cosine", 50, 100, floor=0.2) == pytest.approx(0.6)
    assert factor("cosine", 100, 100, floor=0.2) == pytest.approx(0.2)
    assert factor("constant", 99, 100) == 1.0


@pytest.mark.parametrize("name", ["constant", "poly", "cosine"])
def test_warm_up_is_a_line_times_the_schedule(name: str) -> None:
    for step in range(40):
        line = 1.0 if step >= 10 else 1e-6 + (1 - 1e-6) * step / 10
        assert factor(name, step, 40, 10) == pytest.approx(line * factor(name, step, 40), rel=1e-12)
    assert 0 < factor(name, 0, 40, 10) <= 1e-6


@pytest.mark.parametrize("name", SCHEDULES)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_factors_lie_between_0_and_1(name: str, data: st.DataObject) -> None:
    total = data.draw(st.integers(1, 5000))
    step = data.draw(st.integers(0, total))
    warmup = 0 if name == "one_cycle" else data.draw(st.integers(0, 6000))
    value = factor(name, step, total, warmup)
    assert isinstance(value, float)
    assert 0.0 <= value <= 1.0 and math.isfinite(value)


@pytest.mark.parametrize(
    ("name", "warmup", "options", "message"),
    [
        ("polly", 0, {}, "schedule 'polly' does not exist, did you mean 'poly'.*constant, cosine, one_cycle, poly"),
        ("poly", 0, {"pover": 1.0}, "no option 'pover', did you mean 'power'"),
        ("poly", 0, {"warmup_start": 1.0}, "no option 'warmup_start'.*there are: power"),
        ("constant", 0, {"power": 1.0}, "no option 'power' .there are: none"),
        ("poly", 0, {"power": 0.0}, "power = 0.0 must be positive"),
        ("cosine", 0, {"floor": 1.0}, "floor = 1.0"),
        ("one_cycle", 5, {}, "own warm-up.*warmup = 5 must be 0"),
        ("one_cycle", 0, {"pct_start": 1.0}, "pct_start = 1.0"),
        ("one_cycle", 0, {"div": 0.5}, "div = 0.5"),
    ],
)
def test_a_wrong_schedule_fails_at_step_0(name: str, warmup: int, options: dict, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        factor(name, 0, 10, warmup, **options)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize(("step", "total"), [(-1, 10), (11, 10), (0, 0)])
def test_steps_outside_the_run_are_refused(name: str, step: int, total: int) -> None:
    with pytest.raises(RunError, match=f"step {step} lies outside a run of {total} steps"):
        factor(name, step, total)
