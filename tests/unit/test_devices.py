"""What a GPU's host would find out: that a generator makes every tensor where its weights are.

Meta tensors stand for a GPU's: an operation that mixes them with a CPU's fails just so. They hold
no numbers, so what the search asks its device for (counts, and whether all is done) is made up.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ofa.export import as_tuple
from ofa.generation import Generator, LabelScorer, TextGenerator
from ofa.lowering import PRECISIONS, lower
from ofa.model import OFAModel
from ofa.task_config import SearchConfig
from tests.unit import tiny
from tests.unit.tiny import BOS, EOS, UNK, make_options, stack_options

LABELS = [[10, 20], [10, 21, 22], [30]]


class MadeUpScalars(TorchDispatchMode):
    """Answers what is asked of a tensor without numbers: 3, False."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        if func is torch.ops.aten._local_scalar_dense.default and args[0].is_meta:
            return False if args[0].dtype == torch.bool else 3
        return func(*args, **(kwargs or {}))


@contextmanager
def meta_device() -> Iterator[None]:
    with torch.no_grad(), MadeUpScalars():
        yield


@pytest.fixture(autouse=True)
def strict_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU's norms and fused attention take one dtype; meta tensors do not mind."""
    layer_norm, attention = F.layer_norm, F.scaled_dot_product_attention

    def strict_norm(x: Tensor, shape: Any, weight: Tensor, *others: Any) -> Tensor:
        assert x.dtype == weight.dtype
        return layer_norm(x, shape, weight, *others)

    def strict_attention(
        q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor, **others: Any
    ) -> Tensor:
        assert q.dtype == k.dtype == v.dtype == attn_mask.dtype
        return attention(q, k, v, attn_mask, **others)

    monkeypatch.setattr(F, "layer_norm", strict_norm)
    monkeypatch.setattr(F, "scaled_dot_product_attention", strict_attention)


@pytest.mark.parametrize("precision", PRECISIONS["cuda"])
@pytest.mark.parametrize("has_labels", [False, True])
def test_a_generator_stays_on_its_device(
    tiny_model: OFAModel, precision: str, has_labels: bool
) -> None:
    labels = LABELS if has_labels else []
    statistics = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    prompts = torch.tensor([[BOS, 10, 20, EOS]] * 2)
    options = stack_options([make_options(beam_size=3, max_length=3, no_repeat_ngram_size=2)] * 2)
    pictures = tiny.make_pictures(2)
    generators: list[tuple[nn.Module, tuple[Tensor, ...]]] = [
        (Generator(tiny_model, SearchConfig(), *statistics, UNK, labels), (pictures, prompts)),
        (TextGenerator(tiny_model, SearchConfig(), UNK, labels), (prompts,)),
    ]
    for generator, content in generators:
        lowered = lower(generator.eval(), tiny.IMAGE_SIZE, precision, "cuda").to("meta")
        with meta_device():
            outputs = lowered(*(tensor.to("meta") for tensor in (*content, *options)))
        assert all(output.is_meta for output in outputs)


@pytest.mark.parametrize("precision", PRECISIONS["cuda"])
def test_a_label_scorer_stays_on_its_device(tiny_model: OFAModel, precision: str) -> None:
    statistics = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    scorer = LabelScorer(tiny_model, *statistics, "prev_output", LABELS).eval()
    lowered = lower(scorer, tiny.IMAGE_SIZE, precision, "cuda").to("meta")
    inputs = (tiny.make_pictures(2), torch.tensor([[BOS, 10, 20, EOS]] * 2))
    with meta_device():
        outputs = as_tuple(lowered(*(tensor.to("meta") for tensor in inputs)))
    assert all(output.is_meta for output in outputs)


def test_a_tensor_of_the_host_is_noticed(tiny_model: OFAModel) -> None:
    generator = tiny.make_generator(tiny_model)
    lowered = lower(generator, tiny.IMAGE_SIZE, "float16", "cuda").to("meta")
    inputs = (
        tiny.make_pictures(2),
        torch.tensor([[BOS, 10, 20, EOS]] * 2),
        *stack_options([make_options()] * 2),
    )
    with meta_device(), pytest.raises(RuntimeError, match="meta"):
        lowered(inputs[0], *(tensor.to("meta") for tensor in inputs[1:]))
