"""What an export replaces does the same as what it stands for, and more of a batch the same."""

import copy
import itertools
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ofa.generation import Generator, LabelScorer, TextGenerator
from ofa.lowering import PRECISIONS, lower
from ofa.lowering.attention_by_head import AttentionByHead
from ofa.lowering.attention_by_query import AttentionByQuery
from ofa.lowering.attention_of_beams import AttentionOfBeams
from ofa.lowering.folded_resnet import FoldedResNet
from ofa.lowering.fused_attention import FusedAttention
from ofa.lowering.half_linear import HalfLinear
from ofa.lowering.int8_linear import Int8Linear
from ofa.lowering.packed_conv import PackedResNet
from ofa.lowering.packed_linear import PackedLinear
from ofa.model import OFAModel
from ofa.model.attention import Attention, ScaledDotProduct
from ofa.model.decoder import DecoderLayer
from ofa.model.encoder import EncoderLayer
from ofa.model.resnet import ResNet
from ofa.model.vit import VIT_SIZES, ViTSize
from ofa.task_config import SearchConfig
from tests.unit import tiny
from tests.unit.tiny import BOS, EOS, PAD, UNK, make_options, stack_options

PROMPTS = [[BOS, 10, 20, 30, EOS], [BOS, 40, EOS, PAD, PAD], [BOS, 9, 8, EOS, PAD]]
DTYPES = [torch.float32, torch.bfloat16]
LABELS = [[10, 20], [10, 21, 22], [30], [40, 41, 42, 43]]


@pytest.fixture(scope="module")
def generator(tiny_model: OFAModel) -> Generator:
    return tiny.make_generator(tiny_model)


def reload(module: nn.Module, folder: Path) -> torch.jit.ScriptModule:
    """What a server loads of a module that was saved."""
    path = str(folder / "module.pt")
    torch.jit.script(module).save(path)
    return torch.jit.load(path)


