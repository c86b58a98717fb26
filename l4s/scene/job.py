"""How a run is used on a whole scene: what was asked, and what the run says where nothing was."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast, get_args

from l4s import log
from l4s.data.probs import Kind
from l4s.errors import RunError
from l4s.files import read_json
from l4s.load import Member
from l4s.member import adapts
from l4s.models import ANSWERS
from l4s.models.sizes import sized
from l4s.plan import Plan, find_group, known_threshold, one_cell, read_plan
from l4s.recipe import DomainConfig, Normalise, Threshold, Tta, fingerprint
from l4s.scene.raster import Scene, open_scene
from l4s.session import Machine
from l4s.tasks import build_task
from l4s.thresholds import EXPECTED_F1, PROBABLE
from l4s.use import by_subdomains, finished_round, known, learnt_mode, precision, sources_of, stored_moments, trainings

FORMAT = 1  # raised when the same options come to mean something else


@dataclass(frozen=True)
class SceneUse:
    """How a run is used on a scene; None is what the run itself says.

    `round`, `group`, `normalise` and `tta` as in `l4s.apply.Use`; `separated` takes the scene's own statistics. `window`
    and `stride` are in pixels: by default the side of the patches that the run was trained on, and half of it, or all of
    it where members answer once a window: their answer is that of the `stride` x `stride` pixels at its corner. `batch`
    windows are predicted at a time. `threshold` cuts the mask: a number, "expected_f1" or "heldout". `shard` (i, n), i from 1, is the
    part of the rows of windows that this process takes. `bands` names the file's bands in file order, where it does not.
    """

    round: int | None = None
    group: str | None = None
    normalise: str | None = None
    tta: str | None = None
    window: int | None = None
    stride: int | None = None
    batch: int | None = None
    threshold: Threshold | None = None
    shard: tuple[int, int] = (1, 1)
    bands: tuple[str, ...] = ()


@dataclass(frozen=True)
class Job:
    """A use of a run on a scene, with everything decided."""

    plan: Plan
    number: int
    members: Sequence[Member]
    modes: Mapping[str, Normalise]  # by member
    scene: Scene
    tta: Tta
    window: int
    stride: int
    batch: int
    kind: Kind
    threshold: Threshold | None
    precision: str

    @property
    def key(self) -> str:
        """Fingerprint of the probabilities; neither the batch nor who takes which rows is part of it."""
        sources = sources_of(self.plan, self.members) if "source" in self.modes.values() else ()
        return fingerprint(
            {
                "step": "scene",
                "format": FORMAT,
                "trained": trainings(self.plan, self.number, self.members),
                "weights": self.plan.weights(self.members),
                "scene": self.scene.identity,
                "normalise": dict(self.modes),
                "sources": {name: stored_moments(self.plan, name).tolist() for name in sources},
                "tta": self.tta,
                "window": [self.window, self.stride],
                "precision": self.precision,
            }
        )


def decide(run: Path, scene: Path, machine: Machine, use: SceneUse) -> Job:
    """Look at the run and at the scene's header, and settle every option.

    Raises:
        DataError, RunError, RecipeError: as `l4s.scene.predict.predict_scene`.
    """
    plan = read_plan(one_cell(run))
    number = finished_round(plan, use.round, use.group)
    group = find_group(plan, number, use.group)
    members = plan.groups(number)[group]
    _refuse_made(plan)
    for member in members:
        _refuse_adabn(member)
        _refuse_features(member)
    _refuse_resized(plan, members)
    window = _side(plan, members) if use.window is None else use.window
    stride = _stride(members, window) if use.stride is None else use.stride
    kind, submit = _kind(members), plan.recipe.submit
    threshold = use.threshold
    if threshold is None and kind == "probability":
        threshold = submit.threshold if submit else PROBABLE
    if threshold == EXPECTED_F1 and kind != "probability":
        raise RunError(f"the values are only ordered, and {EXPECTED_F1} needs probabilities: give --threshold a number")
    tta = cast(Tta, known("tta", use.tta or plan.recipe.ensemble_tta, get_args(Tta)))
    threshold = known_threshold(plan, threshold, number, group, tta)
    if threshold is None:
        log.info("values that are only ordered have no threshold of their own, so no mask is made: see --threshold")
    _check(window, stride, threshold)
    for member in members:
        _refuse_unsized(member, window)
    modes = {member.name: _mode(plan, member, use.normalise) for member in members}
    if (target := by_subdomains(plan)) and "separated" in modes.values():
        log.warn(f"the run standardises {target} by sub-domains; a scene is standardised as one domain")
    return Job(
        plan,
        number,
        members,
        modes,
        open_scene(scene, plan.recipe.bands.names, use.bands),
        tta,
        window,
        stride,
        plan.recipe.predict.batch if use.batch is None else use.batch,
        kind,
        threshold,
        precision(plan, machine),
    )


def read_shard(text: str) -> tuple[int, int]:
    """`2/3` as (2, 3): the second of three.

    Raises:
        RunError: it is no such thing.
    """
    number, slash, count = text.partition("/")
    if not (slash and number.isdigit() and count.isdigit() and 1 <= int(number) <= int(count)):
        raise RunError(f"shard {text!r} is not i/n with i from 1 to n, such as 2/3")
    return int(number), int(count)


def _side(plan: Plan, members: Sequence[Member]) -> int:
    """The side of the patches that the members were trained on."""
    name = sources_of(plan, members)[0]
    size = read_json(plan.run.stats(name)).get("size")
    if size is None:
        raise RunError(f"an older l4s made {plan.run.root}, and did not note how large its patches are: give --window")
    if size[0] != size[1]:
        raise RunError(f"patches of {name} are {size[0]} x {size[1]} pixels, and windows are square: choose --window")
    return int(size[0])


def _stride(members: Sequence[Member], window: int) -> int:
    by_window = any(ANSWERS.get(member.config.model.name) == "classify" for member in members)
    return window if by_window else max(1, window // 2)


def _check(window: int, stride: int, threshold: Threshold | None) -> None:
    if window < 1 or not 1 <= stride <= window:
        raise RunError(
            f"windows of {window} pixels every {stride} leave gaps: the stride is at least 1, at most a window"
        )
    if isinstance(threshold, float) and not 0 < threshold <= 1:
        raise RunError(f"threshold is {threshold}: take a number above 0, at most 1")


def _mode(plan: Plan, member: Member, asked: str | None) -> Normalise:
    mode = learnt_mode(plan, member, asked)
    if mode == "patch":
        who = "--normalise patch" if asked else f"member {member.name} was trained with normalise = 'patch', which"
        raise RunError(
            f"{who} would give each window statistics of its own, and neighbours that overlap would not agree: choose "
            "--normalise separated (the scene's own) or another"
        )
    return mode


def _refuse_unsized(member: Member, window: int) -> None:
    """As `l4s.session.check_sizes` does before training."""
    model, factor = member.config.model, member.config.train.scale.factor
    encoder = str(model.options.get("encoder"))
    if isinstance(factor, tuple) or sized(encoder, round(window * factor)) == sized(encoder, model.size):
        return
    raise RunError(
        f"windows of {window} pixels reach member {member.name} with {round(window * factor)}, but it is built for "
        f"{model.size}, and what {encoder} computes depends on it: say --window {round(model.size / factor)}"
    )


def _refuse_adabn(member: Member) -> None:
    if adapts(member, DomainConfig(role="eval")):
        raise RunError(
            f"member {member.name} adapts its BatchNorm to the images it predicts (adabn), which is not done on scenes: "
            f"use a run made with --set member.{member.base}.adabn=false, which takes over the same training"
        )


def _refuse_features(member: Member) -> None:
    if member.features is not None:
        raise RunError(
            f"member {member.name} reads the embeddings of another (features), which are not computed on scenes: cut the "
            "scene into patches (`l4s data chip`), and predict these with `l4s predict --run RUN --images DIR`"
        )


def _refuse_made(plan: Plan) -> None:
    if made := list(plan.recipe.bands.make):
        raise RunError(
            f"the run makes bands of others ({', '.join(made)}), some from whole patches, which is not done on scenes: cut "
            "the scene into patches (`l4s data chip`), and predict these with `l4s predict --run RUN --images DIR`"
        )


def _refuse_resized(plan: Plan, members: Sequence[Member]) -> None:
    """Pictures of any ground size became one size: what a metre is, the members have not learnt."""
    for name in sources_of(plan, members):
        fit = plan.recipe.domain[name].fit
        if fit and fit.by == "resize":
            raise RunError(
                f"the run was trained on pictures of {name} resized to {fit.side} pixels, whatever their ground size; a scene "
                "is not resized: cut it into patches (`l4s data chip`) as large as those pictures, and predict these with "
                "`l4s predict --run RUN --images DIR`"
            )


def _kind(members: Sequence[Member]) -> Kind:
    """What the members say: "probability", or "score" where values only rank pixels."""
    kinds = {build_task(member.config).kind for member in members}
    if len(kinds) > 1:
        raise RunError(
            f"members {', '.join(m.name for m in members)} say {' and '.join(sorted(kinds))}: choose a --group"
        )
    return kinds.pop()
