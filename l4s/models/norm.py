"""Cross-sensor normalisation: BatchNorm with running statistics of its own for each domain, and one shared affine.

Zhao 2022 replaces every BatchNorm by the layer of LoveCS (Wang et al. 2022). Rows of each domain
are normalised apart, in one forward of the whole batch. With one domain it is BatchNorm to the last bit.
"""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Rows:
    """Which rows of a batch are of which domain: `sizes[k]` of `domains[k]`, one block after the other.

    `order` brings a batch into blocks and `back` takes it out of them; None where it comes in blocks.
    """

    domains: Sequence[int]
    sizes: Sequence[int]
    order: Tensor | None = None
    back: Tensor | None = None


_ROWS: ContextVar[Rows | None] = ContextVar("rows", default=None)


@contextmanager
def domain_rows(domain: Tensor, device: torch.device | None = None) -> Iterator[None]:
    """Tell every `DomainBatchNorm` which domain each row of the batch belongs to.

    Args:
        domain: (B,) int64 on the CPU, positions in the layers' `domains`; a single one stands for a whole batch.
        device: where the batch is; None for the CPU.
    """
    # found once for all layers, and on the CPU: each look at values on a GPU would wait for it
    domains, sizes = (found.tolist() for found in torch.unique(domain, return_counts=True))
    order = back = None
    if not bool((domain[1:] >= domain[:-1]).all()):
        order = torch.argsort(domain, stable=True)
        back = torch.argsort(order).to(device, non_blocking=True)
        order = order.to(device, non_blocking=True)
    token = _ROWS.set(Rows(domains, sizes, order, back))
    try:
        yield
    finally:
        _ROWS.reset(token)


class DomainBatchNorm(nn.Module):
    """BatchNorm2d whose `running_mean`, `running_var` (D, C) and `num_batches_tracked` (D,) have a row for each domain.

    `act` is what a timm layer applies after normalising. Without `domain_rows` around it, every row is of domain 0.
    """

    def __init__(self, norm: nn.BatchNorm2d, domains: Sequence[str]) -> None:
        super().__init__()
        if norm.running_mean is None or norm.running_var is None or norm.num_batches_tracked is None:
            raise ValueError("only a BatchNorm that tracks running statistics can keep them by domain")
        self.domains = list(domains)
        self.eps, self.momentum = norm.eps, norm.momentum
        self.weight, self.bias = norm.weight, norm.bias
        count = len(self.domains)
        self.register_buffer("running_mean", norm.running_mean.repeat(count, 1))
        self.register_buffer("running_var", norm.running_var.repeat(count, 1))
        self.register_buffer("num_batches_tracked", norm.num_batches_tracked.repeat(count))
        self.drop = getattr(norm, "drop", nn.Identity())
        self.act = getattr(norm, "act", nn.Identity())
        self.sums: Sums | None = None

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        rows = _ROWS.get()
        if rows is None or len(rows.domains) == 1:
            return self._finish(self._normalise(image, rows.domains[0] if rows else 0))
        # blocks keep the layout of the memory: rows put into place one domain at a time took 2.3 times as long a step
        parts = torch.split(image if rows.order is None else image[rows.order], list(rows.sizes))
        out = torch.cat([self._normalise(part, domain) for part, domain in zip(parts, rows.domains, strict=True)])
        return self._finish(out if rows.back is None else out[rows.back])

    def _finish(self, image: Tensor) -> Tensor:
        finished: Tensor = self.act(self.drop(image))
        return finished

    def _normalise(self, image: Tensor, domain: int) -> Tensor:
        if self.sums is not None:
            self.sums.add(image)
            # not F.batch_norm, which refuses the one value a channel that a pooled patch is in a batch of one
            cudnn = torch.backends.cudnn.enabled
            return torch.batch_norm(image, self.weight, self.bias, None, None, True, 0.0, self.eps, cudnn)
        # a domain's one patch, pooled to one value a channel, has no statistics of its own: torch refuses it
        by_batch, factor = self.training and image.numel() > image.shape[1], 0.0
        if by_batch:
            self.num_batches_tracked[domain] += 1
            # only a plain mean looks at the count: on a GPU each look waits for it
            factor = 1 / float(self.num_batches_tracked[domain]) if self.momentum is None else self.momentum
        mean, var = self.running_mean[domain], self.running_var[domain]
        return F.batch_norm(image, mean, var, self.weight, self.bias, by_batch, factor, self.eps)

    def add_domain(self, name: str, init: str) -> None:
        """Give a new domain the running statistics of the domain `init`."""
        self._choose([*self.domains, init])
        self.domains.append(name)

    def set_domains(self, names: Sequence[str]) -> None:
        """Keep these domains, in this order; one that is new starts from the first there was."""
        self._choose([name if name in self.domains else self.domains[0] for name in names])
        self.domains = list(names)

    def _choose(self, names: Sequence[str]) -> None:
        rows = [self.domains.index(name) for name in names]
        for buffer in ("running_mean", "running_var", "num_batches_tracked"):
            setattr(self, buffer, getattr(self, buffer)[rows])


