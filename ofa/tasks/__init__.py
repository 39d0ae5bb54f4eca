"""One file a task: its prompt, its picture, its kind of search, how its tokens become an answer."""

from __future__ import annotations

from pathlib import Path

from ofa.errors import CheckpointError
from ofa.tasks.captioning import CaptioningTask
from ofa.tasks.generate import GenerateTask
from ofa.tasks.image_classification import ImageClassificationTask
from ofa.tasks.ocr_recognition import OcrRecognitionTask
from ofa.tasks.settings import TaskSettings
from ofa.tasks.summarization import SummarizationTask
from ofa.tasks.task import Task, TaskTensors
from ofa.tasks.text_classification import TextClassificationTask
from ofa.tasks.text_to_image import TextToImageTask
from ofa.tasks.visual_entailment import VisualEntailmentTask
from ofa.tasks.visual_grounding import VisualGroundingTask
from ofa.tasks.visual_question_answering import VisualQuestionAnsweringTask

__all__ = ["TASKS", "Task", "TaskSettings", "TaskTensors", "load_task"]

#: Every task by the name that `configuration.json` has for it (modelscope `Tasks`).
TASKS: dict[str, type[Task]] = {
    task.name: task
    for task in (
        CaptioningTask,
        VisualQuestionAnsweringTask,
        VisualGroundingTask,
        VisualEntailmentTask,
        ImageClassificationTask,
        OcrRecognitionTask,
        SummarizationTask,
        TextClassificationTask,
        TextToImageTask,
        GenerateTask,
    )
}


def load_task(directory: Path) -> Task:
    """The task that `ofa export` saved in `directory`.

    Raises:
        CheckpointError: the folder holds no task, or one that is unknown.
    """
    settings = TaskSettings.load(directory)
    if settings.task not in TASKS:
        raise CheckpointError(f"task.json: unknown task {settings.task!r}; run `ofa export` again")
    return TASKS[settings.task](settings, directory)
