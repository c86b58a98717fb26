"""Members looked at more closely: what one attends to, and several side by side (Lissak & Corpetti 2024, Figures 2 and 3)."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from l4s.data.domain import Domain
from l4s.data.fitting import restore
from l4s.data.probs import ProbFile, open_probs
from l4s.errors import RunError, did_you_mean
from l4s.experiment import Experiment, weights
from l4s.inputs import view_of
from l4s.load import Member
from l4s.member import adapt_member, adapts, trained_member
from l4s.models.norm import domain_rows
from l4s.plan import one_cell
from l4s.plots import FEATURE, displayed, draw_tiles, judged, own_size, truth_picture
from l4s.promote import demote, promoted
from l4s.report import reopen, shown_patches
from l4s.rundir import command
from l4s.score import threshold_of
from l4s.tasks import build_task

if TYPE_CHECKING:
    from torch import nn

Columns = dict[str, list[np.ndarray]]
HEAT = "inferno"
OVERLAY = 0.6  # how much of an overlay is the map; the rest is the image


def draw_attention(root: Path, data: Path, name: str, cache: Path | None = None) -> list[Path]:
    """Image, truth, prediction, attention over the image and one feature, of patches of each domain (Figure 2).

    The attention shown is the mean of the gates' maps, the feature the one whose values differ most over the patches, both
    of the network as it predicts; of the best, where a member keeps several weights.

    Returns:
        The files, `pictures/attention-<member>-<domain>.png` in the run.

    Raises:
        RunError: there is no run, no such member, it is not trained, or its network has no attention.
    """
    x = reopen(one_cell(root), data, cache)
    member = _member(x, name)
    number = x.plan.last_round()
    (first, *_) = weights(x.run.member(number, member.name))
    models = trained_member(x.recipe, member, number, [first], x.engine)

    def extra(domain: Domain, rows: list[int]) -> Columns:
        return _attention(x, models, member, domain, rows)

    return [_draw(x, domain, [member], f"attention-{name}-{domain.name}", extra) for domain in x.predicted(member)]


def draw_comparison(root: Path, data: Path, names: Sequence[str], cache: Path | None = None) -> list[Path]:
    """Image, truth, and the masks of several members side by side, of patches of each domain (Figure 3).

    Returns:
        The files, `pictures/members-<member>-<member>-<domain>.png` in the run.

    Raises:
        RunError: there is no run, or no such member, or one has not predicted yet.
    """
    x = reopen(one_cell(root), data, cache)
    members = [_member(x, name) for name in names]
    if not x.predicted(*members):
        raise RunError(f"members {', '.join(names)} predict no domain together: nothing of theirs can be compared")
    return [_draw(x, domain, members, "-".join(("members", *names, domain.name))) for domain in x.predicted(*members)]


def _draw(
    x: Experiment,
    domain: Domain,
    members: Sequence[Member],
    name: str,
    extra: Callable[[Domain, list[int]], Columns] = lambda domain, rows: {},
) -> Path:
    """Image, truth where there is one, the members' masks, and whatever else is to be shown of the same patches."""
    files = {member.name: _probs(x, member, domain) for member in members}
    first = next(iter(files.values()))
    places, notes = shown_patches(domain, first)
    at = {patch.id: row for row, patch in enumerate(domain.patches)}
    rows = [at[first.ids[place]] for place in places]
    truths = [domain.cache.mask(row) if domain.cache.labelled[row] else None for row in rows]
    columns: Columns = {"image": _images(domain, rows)}
    if any(mask is not None for mask in truths):
        columns["truth"] = [truth_picture(mask) for mask in truths]
    for member, probs in files.items():
        head = f"member {member}" if member in columns else member
        columns[head if len(files) > 1 else "prediction"] = [
            judged(np.broadcast_to(probs.patch(place), image.shape[:2]), probs, mask, threshold_of(probs))
            for place, image, mask in zip(places, columns["image"], truths, strict=True)
        ]
    columns |= extra(domain, rows)
    labels = [first.ids[place] for place in places]
    if notes and len(files) == 1:
        labels = ["\n".join(pair) for pair in zip(labels, notes, strict=True)]
    out = x.run.pictures / f"{name}.png"
    return draw_tiles(out, columns, labels, legend="truth" in columns)


