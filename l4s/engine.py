"""Devices, processes and precision, by Hugging Face accelerate; the only importer of it.

One process needs no launcher. Many: `accelerate launch -m l4s ...` or torchrun, with the same arguments.
"""

import os
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar, cast

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, broadcast, broadcast_object_list, gather_object, reduce
from torch import Tensor, nn

from l4s.errors import RunError, did_you_mean

Precision = Literal["fp32", "bf16"]
T = TypeVar("T")


@dataclass(frozen=True)
class Engine:
    """What a run computes with."""

    accelerator: Accelerator
    precision: Precision
    workers: int = 0

    @property
    def device(self) -> torch.device:
        return cast(torch.device, self.accelerator.device)

    @property
    def rank(self) -> int:
        return int(self.accelerator.process_index)

    @property
    def world(self) -> int:
        return int(self.accelerator.num_processes)

    @property
    def main(self) -> bool:
        """Is this the process that writes files?"""
        return bool(self.accelerator.is_main_process)

    def autocast(self) -> AbstractContextManager[Any]:
        """bf16 where the run computes in it; losses step out of it by themselves."""
        return torch.autocast(self.device.type, torch.bfloat16) if self.precision == "bf16" else nullcontext()

    def place(self, model: nn.Module) -> nn.Module:
        """A model on the device, channels last."""
        return model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]

    def distribute(self, model: nn.Module) -> nn.Module:
        """The model as training calls it: wrapped where there are several processes."""
        wrapped: nn.Module = self.accelerator.prepare_model(model)
        return wrapped

    def backward(self, loss: Tensor) -> None:
        self.accelerator.backward(loss)

    def collect(self, rows: list[Any]) -> list[Any]:
        """Every process's rows, in order of rank."""
        return list(gather_object(rows)) if self.world > 1 else rows

    def agree(self, answer: T) -> T:
        """The first process's answer, for all: files and clocks may look different to each of them."""
        return cast(T, broadcast_object_list([answer])[0])

    def share_buffers(self, model: nn.Module) -> None:
        """Give every process the running statistics of the first, which are the ones that are saved."""
        for buffer in model.buffers() if self.world > 1 else ():
            broadcast(buffer)

    def add_up(self, values: Tensor) -> Tensor:
        """The sum of every process's values."""
        return cast(Tensor, reduce(values, "sum"))

    def wait(self) -> None:
        """Until every process is here."""
        self.accelerator.wait_for_everyone()


def start_engine(
    device: str = "auto", precision: str = "auto", workers: int = 0, deterministic: bool = False
) -> Engine:
    """Take hold of this process's device.

    Args:
        device: "auto" (a GPU where there is one), "cpu" or "cuda".
        precision: "auto" times both and takes bf16 where it is clearly faster.
        deterministic: refuse operations whose result may differ between two runs on one machine.

    Raises:
        RunError: there is no such device or precision, or a launcher's processes did not find each other.
    """
    for flag, word, known in (
        ("device", device, ("auto", "cpu", "cuda")),
        ("precision", precision, ("auto", "fp32", "bf16")),
    ):
        if word not in known:
            raise RunError(f"--{flag} {word} does not exist{did_you_mean(word, known)}")
    if device == "cuda" and not torch.cuda.is_available():
        raise RunError("--device cuda: torch finds no GPU here; use --device cpu, or install torch for your GPU")
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    cpu = device == "cpu" or not torch.cuda.is_available()
    # accelerate without a GPU starts separate worlds unless told that the CPU is meant
    accelerator = Accelerator(cpu=cpu, kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)])
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != launched:
        raise RunError(f"{launched} processes were launched but this one sees {accelerator.num_processes}")
    chosen = probe_precision(accelerator.device) if precision == "auto" else cast(Precision, precision)
    engine = Engine(accelerator, chosen, workers)
    return replace(engine, precision=engine.agree(chosen))  # probes of several processes may differ


def probe_precision(device: torch.device) -> Precision:
    """bf16 where a small convolution runs at least 1.3 times faster in it; CPUs without bf16 units are far slower."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    image = torch.ones(2, 32, 64, 64, device=device).contiguous(memory_format=torch.channels_last)
    with torch.random.fork_rng(devices=[]):  # its first weights are drawn from the caller's generator otherwise
        layer = nn.Conv2d(32, 32, 3, padding=1).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    seconds = {dtype: _time(layer, image, dtype) for dtype in (torch.float32, torch.bfloat16)}
    return "bf16" if seconds[torch.float32] > 1.3 * seconds[torch.bfloat16] else "fp32"


def _time(layer: nn.Module, image: Tensor, dtype: torch.dtype, repeats: int = 5) -> float:
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        with torch.autocast(image.device.type, dtype, enabled=dtype is not torch.float32):
            layer(image).float().sum().backward()
        best = min(best, time.perf_counter() - start)
    return best
