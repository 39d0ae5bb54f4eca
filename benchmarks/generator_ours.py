"""Our side of `benchmarks.generator`: the exported files as a server runs them.

Started by `Worker` with a repository and the name of an export as arguments.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.exported import load_exported_generator, load_exported_task, read_texts
from benchmarks.worker import Answered, answer_pictures
from ofa.export import stack_rows


class OurSide:
    """Captions pictures with an exported generator and times its stages.

    TorchScript takes no hooks. The stages before decoding are therefore run a second time, by the
    calls of the file's own modules that `Generator.forward` makes, and decoding with its search is
    what the whole takes beyond them.
    """

    def __init__(self, repository: Path, name: str) -> None:
        self.task = load_exported_task(repository, name)
        self.generator = load_exported_generator(repository, name)

    @torch.inference_mode()
    def caption(self, picture: Path) -> Answered:
        """Caption a picture file."""
        start = time.perf_counter()
        row = self.task.preprocess({"image": np.array([picture.read_bytes()], np.object_)})
        prepared = time.perf_counter()
        arguments = stack_rows([row], self.task)
        hypotheses = self.generator(*arguments)
        generated = time.perf_counter()
        captions = read_texts(self.task, row, hypotheses)
        end = time.perf_counter()
        stages = self._time_stages(arguments[0], arguments[1])
        return Answered(
            captions,
            {
                "decode, resize": prepared - start,
                **stages,
                "decoding": generated - prepared - sum(stages.values()),
                "text": end - generated,
                "whole": end - start,
            },
        )

    def _time_stages(self, patch_images: Tensor, source_ids: Tensor) -> dict[str, float]:
        source_encoder = self.generator.source_encoder
        encoder, decoder = source_encoder.encoder, self.generator.beam_decoder.decoder
        start = time.perf_counter()
        pixels = self.generator.normalize(patch_images)
        x, grid_height, grid_width = encoder.embed(pixels, source_ids)
        embedded = time.perf_counter()
        padding_mask = encoder.padding_mask(source_ids, grid_height * grid_width)
        hidden = encoder.run_layers(x, padding_mask, source_encoder.encoder_bias)
        encoded = time.perf_counter()
        decoder.cross_keys_values(hidden)
        end = time.perf_counter()
        return {
            "stem": embedded - start,
            "encoder": encoded - embedded,
            "cross keys, values": end - encoded,
        }


if __name__ == "__main__":
    repository, name = sys.argv[3:]
    answer_pictures(OurSide(Path(repository), name).caption)