def _attention(
    x: Experiment, models: Sequence["nn.Module"], member: Member, domain: Domain, rows: list[int]
) -> Columns:
    maps, features = _looked_at(x, models, member, domain, rows)
    own = [_own(each, domain, row) for each, row in zip(maps, rows, strict=True)]
    # each feature without padding, which is no part of a picture
    seen = [
        [_own(each, domain, row) for each, row in zip(feature, rows, strict=True)]
        for feature in features.swapaxes(0, 1)
    ]
    chosen = int(np.argmax([np.concatenate([tile.ravel() for tile in tiles]).std() for tiles in seen]))
    low, high = min(map(np.min, seen[chosen])), max(map(np.max, seen[chosen]))
    images = _images(domain, rows)
    return {
        "attention": [_overlay(image, each) for image, each in zip(images, own, strict=True)],
        f"{FEATURE} {chosen}": [(tile - low) / max(high - low, 1e-6) for tile in seen[chosen]],
    }


def _looked_at(
    x: Experiment, models: Sequence["nn.Module"], member: Member, domain: Domain, rows: list[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Mean attention (N, H, W) and features (N, F, H, W) of patches, from the pass that predicts them."""
    view = view_of(x, domain, member, x.plan.last_round())
    if adapts(member, domain.config):
        models = adapt_member(x.engine, build_task(member.config), models, member, view, x.recipe.predict.batch)
    images = view.images(np.array(rows))
    with torch.no_grad(), domain_rows(torch.tensor([view.norm])):
        extras = models[0](promoted(images, member.config.train.scale.factor)).extras
    if not {"attention", "feature"} <= extras.keys():
        raise RunError(
            f"the network of {member.name} ({member.config.model.name}) shows no attention: draw a member of model 'fusion' "
            "whose model.attention is true"
        )
    size = (images.shape[-2], images.shape[-1])
    feature = torch.stack([demote(each, size) for each in extras["feature"].unbind(1)], dim=1)
    return demote(extras["attention"].mean(1), size).numpy(), feature.numpy()


def _overlay(image: np.ndarray, values: np.ndarray) -> np.ndarray:
    """A map (H, W) in [0, 1], stretched to its own range, over a picture (H, W, 3)."""
    from matplotlib import colormaps

    low, high = float(values.min()), float(values.max())
    heat = colormaps[HEAT]((values - low) / max(high - low, 1e-6))[..., :3]
    return np.asarray(OVERLAY * heat + (1 - OVERLAY) * image)


def _own(values: np.ndarray, domain: Domain, row: int) -> np.ndarray:
    """A map at a patch's own size."""
    if domain.fitting is None:
        return values
    return restore(np.ascontiguousarray(values, np.float32), domain.shapes[row].tolist(), domain.fitting)


def _images(domain: Domain, rows: list[int]) -> list[np.ndarray]:
    fitted, _ = displayed(np.asarray(domain.cache.images[rows], np.float32), domain.bands.rgb_index)
    return [own_size(image, domain, row) for image, row in zip(fitted, rows, strict=True)]


def _probs(x: Experiment, member: Member, domain: Domain) -> ProbFile:
    path = x.run.probs(x.run.member(x.plan.last_round(), member.name), domain.name, x.plan.tta(domain.name)[-1])
    if not path.is_file():
        raise RunError(f"{path} is missing: run {command(x.run.root, 'predict', '--round', x.plan.last_round())} first")
    return open_probs(path)


def _member(x: Experiment, name: str) -> Member:
    known = {member.name: member for member in x.members}
    if name not in known:
        raise RunError(f"{x.run.root} has no member {name!r}{did_you_mean(name, known)}")
    return known[name]
