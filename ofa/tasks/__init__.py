"""One file a task: its prompt, its picture, its kind of search, how its tokens become an answer."""

from __future__ import annotations

from pathlib import Path

from ofa.errors import CheckpointError
from ofa.tasks.captioning import CaptioningTask
from ofa.tasks.settings import TaskSettings

__all__ = ["CaptioningTask", "TaskSettings", "load_task"]

#: Every task by the name that `configuration.json` has for it (modelscope `Tasks`).
TASKS = {CaptioningTask.name: CaptioningTask}


def load_task(directory: Path) -> CaptioningTask:
    """The task that `ofa export` saved in `directory`.

    Raises:
        CheckpointError: the folder holds no task, or one that is unknown.
    """
    settings = TaskSettings.load(directory)
    if settings.task not in TASKS:
        raise CheckpointError(f"task.json: unknown task {settings.task!r}; run `ofa export` again")
    return TASKS[settings.task](settings, directory)
