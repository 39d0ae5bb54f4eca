"""Writes the configurations of a task's four models from the list of its tensors.

The files in `model_repository/` are those of captioning; after a change here or in its tensors they
are rewritten by

    python -m ofa_server.config_writer checkpoints/ofa-emoji-tiny_en model_repository
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path

import numpy as np

from ofa.tasks.task import TaskTensors
from ofa.tensors import TensorSpec
from ofa_server.admission import GENERATOR_PARAMETER, MAX_WAITING_PARAMETERS
from ofa_server.config_layout import comment, interface, step

#: Letters for the dimensions of the tensors that stay inside.
_INNER_SHAPES = {
    "patch_images": "[3, S, S]",
    "source_ids": "[L]",
    "token_ids": "[K, T]",
    "hypothesis_scores": "[K]",
    "hypothesis_log_probs": "[K, T]",
    "label_log_probs": "[N]",
    "pixels": "[K, 3, S, S]",
    "image_scores": "[K]",
    "image_log_probs": "[K]",
}

_ENSEMBLE = """\
{summary}
#
# Written by ofa_server.config_writer; no file sets `name`, so Triton takes the folder's.

platform: "ensemble"

# The version of the checkpoint that answers. The steps name the same one of every member, so no
# answer mixes two. `ofa switch` rewrites the numbers (docs/versions.md).
version_policy: {{ specific {{ versions: [ {version} ] }} }}

# One row a request. Batches are formed by the generator's scheduler out of many requests, which
# keeps answers of different lengths apart.
max_batch_size: 1

{tensors}

# The same tensors get the same answer, so a server with a cache may keep it (`ofa serve
# --response-cache-bytes`). Without one this says nothing.
response_cache {{ enable: true }}

ensemble_scheduling {{
  step [
{steps}
  ]
}}
"""

_PREPROCESS = """\
# A request -> one row for the generator, with every option filled in. All checks of a request live
# here: one error inside the generator would fail every request of its batch.

backend: "python"

{versions}

# One row a request: any other batch dimension is refused by Triton as INVALID_ARGUMENT.
max_batch_size: 1

{tensors}

{instances}

{queue}
dynamic_batching {{
  default_queue_policy {{
    max_queue_size: 64
    # A request can ask for a shorter time by its own timeout, never for a longer one.
    default_timeout_microseconds: 60000000
    allow_timeout_override: true
  }}
}}

{admission}
{parameters}
"""

_GENERATOR = """\
# The network and its search as TorchScript. Inputs are matched to forward's arguments by name,
# outputs to the returned tuple by their order here.

backend: "pytorch"

{versions}

max_batch_size: {max_batch_size}

{tensors}

{instances}

# While a batch runs, the next one gathers. When nothing runs there is no waiting for neighbours: it
# costs a lone request what it lasts and gains nothing under load. Preprocess sends no more rows
# than are useful (its max_waiting_rows), so no bound is needed here, and none is set: with a bound
# or a time-out on its queue, Triton forms a batch only when the one before has ended and another
# request arrives, and the generator stands still meanwhile (docs/decisions/0012).
dynamic_batching {{ }}
"""

_POSTPROCESS = """\
# One row of what the generator found -> the answer to its request.

backend: "python"

{versions}

max_batch_size: 1

{tensors}

# Little work beside the generator's. One process is enough.
instance_group [ {{ kind: KIND_CPU  count: 1 }} ]

# No dynamic batching here: behind its scheduler answers waited 130 ms while the next batch was
# being generated, without it 4 ms (captions, 16 clients on two cores: 64 against 101 pictures a
# second). What can arrive is bounded by preprocess' queue.
"""

_VERSIONS = """\
# Every version in this folder is loaded. The ensemble says which one answers.
version_policy: { all {} }"""

#: Rows that the generator answers at once.
_MAX_BATCH_SIZE = 8
#: Batches that may wait for it: one that is taken as soon as another ends, and one to take its
#: place.
_MAX_WAITING_BATCHES = 2


_PICTURE_INSTANCES = """\
# Decoding holds one core; two processes keep a batch coming while another is being generated.
instance_group [ { kind: KIND_CPU  count: 2 } ]"""
_TEXT_INSTANCES = """\
# Little work: splitting a text into tokens. One process is enough.
instance_group [ { kind: KIND_CPU  count: 1 } ]"""

_GENERATOR_INSTANCES = {
    "cpu": """\
