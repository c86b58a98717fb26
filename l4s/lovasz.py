"""Lovász losses (Berman, Triki and Blaschko 2018): convex in the errors, and the Jaccard loss where these are 0 or 1."""

import torch
from torch import Tensor

from l4s.errors import RecipeError, did_you_mean
from l4s.pixels import prepare

VARIANTS = ("softmax", "hinge")
PER = ("image", "batch")
UNSURE = (0.3, 0.7)
"""Soft targets strictly between are left out: such a pixel belongs to neither class."""


def lovasz(logits: Tensor, target: Tensor, weight: Tensor, *, variant: str = "softmax", per: str = "image") -> Tensor:
    """Lovász extension of the Jaccard loss (Algorithm 1 of Berman 2018), for one logit a pixel.

    A target >= 0.5 is a landslide. Targets strictly between 0.3 and 0.7 and pixels of weight 0 have no part in it. The
    weights multiply the counts of which intersection and union are made, so a factor on all of them changes nothing.
    The gradient goes through the errors alone. Zhao 2022 names the loss; softmax per image is what the same team used
    before.

    Args:
        logits: `(B, 1, H, W)` float. `(B, 1)` makes an image of each patch: "batch" is meant for that.
        target: same, with or without the channel, in [0, 1].
        weight: shaped like target, >= 0, 0 = ignored.
        variant: "softmax" has errors |t - p| and averages the classes landslide and background, each where it is
            present; "hinge" has errors max(0, 1 - z) and max(0, 1 + z), for landslides alone. Without landslides
            "hinge" costs the error of its one worst pixel.
        per: "image" averages over the images that have valid pixels, "batch" takes all images for one.

    Raises:
        RecipeError: variant or per does not exist.
        RunError: the shapes do not belong together.
    """
    for option, value, known in (("variant", variant, VARIANTS), ("per", per, PER)):
        if value not in known:
            raise RecipeError(f"loss 'lovasz': {option} = {value!r} does not exist{did_you_mean(value, known)}")
    with torch.autocast(logits.device.type, enabled=False):
        values, truth, valid = prepare(logits, target, weight)
        # Counts: above 0 for landslides, below 0 for background, 0 for what is left out.
        counts = torch.where(truth >= UNSURE[1], valid, torch.where(truth <= UNSURE[0], -valid, 0.0))
        wrong = counts.sign().neg_()  # the direction in which a logit is wrong
        if variant == "softmax":
            errors, slopes_of = (wrong * values).sigmoid(), _softmax_slopes
        else:
            errors, slopes_of = torch.addcmul(wrong.abs(), wrong, values).relu_(), _hinge_slopes
        if per == "batch":
            errors, counts = errors.reshape(1, -1), counts.reshape(1, -1)
        slopes, images = slopes_of(errors.detach(), counts)
        return (errors * slopes).sum() / images.clamp(min=1)


def _softmax_slopes(errors: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """The slope of each error `(B, pixels)`, and how many images have valid pixels.

    |t - p| is the error of a pixel for both classes, so that one sort serves them.
    """
    order = hardest_first(errors)
    landslide, rest = _split(counts, order)
    slopes, present = jaccard_slopes(*landslide, *rest), (landslide[1][:, -1:] > 0).int()
    slopes += jaccard_slopes(*rest, *landslide)
    present += (rest[1][:, -1:] > 0).int()
    return _put_back(slopes.div_(present.clamp(min=1)), order), (present > 0).sum()


def _hinge_slopes(errors: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """The slope of each error `(B, pixels)`, and how many images have valid pixels."""
    order = hardest_first(errors)
    landslide, rest = _split(counts, order)
    slopes = jaccard_slopes(*landslide, *rest)
    present, others = landslide[1][:, -1] > 0, rest[1][:, -1] > 0
    # Without landslides the loss jumps to 1 at the first error, which is no pixel left out: their errors are 0.
    slopes[:, 0] = torch.where(present, slopes[:, 0], 1.0)
    return _put_back(slopes, order), (present | others).sum()


def _split(counts: Tensor, order: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """In the given order: counts `(B, pixels)` of landslides with their sums `(B, pixels + 1)`, and of background."""
    ordered = counts.flatten().index_select(0, order).view_as(counts)
    landslide = ordered.clamp(min=0)
    rest = torch.sub(landslide, ordered, out=ordered)
    return (landslide, _sums(landslide)), (rest, _sums(rest))


def _sums(counts: Tensor) -> Tensor:
    """Cumulative sums with a 0 in front."""
    sums = counts.new_empty(counts.shape[0], counts.shape[1] + 1)
    sums[:, 0] = 0
    torch.cumsum(counts, 1, out=sums[:, 1:])
    return sums


def _put_back(slopes: Tensor, order: Tensor) -> Tensor:
    return torch.empty_like(slopes).flatten().scatter_(0, order, slopes.flatten()).view_as(slopes)


def jaccard_slopes(own: Tensor, own_sums: Tensor, rest: Tensor, rest_sums: Tensor) -> Tensor:
    """How the Jaccard loss of a class grows with each pixel that turns wrong, hardest first; 0 if the class is absent.

    With `size` the count of the class, the loss after some wrong pixels is `1 - left / union`: left is the part of size
    that is not among them, union is size plus the rest that is. The steps are written out, because in float32 the
    difference of two neighbours among a million pixels has hardly a digit left.

    Args:
        own: `(B, pixels)` counts of the class, hardest pixel first.
        own_sums: `(B, pixels + 1)`, their cumulative sums from 0 on.
        rest: counts of what is not the class, in the same order.
        rest_sums: their cumulative sums.
    """
    size = own_sums[:, -1:]
    unions = rest_sums + torch.where(size > 0, size, 1.0)  # any number will do for a class without pixels
    # A pixel of the class leaves the union and takes its count from what is left; one of the rest widens the union.
    step = (size - own_sums[:, 1:]).mul_(rest).div_(unions[:, :-1]).add_(own)
    return step.div_(unions[:, 1:])


def hardest_first(errors: Tensor) -> Tensor:
    """Indices into the flattened `(B, pixels)` errors >= 0, image after image, by falling error.

    On a CPU torch sorts one row of integers by radix, several times faster than floats, and the bits of floats >= 0
    read as integers have the order of the floats. A stable sort by image then takes the images apart.
    """
    images, pixels = errors.shape
    bits = errors.flatten().view(torch.int64 if errors.dtype == torch.float64 else torch.int32)
    order = torch.sort(~bits, stable=True).indices  # radix sorts upwards only
    if images == 1:
        return order
    number = torch.arange(images, dtype=torch.uint8 if images <= 256 else torch.int32, device=errors.device)
    image = number.repeat_interleave(pixels).index_select(0, order)
    return order.index_select(0, torch.sort(image, stable=True).indices)
