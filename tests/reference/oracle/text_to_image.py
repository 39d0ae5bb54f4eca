"""Records the reference's text-to-image class on the made-up checkpoint: minutes.

`.venv-oracle/bin/python -m tests.reference.oracle.text_to_image`

Its draws are decided by recorded numbers in place of torch's generator: `torch.multinomial` is
replaced by the inverse of the cumulative distribution, in the order in which it gets the weights.
"""

import argparse
import functools
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
from tests.reference.golden import NUM_THREADS, floats, some_values
from tests.reference.oracle.versions import versions

import pytorch_lightning  # isort: skip  # a stand-in

# Without its training code, the VQGAN is a plain module, and its losses and schedules are never
# called.
pytorch_lightning.LightningModule = torch.nn.Module
_training = ModuleType("taming.main")
_training.instantiate_from_config = lambda _: torch.nn.Identity()  # type: ignore[attr-defined]
sys.modules["taming.main"] = _training

from modelscope.models.multi_modal import OfaForTextToImageSynthesis  # noqa: E402  # isort: skip
from modelscope.preprocessors import OfaPreprocessor  # noqa: E402  # isort: skip

FIRST_CODE_ID = 50265


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
    """Decides the reference's draws, and writes down what it drew from, step by step.

    Attributes:
        codes: What was drawn, int64 [samples], samples in the order in which they are drawn.
        log_probs: Theirs, float32 [samples], as the sampler was given them. What the reference
            reports in the end are differences of float32 sums of hundreds of nats.
        nuclei: A digest of every sample's nucleus.
        nucleus_margins: How little decided any of them, see `nucleus_margins`.
        draw_margins: The same for the codes: probability mass between a random number and the next
            code, and nats between the code and its neighbours in rank.
    """

    def __init__(self, top_p: float) -> None:
        self.codes: list[torch.Tensor] = []
        self.log_probs: list[torch.Tensor] = []
        self.nuclei: list[list[int]] = []
        self.nucleus_margins: list[list[float]] = []
        self.draw_margins: list[list[float]] = []
        self._top_p = top_p
        self._uniforms = torch.from_numpy(text_to_image.uniforms())
        self._given = self._token_ids = torch.empty(0)

    def watch_nucleus(self, sample_topp: Any, log_probs: torch.Tensor) -> Any:
        """Around `Sampling._sample_topp`."""
        given = log_probs[0].clone()  # it is overwritten
        probs, token_ids = sample_topp(log_probs)
        if len(self.nuclei) < text_to_image.NUM_CODES:  # after that only the end token is left
            num_samples = text_to_image.NUM_SAMPLES  # which begin with one nucleus for all
            self._given = given.expand(num_samples, -1)
            self._token_ids = token_ids[0].expand(num_samples, -1)
            is_kept = (probs[0] > 0).expand(num_samples, -1)
            nuclei = zip(self._token_ids, is_kept, strict=True)
            self.nuclei.append([crc_of_set(ids[kept]) for ids, kept in nuclei])
            self.nucleus_margins.append(nucleus_margins(self._given, is_kept, self._top_p))
        return probs, token_ids

    def multinomial(
        self, probs: torch.Tensor, num_samples: int, replacement: bool = False
    ) -> torch.Tensor:
        """In place of `torch.multinomial`, for all samples of one step."""
        assert replacement
        step = len(self.codes)
        if step == text_to_image.NUM_CODES:  # nothing but the end token is left
            return torch.zeros(len(probs), num_samples, dtype=torch.long)
        mass = probs.double().cumsum(1)
        target = self._uniforms[:, step, None] * mass[:, -1:]
        ranks = (mass <= target).sum(1, keepdim=True)
        mass = mass.expand(len(target), -1)
        below = torch.cat([torch.zeros(len(target), 1), mass], dim=1).gather(1, ranks)
        above = mass.gather(1, ranks)
        ranked = self._given.sort(descending=True).values
        gaps = torch.nn.functional.pad(ranked[:, :-1] - ranked[:, 1:], (1, 0), value=torch.inf)
        to_neighbour = torch.minimum(gaps.gather(1, ranks), gaps.gather(1, ranks + 1))
        self.draw_margins.append(
            _rounded(torch.minimum(target - below, above - target), to_neighbour)
        )
        token_ids = self._token_ids.gather(1, ranks)
        self.codes.append(token_ids[:, 0] - FIRST_CODE_ID)
        self.log_probs.append(self._given.gather(1, token_ids)[:, 0])
        return ranks.view(-1, num_samples)


