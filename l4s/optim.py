"""Optimisers with parameter groups, and learning-rate schedules as pure functions of the step.

A schedule holds no state, so a run that continues needs nothing but the number of the step. The loop writes, before
every step,

    group["lr"] = group["initial_lr"] * factor(name, step, total, warmup, **options)
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from l4s.errors import RecipeError, RunError, chosen, refusals

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
    "sgd": torch.optim.SGD,
}

# The linear warm-up starts at this part of the schedule's own value (the winners' sister solution: 1500 steps from
# 1e-6).
WARMUP_START = 1e-6


def build_optimizer(
    name: str,
    params: Iterable[tuple[str, nn.Parameter]],
    *,
    lr: float,
    weight_decay: float = 0.01,
    encoder_lr_factor: float = 1.0,
    decay_all: bool = False,
    **options: Any,
) -> torch.optim.Optimizer:
    """Build an optimiser whose groups tell encoder from the rest, and decayed parameters from undecayed ones.

    Parameters with fewer than two dimensions (norm scales, biases) are not decayed, unless `decay_all`. Names that start
    with `encoder.` or `net.encoder.` learn at `lr * encoder_lr_factor`. Frozen parameters are left out. Every group
    carries `initial_lr`.

    Args:
        name: key of `OPTIMIZERS`.
        params: (name, parameter) pairs, as of `module.named_parameters()`.
        lr: peak learning rate, per step.
        weight_decay: as the torch optimiser means it (decoupled for adamw, an L2 gradient for adam and sgd).
        encoder_lr_factor: times lr for the encoder.
        decay_all: decay every parameter, as torch does with one group.
        options: any other argument of the torch optimiser, such as `betas` or `momentum`; lists become tuples.

    Raises:
        RecipeError: unknown optimiser or option, a value torch refuses, nothing to train, an encoder factor without
            an encoder, or `decay_all` without a decay.
    """
    builder = chosen("optimiser", OPTIMIZERS, name, options, given=("self", "params", "lr", "weight_decay"))
    if decay_all and not weight_decay:
        raise RecipeError("decay_all has no effect: weight_decay is 0; set one of them, or leave decay_all out")
    groups = _groups(params, lr, weight_decay, encoder_lr_factor, decay_all)
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
    try:
        return builder(groups, lr=lr, weight_decay=weight_decay, **given)
    except (TypeError, ValueError, IndexError) as error:
        settings = {"lr": lr, "weight_decay": weight_decay, "encoder_lr_factor": encoder_lr_factor} | given
        raise RecipeError(f"optimiser {name!r} refuses {settings}: {error}") from error


def constant(step: int, total: int, warmup: int = 0) -> float:
    """The peak rate throughout, after the warm-up."""
    _check_step(step, total)
    return _warm(step, warmup)


def poly(step: int, total: int, warmup: int = 0, *, power: float = 1.0) -> float:
    """`(1 - step / total) ** power`: 1 at step 0, 0 at `total`; the warm-up multiplies it and does not shift it.

    The winners' sister solution has power 1.0, LoveCS 0.9.

    Raises:
        RecipeError: power is not positive.
    """
    _check_step(step, total)
    if power <= 0:
        raise RecipeError(f"schedule 'poly': power = {power} must be positive; use 'constant' for a rate that stays")
    return float((1.0 - step / total) ** power * _warm(step, warmup))


def cosine(step: int, total: int, warmup: int = 0, *, floor: float = 0.0) -> float:
    """Half a cosine from 1 at step 0 to `floor` at `total`; the warm-up multiplies it and does not shift it.

    Raises:
        RecipeError: floor lies outside [0, 1).
    """
    _check_step(step, total)
    if not 0.0 <= floor < 1.0:
        raise RecipeError(f"schedule 'cosine': floor = {floor} is outside [0, 1); it is a part of the peak rate")
    return _anneal(1.0, floor, step / total) * _warm(step, warmup)


def one_cycle(
    step: int, total: int, warmup: int = 0, *, pct_start: float = 0.3, div: float = 25.0, final_div: float = 1e4
) -> float:
    """One cycle: the rate of `torch.optim.lr_scheduler.OneCycleLR` (two phases, cosine) divided by its maximum.

    It starts at `1 / div`, peaks after `pct_start` of the run and ends, at step `total - 1`, at `1 / (div *
    final_div)`. Momentum is not cycled.

    Raises:
        RecipeError: warmup is not 0 (this schedule has its own), pct_start lies outside [0, 1), or a divisor is below
            1.
    """
    _check_step(step, total)
    if warmup:
        raise RecipeError(f"schedule 'one_cycle' has its own warm-up (pct_start): warmup = {warmup} must be 0")
    if not 0.0 <= pct_start < 1.0:
        raise RecipeError(f"schedule 'one_cycle': pct_start = {pct_start} is outside [0, 1); 0.3 is usual")
    if div < 1.0 or final_div < 1.0:
        raise RecipeError(f"schedule 'one_cycle': div = {div} and final_div = {final_div} must be at least 1")
    start, end = 1.0 / div, 1.0 / (div * final_div)
    peak, last = pct_start * total - 1.0, total - 1.0
    if step <= peak and peak > 0:
        return _anneal(start, 1.0, step / peak)
    # Past the last step the curve would rise again.
    return _anneal(1.0, end, min(1.0, (step - peak) / (last - peak)))


SCHEDULES: dict[str, Callable[..., float]] = {
    "constant": constant,
    "poly": poly,
    "cosine": cosine,
    "one_cycle": one_cycle,
}


def factor(name: str, step: int, total: int, warmup: int = 0, **options: Any) -> float:
    """What the peak learning rate is multiplied by at `step` (0 .. total) of `total` steps, in [0, 1].

    Over the first `warmup` steps the schedule's own value is multiplied by a line from 1e-6 to 1. Calling this with
    step 0 when a recipe is loaded checks the whole setting.

    Raises:
        RecipeError: unknown schedule or option, or an option out of range.
        RunError: the step lies outside the run.
    """
    schedule = chosen("schedule", SCHEDULES, name, options, given=("step", "total", "warmup"))
    with refusals(f"schedule {name!r}", options):
        return schedule(step, total, warmup, **options)


def encoder_parameters(params: Iterable[tuple[str, nn.Parameter]]) -> list[nn.Parameter]:
    """Those that belong to an encoder: named `encoder.*`, also within what wraps a model.

    Raises:
        RecipeError: there are none.
    """
    found = [param for name, param in params if _of_encoder(name)]
    if not found:
        raise RecipeError("train.freeze has no effect: no parameter is named 'encoder.*'; set it to 0")
    return found


def _of_encoder(name: str) -> bool:
    return name.removeprefix("module.").removeprefix("net.").startswith("encoder.")


def _groups(
    params: Iterable[tuple[str, nn.Parameter]],
    lr: float,
    weight_decay: float,
    encoder_lr_factor: float,
    decay_all: bool,
) -> list[dict[str, Any]]:
    """Up to four groups, in a fixed order, without the empty ones."""
    split: dict[tuple[bool, bool], list[nn.Parameter]] = {
        (encoder, decayed): [] for encoder in (True, False) for decayed in (True, False)
    }
    for name, param in params:
        if param.requires_grad:
            split[_of_encoder(name), decay_all or param.ndim > 1].append(param)
    if not any(split.values()):
        raise RecipeError("nothing to train: the model has no parameters, or all of them are frozen")
    if encoder_lr_factor != 1.0 and not (split[True, True] or split[True, False]):
        why = "no trainable parameter is named 'encoder.*'"
        raise RecipeError(f"encoder_lr_factor = {encoder_lr_factor} has no effect: {why}; set it to 1.0")
    groups = []
    for (encoder, decayed), members in split.items():
        rate = lr * encoder_lr_factor if encoder else lr
        decay = weight_decay if decayed else 0.0
        groups.append({"params": members, "lr": rate, "initial_lr": rate, "weight_decay": decay})
    return [group for group in groups if group["params"]]


def _warm(step: int, warmup: int) -> float:
    if step >= warmup:
        return 1.0
    return WARMUP_START + (1.0 - WARMUP_START) * step / warmup


def _anneal(start: float, end: float, part: float) -> float:
    """Half a cosine from start (part 0) to end (part 1)."""
    return end + (start - end) / 2.0 * (1.0 + math.cos(math.pi * part))


def _check_step(step: int, total: int) -> None:
    if not 0 <= step <= total or total < 1:
        raise RunError(f"step {step} lies outside a run of {total} steps: expected 0 <= step <= total and total >= 1")
