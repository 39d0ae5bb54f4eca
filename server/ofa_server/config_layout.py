"""How a config.pbtxt is laid out: text with comments, in columns, made to be read."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np

from ofa.tensors import Tensors, TensorSpec

_MAX_WIDTH = 100
_TRITON_TYPES = {
    np.dtype(np.object_): "TYPE_STRING",
    np.dtype(np.bool_): "TYPE_BOOL",
    np.dtype(np.uint8): "TYPE_UINT8",
    np.dtype(np.int32): "TYPE_INT32",
    np.dtype(np.int64): "TYPE_INT64",
    np.dtype(np.float32): "TYPE_FP32",
}


def comment(text: str, indent: str = "") -> str:
    """Wraps a text as comment lines."""
    lead = f"{indent}# "
    return textwrap.fill(text, _MAX_WIDTH, initial_indent=lead, subsequent_indent=lead)


def interface(
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    remarks: Mapping[str, str],
    shapes: Mapping[str, str],
) -> str:
    """The sections `input` and `output`.

    Args:
        inputs: of the model.
        outputs: of the model.
        remarks: by the name of the tensor that they are about and stand in front of.
        shapes: by name, for tensors whose dimensions vary: `[K, T]`.
    """
    width = max(len(spec.name) for spec in (*inputs, *outputs))
    return "\n".join(
        "\n".join([f"{section} [", *_declarations(specs, width, remarks, shapes), "]"])
        for section, specs in (("input", inputs), ("output", outputs))
    )


def _declarations(
    specs: Sequence[TensorSpec], width: int, remarks: Mapping[str, str], shapes: Mapping[str, str]
) -> list[str]:
    declared = [f"{_declaration(spec, width)}," for spec in specs]
    declared[-1] = declared[-1].removesuffix(",")
    column = max(len(declaration) for declaration in declared)
    lines = []
    for spec, declaration in zip(specs, declared, strict=True):
        if spec.name in remarks:
            lines.append(comment(remarks[spec.name], indent="  "))
        if -1 in spec.dims and spec.name in shapes:
            lines.append(f"{declaration:<{column}}  # {shapes[spec.name]}")
        else:
            lines.append(declaration)
    return lines


def _declaration(spec: TensorSpec, width: int) -> str:
    optional = "  optional: true" if spec.optional else ""
    return (
        f"  {{ name: {_quoted(spec.name, width)} "
        f"data_type: {_TRITON_TYPES[np.dtype(spec.dtype)]:<11}"
        f"  dims: [ {', '.join(map(str, spec.dims))} ]{optional} }}"
    )


def step(
    model_name: str,
    version: int,
    inputs: Mapping[str, str],
    outputs: Mapping[str, str],
    width: int,
    remark: str,
) -> str:
    """One step of an ensemble.

    Args:
        model_name: which model runs.
        version: of it.
        inputs: tensor names in the ensemble by those in the model.
        outputs: the same for what the model gives.
        width: of the longest name in the model.
        remark: about outputs that have another name in the ensemble, in front of the first.
    """
    lines = [f'      model_name: "{model_name}"', f"      model_version: {version}"]
    lines += [_map_line("input_map", *names, width) for names in inputs.items()]
    is_first = True
    for name, in_ensemble in outputs.items():
        if is_first and name != in_ensemble:
            lines.append(comment(remark, indent="      "))
            is_first = False
        lines.append(_map_line("output_map", name, in_ensemble, width))
    return "\n".join(["    {", *lines, "    }"])


def _map_line(field: str, name: str, in_ensemble: str, width: int) -> str:
    return f'      {field} {{ key: {_quoted(name, width)} value: "{in_ensemble}" }}'


def _quoted(name: str, width: int) -> str:
    return f'"{name}"'.ljust(width + 2)


def warmup_block(tensors: Tensors) -> str:
    """The `model_warmup` of a member for the files that `ofa_server.warmup` writes."""
    inputs = "".join(
        f'  inputs {{ key: "{name}" value {{ data_type: {_TRITON_TYPES[tensor.dtype]}'
        f'  dims: {list(tensor.shape)}  input_data_file: "{name}" }} }}\n'
        for name, tensor in tensors.items()
    )
    # TorchScript optimises in its first two runs.
    return f'\nmodel_warmup {{\n  name: "example"\n  batch_size: 1\n  count: 2\n{inputs}}}\n'
