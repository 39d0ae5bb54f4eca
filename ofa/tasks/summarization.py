"""Summarization: an article in, titles out."""

from __future__ import annotations

from pathlib import Path

from ofa.tasks.settings import TaskSettings
from ofa.tasks.task import TEXT, read_text
from ofa.tasks.text_task import TextTask
from ofa.tensors import Tensors
from ofa.text import check_one_slot, clean_caption


class SummarizationTask(TextTask):
    """ModelScope's `text-summarization`."""

    name = "text-summarization"
    ensemble = "summarization"
    results = "texts"
    inputs = (TEXT,)
    default_prompt = ' " {} " Summarize the article with a title: '

    def __init__(self, settings: TaskSettings, folder: Path) -> None:
        super().__init__(settings, folder)
        check_one_slot(settings.prompt)

    def prompt(self, request: Tensors) -> str:
        """The article in its template; unknown words, as corpora mark them, are `unk`."""
        text = clean_caption(read_text(request, TEXT.name), self.settings.max_source_length)
        text = text.replace("[unk]", "unk").replace("<unk>", "unk")
        return self.settings.prompt.format(text)
