import inspect
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ofa.checkpoint import Checkpoint, load_checkpoint
from ofa.errors import CheckpointError
from ofa.export import ExportError, export_generator, stack_rows
from ofa.lowering import PORTABLE_PRECISIONS, PRECISIONS
from ofa.options import OptionLimits
from tests.unit import tiny

LIMITS = OptionLimits(max_beam_size=5, max_length=12)


@pytest.fixture
def checkpoint(checkpoint_folder: Path) -> Checkpoint:
    return load_checkpoint(checkpoint_folder)


def test_an_exported_module_answers_as_the_eager_one(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    path = tmp_path / "model.pt"
    report = export_generator(checkpoint, path, LIMITS)
    task = checkpoint.build_task(LIMITS)
    assert report.torch_version == torch.__version__
    for name, tensor in task.preprocess(task.example_request()).items():
        assert np.array_equal(report.example_row[name], tensor)
    assert list(report.example_outputs) == [s.name for s in task.tensors.generator_outputs]
    assert (task.tokenizer.eos_id == report.example_outputs["token_ids"]).any()
    assert 0 <= report.score_difference <= 1e-4
    # Largest options, and a row of smaller ones beside it.
    rows = [tiny.make_options(beam_size=5, max_length=12), tiny.make_options()]
    inputs = (
        tiny.make_pictures(2),
        torch.tensor([[tiny.BOS, 10, 20, tiny.EOS]] * 2),
        *tiny.stack_options(rows),
    )
    with torch.inference_mode():
        expected = checkpoint.build_generator()(*inputs)
        actual = torch.jit.load(str(path))(*inputs)
    assert torch.equal(actual[0], expected[0])
    torch.testing.assert_close(actual[1], expected[1], rtol=1e-6, atol=1e-5)


def test_an_artefact_holds_the_weights_and_little_else(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    """No bias that was computed for some shape, and the embedding once."""
    path = tmp_path / "model.pt"
    export_generator(checkpoint, path, LIMITS)
    state = {id(tensor): tensor for tensor in checkpoint.model.parameters()}
    weights = sum(tensor.nbytes for tensor in state.values())
    weights += sum(tensor.nbytes for tensor in checkpoint.model.buffers())
    assert weights < path.stat().st_size < weights + 400_000
    assert torch.jit.load(str(path)).source_encoder.bias_shape == [0, 0, 0]


def test_a_narrow_artefact_is_smaller_and_scores_in_float32(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    reports = {
        name: export_generator(checkpoint, tmp_path / name, LIMITS, name)
        for name in PRECISIONS["cpu"]
    }
    for report in reports.values():
        floats = [o for o in report.example_outputs.values() if o.dtype.kind == "f"]
        assert {output.dtype for output in floats} == {np.dtype(np.float32)}
    sizes = [(tmp_path / name).stat().st_size for name in ("bfloat16", "float32")]
    # The token embedding and the position tables stay as they are.
    stem = sum(tensor.nbytes for tensor in checkpoint.model.encoder.embed_images.parameters())
    assert sizes[1] - sizes[0] > 0.45 * stem
    wide, narrow = (
        reports[name].example_outputs["hypothesis_scores"] for name in ("float32", "bfloat16")
    )
    assert not np.array_equal(wide, narrow)
    np.testing.assert_allclose(wide, narrow, atol=0.3)


@pytest.mark.parametrize("precision", PRECISIONS["cuda"])
def test_an_artefact_for_gpus_answers_where_there_is_none(
    checkpoint: Checkpoint, tmp_path: Path, precision: str
) -> None:
    report = export_generator(checkpoint, tmp_path / "gpu.pt", LIMITS, precision, "cuda")
    expected = export_generator(checkpoint, tmp_path / "cpu.pt", LIMITS)
    tolerance = {"float32": 1e-4, "float16": 0.02, "bfloat16": 0.3}[precision]
    ours, theirs = (each.example_outputs["hypothesis_scores"] for each in (report, expected))
    np.testing.assert_allclose(ours, theirs, atol=tolerance)
    assert ours.dtype == np.float32
    assert report.operators == ()
    assert namespaces(tmp_path / "gpu.pt") <= {"aten", "prim"}


def namespaces(path: Path) -> set[str]:
    """Of every operator of an archive, in every method of every module and in every block."""
    found = set()

    def walk(graph: Any) -> None:
        for node in graph.nodes():
            found.add(node.kind().partition("::")[0])
            for block in node.blocks():
                walk(block)

    for module in torch.jit.load(str(path)).modules():
        for name in module._c._method_names():
            walk(module._c._get_method(name).inlined_graph)
    return found


@pytest.mark.parametrize("precision", PORTABLE_PRECISIONS["cpu"])
def test_a_portable_artefact_has_pytorch_s_own_operators_only(
    checkpoint: Checkpoint, tmp_path: Path, precision: str
) -> None:
    own, packed = tmp_path / "portable.pt", tmp_path / "packed.pt"
    report = export_generator(checkpoint, own, LIMITS, precision, portable=True)
    expected = export_generator(checkpoint, packed, LIMITS, precision)
    assert report.operators == ()
    assert namespaces(own) <= {"aten", "prim"}
    assert "mkldnn::_linear_pointwise" in expected.operators
    assert {name.partition("::")[0] for name in expected.operators} <= namespaces(packed)
    if precision == "float32":
        ids = (each.example_outputs["token_ids"] for each in (report, expected))
        np.testing.assert_array_equal(*ids)


@pytest.mark.parametrize("device", PRECISIONS)
def test_every_foreign_operator_is_named(
    checkpoint: Checkpoint, tmp_path: Path, device: str
) -> None:
    for precision in PRECISIONS[device]:
        report = export_generator(checkpoint, tmp_path / "m.pt", LIMITS, precision, device)
        named = {name.partition("::")[0] for name in report.operators}
        assert namespaces(tmp_path / "m.pt") - {"aten", "prim"} == named


def test_limits_that_do_not_fit_are_refused_before_anything_is_written(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match="the largest beam size is 1"):
        export_generator(checkpoint, tmp_path / "model.pt", OptionLimits(1, 8))
    assert not (tmp_path / "model.pt").exists()


def load_and_spoil(name: str, change: float) -> Any:
    """`torch.jit.load`, but one weight differs from what was saved."""
    load = torch.jit.load

    def spoiled(path: str, map_location: torch.device) -> torch.jit.ScriptModule:
        module: torch.jit.ScriptModule = load(path, map_location=map_location)
        with torch.no_grad():
            dict(module.named_parameters())[name].add_(change)
        return module

    return spoiled


def test_other_tokens_are_noticed(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil = load_and_spoil("beam_decoder.decoder.layers.1.cross_attn.c_attn", -2.0)
    monkeypatch.setattr(torch.jit, "load", spoil)
    with pytest.raises(ExportError, match="answers a test picture with other tokens"):
        export_generator(checkpoint, tmp_path / "model.pt", LIMITS)


def test_other_scores_are_noticed(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil = load_and_spoil("beam_decoder.decoder.layer_norm.weight", 0.002)
    monkeypatch.setattr(torch.jit, "load", spoil)
    with pytest.raises(ExportError, match=r"scores differ by 0\.\d+; the limit is 0\.0001"):
        export_generator(checkpoint, tmp_path / "model.pt", LIMITS)


def test_scores_that_are_no_numbers_are_noticed(checkpoint: Checkpoint, tmp_path: Path) -> None:
    checkpoint.model.decoder.layer_norm.weight.data[0] = torch.nan
    scored = replace(
        checkpoint,
        task_config=replace(
            checkpoint.task_config, task="visual-entailment", prompt=None, gen_type="traverse"
        ),
        labels=("red", "blue"),
    )
    with pytest.raises(ExportError, match="scores differ by nan"):
        export_generator(scored, tmp_path / "model.pt", LIMITS)


def test_an_artefact_without_pictures_has_no_stem(checkpoint: Checkpoint, tmp_path: Path) -> None:
    texts = replace(
        checkpoint,
        task_config=replace(checkpoint.task_config, task="text-summarization", prompt=None),
    )
    for name, each in (("pictures.pt", checkpoint), ("texts.pt", texts)):
        export_generator(each, tmp_path / name, LIMITS)
    stem = checkpoint.model.encoder.embed_images.state_dict()
    saved = (tmp_path / "pictures.pt").stat().st_size - (tmp_path / "texts.pt").stat().st_size
    assert saved > sum(tensor.nbytes for tensor in stem.values())


def test_rows_become_the_generators_arguments_in_its_order(checkpoint: Checkpoint) -> None:
    task = checkpoint.build_task(LIMITS)
    example = task.example_request()
    rows = [task.preprocess({**example, "beam_size": np.array([n])}) for n in (2, 3)]
    arguments = stack_rows(rows, task)
    names = list(inspect.signature(checkpoint.build_generator().forward).parameters)
    assert names == [spec.name for spec in task.tensors.generator_inputs]
    by_name = dict(zip(names, arguments, strict=True))
    assert by_name["beam_size"].tolist() == [[2], [3]]
    assert by_name["patch_images"].shape == (2, 3, tiny.IMAGE_SIZE, tiny.IMAGE_SIZE)
    assert by_name["temperature"].dtype == torch.float32
