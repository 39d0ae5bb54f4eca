"""Records the reference's text-to-image class on the made-up checkpoint: two minutes.

`.venv-oracle/bin/python -m tests.reference.oracle.text_to_image`

Its draws are decided by recorded numbers in place of torch's generator: `torch.multinomial` is
replaced by the inverse of the cumulative distribution, in the order in which it gets the weights.
"""

import argparse
import functools
import itertools
import json
import sys
import tempfile
import zlib
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

import tests.reference.oracle.environment  # noqa: F401  # stand-ins before modelscope
from tests.reference import text_to_image
from tests.reference.golden import floats, some_values

import pytorch_lightning  # isort: skip  # a stand-in

# Without its training code, the VQGAN is a plain module, and its losses and schedules are never
# called.
pytorch_lightning.LightningModule = torch.nn.Module
_training = ModuleType("taming.main")
_training.instantiate_from_config = lambda _: torch.nn.Identity()  # type: ignore[attr-defined]
sys.modules["taming.main"] = _training

from modelscope.models.multi_modal import OfaForTextToImageSynthesis  # noqa: E402  # isort: skip
from modelscope.preprocessors import OfaPreprocessor  # noqa: E402  # isort: skip


class LastPosition(torch.nn.Module):
    """The projection to logits for the last position, the only one that the search reads.

    The reference projects its whole prefix in every step, which is a hundred times the work.
    """

    def __init__(self, projection: torch.nn.Module) -> None:
        super().__init__()
        self.projection = projection

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """[B, T, D] to [B, 1, V]."""
        logits: torch.Tensor = self.projection(hidden[:, -1:])
        return logits


def crc_of_set(token_ids: torch.Tensor) -> int:
    """A short digest of a set of ids."""
    return zlib.crc32(token_ids.sort().values.numpy().astype("<i8").tobytes())


class Draws:
    """Decides the reference's draws, and writes down what it drew from."""

    def __init__(self) -> None:
        self.nuclei: list[list[int]] = []
        self.margins: list[float] = []
        self._steps = itertools.count()
        self._uniforms = torch.from_numpy(text_to_image.uniforms())

    def multinomial(
        self, probs: torch.Tensor, num_samples: int, replacement: bool = False
    ) -> torch.Tensor:
        """In place of `torch.multinomial`, for all samples of one step."""
        assert replacement
        step = next(self._steps)
        if step == text_to_image.NUM_CODES:  # nothing but the end token is left
            return torch.zeros(len(probs), num_samples, dtype=torch.long)
        mass = probs.double().cumsum(1)
        target = self._uniforms[:, step, None] * mass[:, -1:]
        ranks = (mass <= target).sum(1, keepdim=True)
        mass = mass.expand(len(target), -1)
        below = torch.cat([torch.zeros(len(target), 1), mass], dim=1).gather(1, ranks)
        above = mass.gather(1, ranks)
        self.margins.append(min(float((target - below).min()), float((above - target).min())))
        return ranks.view(-1, num_samples)

    def watch_nucleus(self, sample_topp: Any, log_probs: torch.Tensor) -> Any:
        """Around `Sampling._sample_topp`."""
        probs, token_ids = sample_topp(log_probs)
        self.nuclei.append(
            [crc_of_set(t[p > 0]) for p, t in zip(probs[0], token_ids[0], strict=True)]
        )
        return probs, token_ids


def record(output: Path) -> None:
    """Run the reference and write what it did, step by step."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        digest = text_to_image.write(folder)
        torch.load = functools.partial(torch.load, weights_only=False)
        model = OfaForTextToImageSynthesis(str(folder), trust_remote_code=True)
        preprocessor = OfaPreprocessor(str(folder))
        recording: dict[str, Any] = {
            "weights_sha256": digest,
            "source_ids": [
                preprocessor({"text": text})["net_input"]["input_ids"][0].tolist()
                for text in text_to_image.TEXTS
            ],
            "clip_ids": [model.clip_tokenize([t])[0].tolist() for t in text_to_image.TEXTS],
        }
        inputs = preprocessor({"text": text_to_image.TEXT})

    decoder = model.model.decoder
    decoder.output_projection = LastPosition(decoder.output_projection)
    draws = Draws()
    torch.multinomial = draws.multinomial
    search = model.generator.search
    search._sample_topp = functools.partial(draws.watch_nucleus, search._sample_topp)
    results: dict[str, Any] = {}

    def watch(owner: Any, name: str) -> None:
        function = getattr(owner, name)

        def watched(*arguments: Any, **options: Any) -> Any:
            results[name] = function(*arguments, **options)
            value = results[name]
            # The caller changes the features in place.
            results[name] = value.clone() if isinstance(value, torch.Tensor) else value
            return value

        setattr(owner, name, watched)

    watch(model.generator, "generate")
    watch(model.vqgan_model, "decode")
    watch(model.clip_model, "encode_image")
    watch(model.clip_model, "encode_text")
    with torch.no_grad():
        picture = model(inputs)
    hypotheses = results["generate"][0]
    image_features, text_features = (
        torch.nn.functional.normalize(results[name], dim=1)
        for name in ("encode_image", "encode_text")
    )
    recording |= {
        "codes": [(h["tokens"][:-1] - 50265).tolist() for h in hypotheses],
        "log_probs": [floats(h["positional_scores"][:-1]) for h in hypotheses],
        "nuclei": draws.nuclei[: text_to_image.NUM_CODES],
        "smallest_margin": min(draws.margins),
        "painted": [some_values(pixels, 256) for pixels in results["decode"]],
        "image_features": [floats(row) for row in results["encode_image"]],
        "text_features": floats(results["encode_text"][0]),
        "similarities": floats(image_features @ text_features[0]),
    }
    output.mkdir(parents=True, exist_ok=True)
    picture.save(output / text_to_image.PICTURE.name)
    lines = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in recording.items()]
    path = output / text_to_image.RECORDING.name
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def main() -> None:
    """Record into `--output`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=text_to_image.RECORDING.parent)
    record(parser.parse_args().output)


if __name__ == "__main__":
    main()