class Sums:
    """Count, sum and sum of squares per channel of all that a layer saw, in float64: they add up over batches and ranks."""

    def __init__(self, channels: int, device: torch.device) -> None:
        self.total = torch.zeros(3, channels, dtype=torch.float64, device=device)

    def add(self, image: Tensor) -> None:
        values = image.detach().double()
        count = torch.full_like(self.total[0], values.numel() / values.shape[1])
        self.total += torch.stack([count, values.sum((0, 2, 3)), (values**2).sum((0, 2, 3))])

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and unbiased variance per channel."""
        count, first, second = self.total
        mean = first / count
        return mean, (second / count - mean**2).clamp(min=0) * count / (count - 1).clamp(min=1)


def convert_bn(model: nn.Module, domains: Sequence[str]) -> nn.Module:
    """Replace every BatchNorm2d of a model, in place; each domain starts from its running statistics.

    timm's BatchNorm with an activation inside keeps its activation. LayerNorm and GroupNorm stay.
    """
    for name, child in model.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(model, name, DomainBatchNorm(child, domains))
        else:
            convert_bn(child, domains)
    return model


def norm_layers(model: nn.Module) -> list[DomainBatchNorm]:
    """The model's layers with statistics by domain."""
    return [module for module in model.modules() if isinstance(module, DomainBatchNorm)]


def set_domains(model: nn.Module, names: Sequence[str]) -> None:
    """Keep these domains in every layer, in this order; one that is new starts from the first there was."""
    for layer in norm_layers(model):
        layer.set_domains(names)


@torch.no_grad()
def adapt_bn(
    model: nn.Module,
    batches: Iterable[Tensor],
    domain: int,
    forward: Callable[[nn.Module, Tensor], object] = nn.Module.__call__,
    reduce_sum: Callable[[Tensor], Tensor] | None = None,
) -> None:
    """AdaBN: set a domain's running statistics to those of its own images, with the weights that will be used.

    Each batch passes normalised by its own statistics while count-weighted sums are kept, so that the result depends
    neither on a momentum nor, but for the last batch's size, on the batching.

    Args:
        batches: (B, C, H, W) float32 images of the domain, on the model's device.
        domain: position in the layers' `domains`.
        forward: sends images through the model as prediction does, promoted for example.
        reduce_sum: adds a tensor up over processes; None for one process.
    """
    layers = norm_layers(model)
    for layer in layers:
        layer.sums = Sums(layer.running_mean.shape[1], layer.running_mean.device)
    was_training = model.training
    model.eval()  # dropout off; the layers collect instead of using what they have
    for images in batches:
        forward(model, images)
    model.train(was_training)
    for layer in layers:
        assert layer.sums is not None
        if reduce_sum is not None:
            layer.sums.total = reduce_sum(layer.sums.total)
        if layer.sums.total[0].any():
            mean, variance = layer.sums.moments()
            layer.running_mean[domain], layer.running_var[domain] = mean.float(), variance.float()
        layer.sums = None


def settle_bn(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    forward: Callable[[nn.Module, Tensor], object] = nn.Module.__call__,
    reduce_sum: Callable[[Tensor], Tensor] | None = None,
) -> None:
    """Precise BatchNorm (Wu and Johnson 2021, section 3): running statistics computed anew with the weights as they are.

    The moving average of training remembers some ten batches, each under other weights. Layers that keep statistics by
    domain have each domain's computed from its own rows, and keep those of a domain without rows; the others' come
    from all rows.

    Args:
        batches: images (B, C, H, W) float32 and the domain (B,) int64 of each, on the model's device.
        forward, reduce_sum: as in `adapt_bn`.
    """
    seen = list(batches)
    if layers := norm_layers(model):
        for domain in range(len(layers[0].domains)):  # all, on every process: their sums are added up
            chosen = (images[rows == domain] for images, rows in seen if (rows == domain).any())
            with domain_rows(torch.tensor([domain])):
                adapt_bn(model, chosen, domain, forward, reduce_sum)
        return
    twin = convert_bn(copy.deepcopy(model), ["all"])
    adapt_bn(twin, (images for images, _ in seen), 0, forward, reduce_sum)
    for name, layer in model.named_modules():
        if isinstance(layer, nn.BatchNorm2d):
            found = cast(DomainBatchNorm, twin.get_submodule(name))
            layer.running_mean, layer.running_var = found.running_mean[0].clone(), found.running_var[0].clone()
