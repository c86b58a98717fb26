"""What recipes and runs must know of tasks, without their torch code. A task that is not named here learns from pixels.

The tasks themselves are in `l4s.tasks`.
"""

from typing import Any, Literal

from l4s.recipe import TaskConfig

Labels = Literal["pixels", "patches", "none"]

LABELS: dict[str, Labels] = {"classify": "patches", "score": "none"}
"""What of the labels a task trains on."""

AFTERWARDS = {"anomaly": {"smooth", "passes", "contamination"}, "score": {"smooth", "contamination"}}
"""Options that only prediction reads: another value is another prediction of the same training."""


def labels_read(task: TaskConfig) -> Labels:
    """What of the labels training reads: of pixels, of whole patches, or nothing, as an option may say."""
    return "none" if task.options.get("use_labels") is False else LABELS.get(task.name, "pixels")


def learnt(task: TaskConfig) -> TaskConfig:
    """A task with those of its options that training reads."""
    later = afterwards(task)
    return TaskConfig(name=task.name, **{key: own for key, own in task.options.items() if key not in later})


def afterwards(task: TaskConfig) -> dict[str, Any]:
    """The options of a task that only prediction reads, as far as they are set."""
    return {key: own for key, own in task.options.items() if key in AFTERWARDS.get(task.name, ())}
