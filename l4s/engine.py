"""Devices, processes and precision, by Hugging Face accelerate; the only importer of it.

One process needs no launcher. Many: `accelerate launch -m l4s ...` or torchrun, with the same arguments.
"""

import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Literal, TypeVar, cast

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, is_initialized
from accelerate.utils import (
    DistributedDataParallelKwargs,
    DistributedType,
    InitProcessGroupKwargs,
    broadcast,
    broadcast_object_list,
    gather_object,
    reduce,
)
from torch import Tensor, nn

from l4s.errors import RunError, did_you_mean

Precision = Literal["fp32", "bf16"]
T = TypeVar("T")
OUT_OF_MEMORY = (
    *("DefaultCPUAllocator: can't allocate memory", "CUDA error: out of memory"),
    *("CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_NOT_SUPPORTED"),
)
"""What kernels say that do not raise torch's own error."""
DISTRIBUTED = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)
PATIENCE = timedelta(days=1)  # one process may map or score for long while the others wait; NCCL's own is ten minutes


@dataclass(frozen=True)
class Engine:
    """What a run computes with."""

    accelerator: Accelerator
    device: torch.device
    precision: Precision
    workers: int = 0

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
        self.accelerator.free_memory()  # it would keep every network of the run in the device's memory
        return wrapped

    def silent(self, model: nn.Module, quiet: bool) -> AbstractContextManager[Any]:
        """While `quiet`, gradients are not averaged over the processes: more of the batch follows."""
        return self.accelerator.no_sync(model) if quiet else nullcontext()

    @contextmanager
    def one_by_one(self) -> Iterator[None]:
        """The first process of a machine goes ahead, the others find what it has made."""
        with self.accelerator.local_main_process_first():
            yield

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


def is_out_of_memory(error: RuntimeError) -> bool:
    """Has the device, or the machine, no memory left for what was asked?"""
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in OUT_OF_MEMORY)


@contextmanager
def enough_memory(advice: str) -> Iterator[None]:
    """Where memory does not suffice for what is done inside, say what the user can change."""
    try:
        yield
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise RunError(f"not enough memory ({str(error).splitlines()[0]}): {advice}") from error
        raise


def start_engine(
    device: str = "auto", precision: str = "auto", workers: int = 0, deterministic: bool = False
) -> Engine:
    """Take hold of this process's device.

    Args:
        device: "auto" (a GPU where there is one), "cpu" or "cuda".
        precision: "auto" takes bf16 where it is clearly faster, see `probe_precision`.
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
    _forget_other(cpu)
    # an encoder cut short keeps layers that nothing runs: without looking for them DDP stops at the second step
    ddp = DistributedDataParallelKwargs(broadcast_buffers=False, find_unused_parameters=True)
    handlers = [ddp, InitProcessGroupKwargs(timeout=PATIENCE)]
    # accelerate without a GPU starts separate worlds unless told that the CPU is meant; what a user's own configuration
    # of it says of precision and compilers is no part of a run
    accelerator = Accelerator(cpu=cpu, mixed_precision="no", dynamo_backend="no", kwargs_handlers=handlers)
    if accelerator.distributed_type not in DISTRIBUTED or (accelerator.device.type == "cpu") != cpu:
        raise RunError(
            f"accelerate is configured for {accelerator.distributed_type} on {accelerator.device.type}: plain processes on "
            f"{'the CPU' if cpu else 'GPUs'} are wanted; see `accelerate config` and variables ACCELERATE_*"
        )
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != launched:
        raise RunError(f"{launched} processes were launched but this one sees {accelerator.num_processes}")
    chosen = probe_precision(accelerator.device) if precision == "auto" else cast(Precision, precision)
    engine = Engine(accelerator, accelerator.device, chosen, workers)
    return replace(engine, precision=engine.agree(chosen))  # probes of several processes may differ


def _forget_other(cpu: bool) -> None:
    """A notebook may ask for the CPU after a GPU, or the other way round; accelerate knows one device a process."""
    if is_initialized() and AcceleratorState().num_processes == 1 and (AcceleratorState().device.type == "cpu") != cpu:
        AcceleratorState._reset_state(reset_partial_state=True)


def probe_precision(device: torch.device) -> Precision:
    """bf16 on GPUs with units for it, and on CPUs where a small convolution runs at least 1.3 times faster in it."""
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
