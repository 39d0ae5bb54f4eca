"""Our side of `benchmarks.generator`: the exported files as a server runs them.

Started by `Worker` with a repository, the name of an export, a batch size and a device.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.exported import load_exported_generator, load_exported_task, read_texts
from benchmarks.machine import synchronize
from benchmarks.worker import OUR_WARMUPS, Answered, answer_pictures
from ofa.export import stack_rows
from ofa_server.backends.pytorch.allocator import keep_blocks_apart, pool_blocks


class OurSide:
    """Captions pictures with an exported generator and times its stages.

    TorchScript takes no hooks. The stages before decoding are therefore run a second time, by the
    calls of the file's own modules that `Generator.forward` makes, and decoding with its search is
    what the whole takes beyond them.
    """

    def __init__(self, repository: Path, name: str, batch_size: int, device: torch.device) -> None:
        # As the server's backend does.
        keep_blocks_apart()
        self.num_calls = 0
        self.task = load_exported_task(repository, name)
        self.generator = load_exported_generator(repository, name, device)
        self.batch_size = batch_size
        self.device = device

    @torch.inference_mode()
    def caption(self, picture: Path) -> Answered:
        """Caption a batch of one picture file, again and again; all seconds are a picture's."""
        start = self._now()
        row = self.task.preprocess({"image": np.array([picture.read_bytes()], np.object_)})
        prepared = self._now()
        arguments = [
            tensor.to(self.device) for tensor in stack_rows([row] * self.batch_size, self.task)
        ]
        if self.num_calls == 0:
            # As a server's warm-up, which lays the weights out with a single row.
            self.generator(*(argument[:1] for argument in arguments))
            pool_blocks()
            prepared = self._now()
        self.num_calls += 1
        hypotheses = self.generator(*arguments)
        generated = self._now()
        captions = read_texts(self.task, row, hypotheses)
        end = self._now()
        # Not in the warm-up, whose peak of memory is told: a server makes no such calls.
        is_warm = self.num_calls > OUR_WARMUPS
        stages = self._time_stages(arguments[0], arguments[1]) if is_warm else {}
        preparing, reading = prepared - start, end - generated
        generator = (generated - prepared) / self.batch_size
        return Answered(
            captions,
            {
                "decode, resize": preparing,
                **stages,
                "decoding": generator - sum(stages.values()),
                "generator": generator,
                "text": reading,
                "whole": preparing + generator + reading,
            },
        )

    def _time_stages(self, patch_images: Tensor, source_ids: Tensor) -> dict[str, float]:
        source_encoder = self.generator.source_encoder
        encoder, decoder = source_encoder.encoder, self.generator.beam_decoder.decoder
        start = self._now()
        pixels = self.generator.normalize(patch_images)
        x, grid_height, grid_width = encoder.embed(pixels, source_ids)
        embedded = self._now()
        padding_mask = encoder.padding_mask(source_ids, grid_height * grid_width)
        hidden = encoder.run_layers(x, padding_mask, source_encoder.encoder_bias)
        encoded = self._now()
        decoder.cross_keys_values(hidden)
        end = self._now()
        return {
            "stem": (embedded - start) / self.batch_size,
            "encoder": (encoded - embedded) / self.batch_size,
            "cross keys, values": (end - encoded) / self.batch_size,
        }

    def _now(self) -> float:
        synchronize(self.device)
        return time.perf_counter()


if __name__ == "__main__":
    repository, name, batch_size, device = sys.argv[3:]
    answer_pictures(OurSide(Path(repository), name, int(batch_size), torch.device(device)).caption)