@pytest.mark.parametrize("width", [32, 192, 1024])
@pytest.mark.parametrize("shape", [(1,), (5,), (1, 1), (3, 1), (2, 5), (9, 5), (3, 44), (2, 3, 7)])
def test_a_packed_layer_is_its_linear(shape: tuple[int, ...], width: int) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(width, 70)
    x = torch.randn(*shape, width)
    with torch.inference_mode():
        actual = PackedLinear(linear.weight, linear.bias, torch.float32)(x)
        torch.testing.assert_close(actual, linear(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("width", "num_outputs"), [(32, 32), (192, 768), (1024, 256), (1024, 4096), (4096, 1024)]
)
@pytest.mark.parametrize("rows", [1, 3, 5, 12, 44])
@pytest.mark.parametrize("dtype", DTYPES)
def test_an_item_of_a_batch_gets_the_same_bits_alone(
    width: int, num_outputs: int, rows: int, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    layer = PackedLinear(torch.randn(num_outputs, width), torch.randn(num_outputs), dtype)
    batch = torch.randn(8, rows, width)
    with torch.inference_mode():
        together = layer(batch)
        for index in range(8):
            assert torch.equal(layer(batch[index : index + 1])[0], together[index])
        assert torch.equal(layer(batch[:3]), together[:3])


def test_a_loaded_layer_keeps_no_plain_weight(tmp_path: Path) -> None:
    torch.manual_seed(0)
    layer = PackedLinear(torch.randn(70, 32), torch.randn(70), torch.float32)
    loaded = reload(layer, tmp_path)
    x = torch.randn(3, 5, 32)
    with torch.inference_mode():
        assert torch.equal(loaded(x), layer(x))
    assert loaded.weight.numel() == 0
    with pytest.raises(RuntimeError):
        loaded(torch.randn(3, 5, 31))


@pytest.mark.parametrize("num_biases", [1, 3])
@pytest.mark.parametrize("dtype", DTYPES)
def test_attention_by_head_is_attention(
    dtype: torch.dtype, num_biases: int, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    queries, keys, values = (torch.randn(3, 2, 50, 16).to(dtype) for _ in range(3))
    bias = torch.randn(num_biases, 2, 50, 50)
    bias[0, :, :, 40:] = float("-inf")
    inputs = (queries, keys, values, bias)
    tolerance = 1e-5 if dtype == torch.float32 else 0.02
    with torch.inference_mode():
        expected = ScaledDotProduct(0.2)(*(tensor.float() for tensor in inputs))
        for module in (AttentionByHead(0.2), reload(AttentionByHead(0.2), tmp_path)):
            actual = module(*inputs)
            assert actual.dtype == dtype
            torch.testing.assert_close(actual.float(), expected, rtol=0.0, atol=tolerance)
            for index in range(3):
                row = slice(index, index + 1)
                alone = module(
                    queries[row], keys[row], values[row], bias[row] if num_biases > 1 else bias
                )
                assert torch.equal(alone[0], actual[index])


@pytest.mark.parametrize("length", [1, 8, 17])
@pytest.mark.parametrize("dtype", DTYPES)
def test_attention_by_query_is_attention(dtype: torch.dtype, length: int) -> None:
    torch.manual_seed(0)
    queries = torch.randn(20, 4, 1, 32).to(dtype)
    # As the cache gives them: the filled part of something longer.
    keys, values = (torch.randn(20, 4, 17, 32).to(dtype)[:, :, :length] for _ in range(2))
    bias = torch.randn(1, 4, 1, length)
    module = AttentionByQuery(0.2)
    with torch.inference_mode():
        expected = ScaledDotProduct(0.2)(queries.float(), keys.float(), values.float(), bias)
        actual = module(queries, keys, values, bias)
        assert actual.dtype == dtype
        tolerance = 1e-6 if dtype == torch.float32 else 0.02
        torch.testing.assert_close(actual.float(), expected, rtol=0.0, atol=tolerance)
        for row in range(0, 20, 5):
            part = slice(row, row + 5)
            assert torch.equal(module(queries[part], keys[part], values[part], bias), actual[part])


@pytest.mark.parametrize("num_source", [44, 513, 908])
@pytest.mark.parametrize("num_beams", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("dtype", DTYPES)
def test_attention_of_beams_is_attention(
    dtype: torch.dtype, num_beams: int, num_source: int
) -> None:
    torch.manual_seed(0)
    queries = torch.randn(8, 16, num_beams, 64).to(dtype)
    keys, values = (torch.randn(8, 16, num_source, 64).to(dtype) for _ in range(2))
    bias = torch.randn(1, 16, 1, num_source).expand(8, -1, num_beams, -1)
    inputs = (queries, keys, values, bias)
    module = AttentionOfBeams(0.1)
    with torch.inference_mode():
        actual = module(*inputs)
        expected = ScaledDotProduct(0.1)(*(tensor.float() for tensor in inputs))
        tolerance = 1e-5 if dtype == torch.float32 else 0.02
        torch.testing.assert_close(actual.float(), expected, rtol=0.0, atol=tolerance)
        for first, count in itertools.product((0, 3, 5), (1, 2, 3)):
            rows = slice(first, first + count)
            assert torch.equal(module(*(tensor[rows] for tensor in inputs)), actual[rows])


def test_a_half_layer_rounds_its_weights_only(tmp_path: Path) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(192, 501)
    x = torch.randn(9, 5, 192)
    layer = HalfLinear(linear.weight, linear.bias)
    loaded = reload(layer, tmp_path)
    with torch.inference_mode():
        expected = x.double() @ linear.weight.half().double().T + linear.bias
        for module in (layer, loaded):
            actual = module(x)
            torch.testing.assert_close(actual, expected.float(), rtol=1e-5, atol=1e-5)
            for index in range(9):
                assert torch.equal(module(x[index : index + 1])[0], actual[index])
    assert loaded.weight.numel() == 0


def test_an_int8_layer_rounds_to_integers_and_no_further(tmp_path: Path) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(192, 100)
    x = torch.randn(9, 5, 192) * torch.logspace(-3, 3, 9)[:, None, None]
    x[4, 2] = 0.0
    layer = Int8Linear(linear.weight, linear.bias)
    loaded = reload(layer, tmp_path)
    with torch.inference_mode():
        scales = linear.weight.abs().amax(1) / 127
        weight = (linear.weight / scales[:, None]).round().double() * scales[:, None]
        row_scales = x.abs().amax(2, keepdim=True) / 127
        rounded = (x / row_scales.clamp(min=1e-12)).round().double() * row_scales
        expected = rounded @ weight.T + linear.bias
        for module in (layer, loaded):
            actual = module(x)
            assert actual.dtype == torch.bfloat16
            torch.testing.assert_close(actual.double(), expected, rtol=0.01, atol=0.02)
            for index in range(9):
                assert torch.equal(module(x[index : index + 1])[0], actual[index])
    assert loaded.weight.numel() == 0


def randomise(stem: ResNet) -> None:
    """Statistics that make every norm of the stem matter."""
    for module in stem.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2.0)


@pytest.mark.parametrize("size", [64, 96, 50])
@pytest.mark.parametrize("kind", [PackedResNet, FoldedResNet])
@torch.inference_mode()
def test_a_packed_stem_is_its_resnet(
    kind: type[PackedResNet | FoldedResNet], size: int, tmp_path: Path
) -> None:
    """Pictures of the size that it is laid out for, 64, and of others."""
    torch.manual_seed(0)
    stem = ResNet((2, 3, 2)).eval()
    randomise(stem)
    packed = kind(stem, 64, torch.float32)
    pictures = torch.randn(3, 3, size, size)
    before = pictures.clone()
    expected = stem(pictures)
    for module in (packed, reload(packed, tmp_path)):
        actual = module(pictures)
        assert actual.shape == expected.shape
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4 * float(expected.max()))
        for index in range(3):
            assert torch.equal(module(pictures[index : index + 1])[0], actual[index])
    assert torch.equal(pictures, before)


@torch.inference_mode()
def test_a_folded_stem_loses_fewer_digits_in_16_bits(tmp_path: Path) -> None:
    torch.manual_seed(0)
    stem = ResNet((3, 4, 23)).eval()
    randomise(stem)
    pictures = torch.randn(3, 3, 96, 96)
    exact = stem(pictures)
    packed, folded = (
        reload(kind(stem, 96, torch.bfloat16), tmp_path) for kind in (PackedResNet, FoldedResNet)
    )
    actual = folded(pictures)
    assert actual.dtype == torch.bfloat16
    for index in range(3):
        assert torch.equal(folded(pictures[index : index + 1])[0], actual[index])
    off, off_packed = (
        float((features - exact).square().mean().sqrt()) for features in (actual, packed(pictures))
    )
    assert off < 1.1 * off_packed
    assert off < 0.05 * float(exact.square().mean().sqrt())


def lowered_and_reloaded(
    generator: nn.Module, folder: Path, precision: str = "float32"
) -> torch.jit.ScriptModule:
    return reload(lower(generator, tiny.IMAGE_SIZE, precision), folder)


def answer(module: nn.Module, *inputs: Tensor) -> tuple[Tensor, ...]:
    with torch.inference_mode():
        outputs = module(*inputs)
    return (outputs,) if isinstance(outputs, Tensor) else outputs


def assert_close(actual: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    for ours, theirs in zip(actual, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-4)


def pictures_and_prompts() -> tuple[Tensor, Tensor]:
    """A batch of 9 whose rows have nothing in common, some of them padded."""
    return tiny.make_pictures(9), torch.tensor([PROMPTS[index % 3] for index in range(9)])


def test_lowering_leaves_the_generator_as_it_was(generator: Generator) -> None:
    before = copy.deepcopy(generator.state_dict())
    modules = list(generator.modules())
    lower(generator, tiny.IMAGE_SIZE)
    assert [id(module) for module in generator.modules()] == [id(module) for module in modules]
    for name, tensor in generator.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_a_lowered_generator_gives_the_same_answers(generator: Generator, tmp_path: Path) -> None:
    lowered = lowered_and_reloaded(generator, tmp_path)
    options = [make_options(beam_size=1 + index % 5, num_hypotheses=1) for index in range(9)]
    inputs = (*pictures_and_prompts(), *stack_options(options))
    assert_close(answer(lowered, *inputs), answer(generator, *inputs))


@pytest.mark.parametrize("beam_size", [1, 2, 3, 5])
@pytest.mark.parametrize("precision", PRECISIONS["cpu"])
def test_a_lowered_generator_gives_the_same_bits_in_every_batch(
    generator: Generator, tmp_path: Path, beam_size: int, precision: str
) -> None:
    lowered = lowered_and_reloaded(generator, tmp_path, precision)
    options = [make_options(beam_size=beam_size)] * 9
    inputs = (*pictures_and_prompts(), *stack_options(options))
    together = answer(lowered, *inputs)
    for first, count in itertools.product((0, 1, 4, 8), (1, 2, 5)):
        rows = slice(first, first + count)
        alone = answer(lowered, *(tensor[rows] for tensor in inputs))
        length = alone[0].size(2)
        assert torch.equal(alone[0], together[0][rows, :, :length])
        assert torch.equal(alone[1], together[1][rows])
        assert torch.equal(alone[2], together[2][rows, :, :length])


@pytest.mark.parametrize("precision", PRECISIONS["cpu"])
def test_lowered_texts_and_labels_are_the_same_in_every_batch(
    tiny_model: OFAModel, tmp_path: Path, precision: str
) -> None:
    source_ids = pictures_and_prompts()[1]
    statistics = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    cases: list[tuple[nn.Module, tuple[Tensor, ...]]] = [
        (
            TextGenerator(tiny_model, SearchConfig(), UNK, LABELS),
            (source_ids, *stack_options([make_options()] * 9)),
        ),
        (
            LabelScorer(tiny_model, *statistics, "prev_output", LABELS),
            (tiny.make_pictures(9), source_ids),
        ),
    ]
    for module, inputs in cases:
        lowered = lowered_and_reloaded(module.eval(), tmp_path, precision)
        together = answer(lowered, *inputs)
        if precision == "float32":
            assert_close(together, answer(module, *inputs))
        for index in range(9):
            alone = answer(lowered, *(tensor[index : index + 1] for tensor in inputs))
            for ours, theirs in zip(alone, together, strict=True):
                row = theirs[index]
                assert torch.equal(ours[0], row[..., : ours.size(-1)])


def test_unlike_beams_in_a_batch_change_last_bits_at_most(
    generator: Generator, tmp_path: Path
) -> None:
    lowered = lowered_and_reloaded(generator, tmp_path)
    options = [make_options(beam_size=1 + index % 5) for index in range(9)]
    inputs = (*pictures_and_prompts(), *stack_options(options))
    together = answer(lowered, *inputs)
    for index in range(9):
        alone = answer(lowered, *(tensor[index : index + 1] for tensor in inputs))
        _, count, length = alone[0].shape
        row = [tensor[index : index + 1, :count] for tensor in together]
        assert_close(alone, (row[0][:, :, :length], row[1], row[2][:, :, :length]))


def test_a_layer_that_has_packed_its_weight_cannot_be_saved(tmp_path: Path) -> None:
    layer = PackedLinear(torch.randn(70, 32), torch.randn(70), torch.float32)
    loaded = reload(layer, tmp_path)
    with torch.inference_mode():
        loaded(torch.randn(3, 32))
    with pytest.raises(RuntimeError):
        loaded.save(str(tmp_path / "again.pt"))


def test_a_lowered_vision_transformer_gives_the_same_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(VIT_SIZES, "vit_base", ViTSize(64, 16, 64, 2, 2))
    model = tiny.make_model(tiny.make_config(use_ofasys=True))
    generator = tiny.make_generator(model)
    lowered = lowered_and_reloaded(generator, tmp_path)
    inputs = (*pictures_and_prompts(), *stack_options([make_options()] * 9))
    assert_close(answer(lowered, *inputs), answer(generator, *inputs))


@pytest.mark.parametrize("precision", PRECISIONS["cpu"])
def test_no_plain_layer_is_left_in_a_generator(generator: Generator, precision: str) -> None:
    kinds = {type(module) for module in lower(generator, tiny.IMAGE_SIZE, precision).modules()}
    assert not kinds & {nn.Linear, nn.Conv2d}
    # Their norms are part of the convolutions where the stem is not float32.
    assert (nn.BatchNorm2d in kinds) == (precision in ("float32", "float16"))


@pytest.mark.parametrize("device", PRECISIONS)
def test_all_self_attention_is_fused(generator: Generator, device: str) -> None:
    modules = list(lower(generator, tiny.IMAGE_SIZE, "bfloat16", device).modules())
    layers = [module for module in modules if isinstance(module, (EncoderLayer, DecoderLayer))]
    assert layers
    assert {type(layer.self_attn) for layer in layers} == {FusedAttention}


@pytest.mark.parametrize("length", [1, 7])
@torch.inference_mode()
def test_a_fused_projection_is_the_three_that_it_is_made_of(length: int) -> None:
    torch.manual_seed(0)
    attention = Attention(32, 4, 2.0)
    fused = FusedAttention(attention)
    x = torch.randn(3, length, 32)
    for actual, expected in zip(fused.project(x), attention.project(x), strict=True):
        torch.testing.assert_close(actual, expected)
    for actual, expected in zip(
        fused.project_keys_values(x), attention.project_keys_values(x), strict=True
    ):
        torch.testing.assert_close(actual, expected)
    bias = torch.randn(4, length, length)
    torch.testing.assert_close(torch.jit.script(fused)(x, bias), attention(x, bias))