def nucleus_margins(log_probs: torch.Tensor, is_kept: torch.Tensor, top_p: float) -> list[float]:
    """How little decides which codes are kept, whichever sample is nearest to another nucleus.

    Args:
        log_probs: Of all tokens, [samples, vocabulary].
        is_kept: bool [samples, ranks], of the likeliest tokens, likeliest first.
        top_p: How much probability is kept at least.

    Returns:
        Probability mass: how far the sum is from `top_p`, with and without the last code.
        Nats: how much likelier the last code is than the first that is left out.
    """
    ranked = log_probs.sort(descending=True).values
    probs = ranked.exp().double()
    last = is_kept.sum(1, keepdim=True) - 1
    kept = probs.cumsum(1).gather(1, last)
    to_top_p = torch.minimum((kept - top_p).abs(), top_p - (kept - probs.gather(1, last)))
    return _rounded(to_top_p, ranked.gather(1, last) - ranked.gather(1, last + 1))


def _rounded(*margins: torch.Tensor) -> list[float]:
    return [float(f"{margin.min():.3g}") for margin in margins]


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
            "versions": versions(),
            "source_ids": [
                preprocessor({"text": text})["net_input"]["input_ids"][0].tolist()
                for text in text_to_image.TEXTS
            ],
            "clip_ids": [model.clip_tokenize([t])[0].tolist() for t in text_to_image.TEXTS],
        }
        inputs = preprocessor({"text": text_to_image.TEXT})

    decoder = model.model.decoder
    decoder.output_projection = LastPosition(decoder.output_projection)
    search = model.generator.search
    draws = Draws(search.sampling_topp)
    torch.multinomial = draws.multinomial
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
    # The reference ranks its samples by their mean log-probability.
    codes = [(h["tokens"][:-1] - FIRST_CODE_ID).tolist() for h in results["generate"][0]]
    drawn = torch.stack(draws.codes, dim=1).tolist()
    log_probs = torch.stack(draws.log_probs, dim=1)
    image_features, text_features = (
        torch.nn.functional.normalize(results[name], dim=1)
        for name in ("encode_image", "encode_text")
    )
    recording |= {
        "codes": codes,
        "log_probs": [floats(log_probs[drawn.index(sample)]) for sample in codes],
        "nuclei": draws.nuclei,
        "nucleus_margins": draws.nucleus_margins,
        "draw_margins": [min(kind) for kind in zip(*draws.draw_margins, strict=True)],
        "painted": [some_values(pixels, 256) for pixels in results["decode"]],
        "image_features": [floats(row) for row in results["encode_image"]],
        "text_features": floats(results["encode_text"][0]),
        "similarities": floats(image_features @ text_features[0]),
    }
    output.mkdir(parents=True, exist_ok=True)
    picture.save(output / text_to_image.PICTURE.name)
    lines = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in recording.items()]
    path = output / text_to_image.RECORDING.name
    # `make parity-all` waits for the file and reads it as soon as it is there.
    part = path.with_suffix(".part")
    part.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    part.replace(path)


def main() -> None:
    """Record into `--output`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=text_to_image.RECORDING.parent)
    output = parser.parse_args().output
    torch.set_num_threads(NUM_THREADS)
    record(output)


if __name__ == "__main__":
    main()
