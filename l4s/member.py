"""One member's network: built, its BatchNorm kept by domain where the recipe says so, filled with weights, adapted."""

import copy
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from l4s import log
from l4s.data.bands import Bands
from l4s.engine import Engine
from l4s.errors import RecipeError
from l4s.files import read_json
from l4s.load import Member
from l4s.models import build_model
from l4s.models.norm import adapt_bn, convert_bn, domain_rows, norm_layers, set_domains
from l4s.predict import View, share
from l4s.recipe import DomainConfig, Recipe, Tta
from l4s.rundir import CONFIG
from l4s.state import read_weights
from l4s.tasks import Task
from l4s.tta import average

TRAINED = "trained"  # the one set of running statistics of a network that does not keep them by domain


def trained_on(recipe: Recipe, member: Member, number: int) -> list[str]:
    """The domains that a member trains on in a round: in round 0 its sources alone, so that a round 0 serves any target.

    The domain of a row of a batch is a position in this list.
    """
    return [*recipe.sources(member.config), *(recipe.domains("target") if number else ())]


def norm_domains(recipe: Recipe, member: Member, number: int) -> list[str]:
    """The domains whose running statistics a member's network holds once it has trained in a round.

    Plain BatchNorm has one set, called `TRAINED`.
    """
    return [TRAINED] if member.config.norm == "batch" else trained_on(recipe, member, number)


def build_member(recipe: Recipe, member: Member, domains: Sequence[str], pretrained: bool) -> nn.Module:
    """A member's network with initial weights.

    Args:
        domains: what its BatchNorm layers keep statistics of, see `norm_domains`.
        pretrained: load the weights that the recipe names; they are idle where others follow.

    Raises:
        RecipeError: the member asks for something about BatchNorm of a network that has none.
    """
    model = member.config.model
    options = model.options if pretrained or "weights" not in model.options else {**model.options, "weights": "none"}
    built = build_model(model.name, recipe.bands, size=model.size, seed=member.config.seed, options=options)
    adapted = any(adapts(member, domain) for domain in recipe.domain.values())
    if member.config.norm == "domain" or member.config.train.precise_bn or adapted:
        _need_batchnorm(built, member)
    if list(domains) != [TRAINED]:
        set_domains(_by_domain(built), domains)
    return built


def initial_member(recipe: Recipe, member: Member, number: int, start: Sequence[Path]) -> nn.Module:
    """The network that training in a round starts from: its builder's own, or filled from the one file in `start`.

    Raises:
        RecipeError: the file keeps statistics by domain and the member does not.
        DataError: the file does not fit.
    """
    domains = norm_domains(recipe, member, number)
    if not start:
        return build_member(recipe, member, domains, pretrained=True)
    (file,) = start
    _check_bands(file, recipe.bands)
    stored = stored_domains(file)
    if member.config.norm == "batch" and stored != [TRAINED]:
        raise RecipeError(
            f"{file} keeps BatchNorm's statistics by domain ({', '.join(stored)}): set member.{member.base}.norm = "
            "'domain' to start from it"
        )
    built = build_member(recipe, member, stored, pretrained=False)
    read_weights(file, built)
    if member.config.norm == "domain":
        set_domains(_by_domain(built), domains)
    return built


def _check_bands(file: Path, bands: Bands) -> None:
    """Weights know channels by their places alone: what a run trained says beside them which bands those were.

    Raises:
        RecipeError: the same bands stand in another order, or are made in another way.
    """
    config = file.parent / CONFIG
    stored = read_json(config).get("bands") if config.is_file() else None
    if not isinstance(stored, dict) or "file" not in stored:  # the configuration of another program
        return
    was = Bands.model_validate_json(json.dumps(stored))
    same_groups = not was.groups or not bands.groups or was.groups == bands.groups
    if _channels(was) == _channels(bands) and same_groups:
        return
    told = f"{file} was trained on the bands {', '.join(was.names)}, and channels are taken by their place"
    if sorted(was.names) == sorted(bands.names):
        raise RecipeError(f"{told}: take the [bands] of {config}, with use, make and groups in its order")
    log.warn(f"{told}: are they those of this recipe, {', '.join(bands.names)}?")


def _channels(bands: Bands) -> object:
    """What a network's channels are: their names, and how they are made."""
    return bands.names, [bands.make.get(name) for name in bands.names]


def trained_member(
    recipe: Recipe, member: Member, number: int, files: Sequence[Path], engine: Engine
) -> list[nn.Module]:
    """What a member learnt in a round: one network for each of its files of weights, ready to predict."""
    built = build_member(recipe, member, norm_domains(recipe, member, number), pretrained=False)
    models = []
    for path in files:
        model = copy.deepcopy(built) if len(files) > 1 else built
        read_weights(path, model)
        models.append(engine.place(model).eval())
    return models


def norm_row(recipe: Recipe, member: Member, number: int, domain: str) -> int:
    """Which of the running statistics a domain is predicted with.

    Its own where it took part in training; else those of the first target, and in round 0, which trains on no target,
    of the first source.
    """
    domains = norm_domains(recipe, member, number)
    if domain in domains:
        return domains.index(domain)
    return next((domains.index(name) for name in recipe.domains("target") if name in domains), 0)


def adapts(member: Member, domain: DomainConfig) -> bool:
    """Is a domain predicted with BatchNorm statistics of its own images? A source's come from training."""
    asked = member.config.adabn if domain.adabn is None else domain.adabn
    return asked and domain.role != "source"


def adapt_member(
    engine: Engine, task: Task, models: Sequence[nn.Module], member: Member, view: View, batch: int
) -> list[nn.Module]:
    """AdaBN: copies of a member's networks whose running statistics at `view.norm` are those of the view's images.

    A member trained on turned patches sees all eight views here: slopes and light have a direction, and statistics of
    one orientation would answer for the others.
    """
    tta: Tta = "d4" if member.config.train.augment.d4 else "none"

    def forward(model: nn.Module, images: Tensor) -> Tensor:
        return average(partial(task.probs, model), images, tta)

    adapted = [_by_domain(copy.deepcopy(model)) for model in models]
    for model in adapted:
        with domain_rows(torch.tensor([view.norm])), engine.autocast():
            images = (image for _, image in share(engine, view, batch))
            adapt_bn(model, images, view.norm, forward=forward, reduce_sum=engine.add_up)
    return adapted


def stored_domains(path: Path) -> list[str]:
    """The domains whose statistics a file of weights holds: what its step wrote beside it; other files hold one set."""
    about = path.with_name(CONFIG)
    return list(read_json(about).get("norm", [TRAINED])) if about.is_file() else [TRAINED]


def _by_domain(model: nn.Module) -> nn.Module:
    """The network with layers that keep statistics by domain: those it has, or one set of those it was trained with."""
    return model if norm_layers(model) else convert_bn(model, [TRAINED])


def _need_batchnorm(model: nn.Module, member: Member) -> None:
    if not any(isinstance(module, nn.BatchNorm2d) for module in model.modules()):
        raise RecipeError(
            f"member.{member.base}: norm = 'domain', adabn and train.precise_bn are about BatchNorm, of which "
            f"{member.config.model.name} has none here: leave them out"
        )