# The instances share the cores, and each has weights of its own (`ofa export --instances`,
# docs/serving.md). They are laid out for a CPU.
instance_group [ {{ kind: KIND_CPU  count: {instances} }} ]""",
    "cuda": """\
# One instance on every GPU: a second one beside it would only fight for it.
instance_group [ {{ kind: KIND_GPU  count: {instances} }} ]""",
}

_QUEUE = "Only the dynamic batcher can bound a queue (nothing is batched at a batch size of 1)."
_PICTURE_QUEUE = (
    "A picture waits here encoded, at most 10 MiB each: 64 of them bound the memory, the next is "
    "UNAVAILABLE without having been decoded. So 64 clients that wait for one answer each are "
    "never refused."
)
_TEXT_QUEUE = (
    "Beyond 64 waiting texts the next is UNAVAILABLE, so 64 clients that wait for one answer each "
    "are never refused."
)
_ADMISSION = {
    "cpu": "While as many rows wait for the generator, further requests wait here: two full "
    "batches for each of its instances.",
    "cuda": "While as many rows for each GPU wait for the generator, further requests wait here: "
    "two full batches for each of its instances.",
}


def write_configs(
    tensors: TaskTensors,
    members: Mapping[str, str],
    device: str = "cpu",
    version: int = 1,
    instances: int = 1,
) -> dict[str, str]:
    """Writes the four configurations of a task.

    Args:
        tensors: what travels between client, preprocess, generator and postprocess.
        members: under which name the ensemble finds `preprocess`, `generator` and `postprocess`.
        device: "cpu" or "cuda", that the generator is made for.
        version: of the members, that the ensemble answers with.
        instances: of the generator; on a GPU, for each one.

    Returns:
        The text of config.pbtxt for `ensemble` and each member.
    """
    return {
        "ensemble": _ensemble(tensors, members, version),
        "preprocess": _preprocess(tensors, members["generator"], device, instances),
        "generator": _generator(tensors, device, instances),
        "postprocess": _postprocess(tensors),
    }


def _ensemble(tensors: TaskTensors, members: Mapping[str, str], version: int) -> str:
    shapes = _answer_shapes(tensors)
    results, *_ = answer = [spec.name for spec in tensors.answer]
    longest = "; T is the longest of them in tokens, EOS included" * ("[n, T]" in shapes.values())
    options = [spec.name for spec in tensors.request if _is_option(spec)]
    content = [
        f"[{spec.name}]" if spec.optional else spec.name
        for spec in tensors.request
        if not _is_option(spec)
    ]
    return _ENSEMBLE.format(
        summary=comment(
            f"The public model: {', '.join(content)} -> {', '.join(answer)}. This file is the map "
            "of the server; its tensor names are the words used everywhere else. docs/protocol.md "
            "describes the inputs and outputs."
        ),
        tensors=interface(
            tensors.request,
            tensors.answer,
            remarks={
                options[0]: "Options are tensors, not request parameters: only tensors are batched "
                "and hashed for caching. One that is left out takes its default, mostly the "
                "checkpoint's own.",
                results: f"n {results}, best first{longest}.",
            },
            shapes=shapes,
        ),
        steps=_steps(tensors, members, version),
        version=version,
    )


def _preprocess(tensors: TaskTensors, generator: str, device: str, generator_instances: int) -> str:
    has_picture = any(spec.name == "image" for spec in tensors.request)
    remark = (
        "uint8, so that 0.7 MB and not 2.8 MB go from process to process; the generator "
        "normalises. The side is the checkpoint's, so it is not written here."
    )
    return _PREPROCESS.format(
        versions=_VERSIONS,
        tensors=interface(
            tensors.request, _row(tensors), {"patch_images": remark}, shapes=_INNER_SHAPES
        ),
        instances=_PICTURE_INSTANCES if has_picture else _TEXT_INSTANCES,
        queue=comment(f"{_QUEUE} {_PICTURE_QUEUE if has_picture else _TEXT_QUEUE}"),
        admission=comment(_ADMISSION[device]),
        parameters=_parameters(
            {
                GENERATOR_PARAMETER: generator,
                # On GPUs the server has as many of these instances as it finds devices.
                MAX_WAITING_PARAMETERS[device]: str(
                    _MAX_WAITING_BATCHES * _MAX_BATCH_SIZE * generator_instances
                ),
            }
        ),
    )


def _parameters(values: Mapping[str, str]) -> str:
    width = max(map(len, values))
    return "\n".join(
        f'parameters {{ key: "{key}"{" " * (width - len(key))}'
        f'  value {{ string_value: "{value}" }} }}'
        for key, value in values.items()
    )


def _generator(tensors: TaskTensors, device: str, instances: int) -> str:
    several = (
        "K is the batch's largest num_hypotheses; postprocess takes the first ones that a row "
        "asked for."
    )
    return _GENERATOR.format(
        versions=_VERSIONS,
        tensors=interface(
            tensors.generator_inputs,
            tensors.generator_outputs,
            remarks={
                "num_hypotheses": "This backend takes no optional inputs: preprocess fills every "
                "option in. A row keeps its own.",
                "token_ids": several,
                "pixels": several,
            },
            shapes=_INNER_SHAPES,
        ),
        max_batch_size=_MAX_BATCH_SIZE,
        instances=_GENERATOR_INSTANCES[device].format(instances=instances),
    )


def _postprocess(tensors: TaskTensors) -> str:
    remark = (
        "As many results as the row asked for; the generator can have found more, for the sake of "
        "a neighbour in its batch."
    )
    return _POSTPROCESS.format(
        versions=_VERSIONS,
        tensors=interface(
            _unique(tensors.generator_outputs, tensors.kept),
            tensors.answer,
            {"num_hypotheses": remark},
            shapes={**_INNER_SHAPES, **_answer_shapes(tensors)},
        ),
    )


def _row(tensors: TaskTensors) -> tuple[TensorSpec, ...]:
    """What leaves preprocess."""
    return _unique(tensors.generator_inputs, tensors.kept)


def _unique(*groups: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
    return tuple({spec.name: spec for group in groups for spec in group}.values())


def _is_option(spec: TensorSpec) -> bool:
    """Pictures and texts are bytes; numbers and switches say what to do with them."""
    return spec.dtype is not np.object_


def _answer_shapes(tensors: TaskTensors) -> dict[str, str]:
    """`[n]`, `[n, T]`, or `[n, 4]`: one row a result."""
    return {
        spec.name: f"[{', '.join(['n', *('T' if d < 0 else str(d) for d in spec.dims[1:])])}]"
        for spec in tensors.answer
    }


def _steps(tensors: TaskTensors, members: Mapping[str, str], version: int) -> str:
    public = {spec.name for spec in (*tensors.request, *tensors.answer)}
    row = _inner_names(_row(tensors), "resolved", public)
    found = _inner_names(tensors.generator_outputs, "found", public)
    steps = (
        ("preprocess", _identity(tensors.request), row),
        (
            "generator",
            {spec.name: row[spec.name] for spec in tensors.generator_inputs},
            found,
        ),
        (
            "postprocess",
            found | {spec.name: row[spec.name] for spec in tensors.kept},
            _identity(tensors.answer),
        ),
    )
    width = max(len(name) for _, inputs, outputs in steps for name in (*inputs, *outputs))
    remark = (
        "All tensor names of an ensemble share one scope, so what a member makes of an option or "
        "an answer cannot have the name that the client knows."
    )
    return ",\n".join(
        step(members[member], version, inputs, outputs, width, remark)
        for member, inputs, outputs in steps
    )


def _inner_names(
    specs: Sequence[TensorSpec], prefix: str, public: AbstractSet[str]
) -> dict[str, str]:
    """Names in the ensemble by names in the member that makes the tensors."""
    return {
        spec.name: f"{prefix}_{spec.name}" if spec.name in public else spec.name for spec in specs
    }


def _identity(specs: Sequence[TensorSpec]) -> dict[str, str]:
    return {spec.name: spec.name for spec in specs}


def main(arguments: Sequence[str] | None = None) -> None:
    """Rewrites the configurations of a repository under plain names."""
    from ofa.checkpoint import load_checkpoint

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("repository", type=Path)
    parsed = parser.parse_args(arguments)
    checkpoint = load_checkpoint(parsed.checkpoint)
    task = checkpoint.build_task(checkpoint.default_limits())
    plain = {member: member for member in ("preprocess", "generator", "postprocess")}
    for model, config in write_configs(task.tensors, plain).items():
        folder = task.ensemble if model == "ensemble" else model
        (parsed.repository / folder / "config.pbtxt").write_text(config, "utf-8")


if __name__ == "__main__":
    main()
