"""Small TorchScript models, each of which shows one rule of the PyTorch backend.

No postponed annotations here: TorchScript reads the real ones.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

MODELS: dict[str, tuple[type[nn.Module], str]] = {}


def served_as(config: str) -> Callable[[type[nn.Module]], type[nn.Module]]:
    """Registers a module under its own name with the rest of its config.pbtxt."""

    def register(module: type[nn.Module]) -> type[nn.Module]:
        assert module.__name__ not in MODELS
        MODELS[module.__name__] = (module, config)
        return module

    return register


def tensors(section: str, **types: str) -> str:
    """`input` or `output`, each tensor [-1]."""
    listed = ", ".join(
        f'{{ name: "{name}"  data_type: TYPE_{dtype}  dims: [ -1 ] }}'
        for name, dtype in types.items()
    )
    return f"{section} [ {listed} ]\n"


def parameter(key: str, value: str) -> str:
    return f'parameters {{ key: "{key}"  value {{ string_value: "{value}" }} }}\n'


BATCHING = "max_batch_size: 8\n"
FLOAT_IN = BATCHING + tensors("input", x="FP32")
FLOAT = FLOAT_IN + tensors("output", y="FP32")


# Taken and served ---------------------------------------------------------------------------------


@served_as(BATCHING + tensors("input", b="FP32", a="FP32") + tensors("output", y="FP32"))
class InputsByName(nn.Module):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a - b


@served_as(
    BATCHING
    + tensors("input", INPUT__1="FP32", any_prefix__0="FP32")
    + tensors("output", OUTPUT__1="FP32")
)
class InputsAndOutputsByIndex(nn.Module):
    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        return a + b, a - b


@served_as(BATCHING + tensors("input", b="FP32", INPUT__0="FP32") + tensors("output", y="FP32"))
class InputsByOrder(nn.Module):
    """One forward name beside an indexed one: neither rule fits all, so the order counts."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a - b


@served_as(FLOAT_IN + tensors("output", z="FP32", a__x="FP32"))
class OutputsByOrder(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, -x


class Both(NamedTuple):
    first: Tensor
    second: Tensor


@served_as(FLOAT_IN + tensors("output", y="FP32", z="FP32"))
class NamedTupleOut(nn.Module):
    def forward(self, x: Tensor) -> Both:
        return Both(x, x + 1)


#: In the order of EveryType's arguments.
ALL_TYPES = ("BOOL", "UINT8", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64")


@served_as(
    BATCHING
    + tensors("input", **{f"i{kind}__{i}": kind for i, kind in enumerate(ALL_TYPES)})
    + tensors("output", **{f"o{kind}__{i}": kind for i, kind in enumerate(ALL_TYPES)})
)
class EveryType(nn.Module):
    def forward(
        self,
        a: Tensor,
        b: Tensor,
        c: Tensor,
        d: Tensor,
        e: Tensor,
        f: Tensor,
        g: Tensor,
        h: Tensor,
        i: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        return a, b, c, d, e, f, g, h, i


@served_as(
    FLOAT_IN
    + tensors("output", doubled="FP32", num_rows="INT64")
    + "dynamic_batching { max_queue_delay_microseconds: 200000 }\n"
)
class Batched(nn.Module):
    """Says how many rows it was given at once."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return 2 * x, torch.full([x.size(0), 1], x.size(0))


@served_as(tensors("input", x="FP32") + tensors("output", y="FP32"))
class NotBatching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[1:]


@served_as(FLOAT)
class KeepsItsMode(nn.Module):
    """Saved in training mode: the C++ backend never calls eval(), so dropout drops all."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(p=1.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(x)


@served_as(
    FLOAT_IN
    + tensors("output", is_inference="INT64")
    + "".join(
        parameter(key, value)
        for key, value in {
            "INTRA_OP_THREAD_COUNT": "3",
            "INTER_OP_THREAD_COUNT": "1",
            "INFERENCE_MODE": "off",
            "DISABLE_OPTIMIZED_EXECUTION": "TRUE",
            "ENABLE_JIT_EXECUTOR": "1",
            "ENABLE_JIT_PROFILING": "0",
            "ENABLE_TENSOR_FUSER": "false",
            "DISABLE_CUDNN": "true",
            "SOMEBODY_ELSES": "parameter",
        }.items()
    )
)
class WithParameters(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.full([x.size(0), 1], int((x + 1).is_inference()))


@served_as(FLOAT_IN + tensors("output", is_inference="INT64"))
class WithoutParameters(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.full([x.size(0), 1], int((x + 1).is_inference()))


@served_as('default_model_filename: "another.pt"\n' + FLOAT)
class AnotherFile(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 3


# Taken, and each request refused ------------------------------------------------------------------


@served_as(FLOAT_IN + tensors("output", y="INT64"))
class WrongType(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


@served_as(FLOAT_IN + tensors("output", OUTPUT__5="FP32"))
class IndexPastTheEnd(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


@served_as(FLOAT)
class ScalarOut(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sum()


@served_as(FLOAT)
class RowsLost(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[1:]


@served_as(FLOAT)
class DictionaryOut(nn.Module):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"y": x}


@served_as(FLOAT)
class ListOut(nn.Module):
    def forward(self, x: Tensor) -> list[Tensor]:
        return [x]


@served_as(FLOAT)
class IntegerBesideATensor(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, int]:
        return x, 1


@served_as(FLOAT)
class Raises(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if bool((x > 10).any()):
            raise ValueError("too big")
        return x


# Not taken ----------------------------------------------------------------------------------------


@served_as(FLOAT)
class TwoArguments(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


@served_as(FLOAT)
class IntegerArgument(nn.Module):
    def forward(self, x: int) -> Tensor:
        return torch.tensor(x)


@served_as(
    BATCHING
    + 'input [ { name: "x"  data_type: TYPE_FP32  dims: [ -1 ]  optional: true } ]\n'
    + tensors("output", y="FP32")
)
class OptionalInput(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


def refused(name: str, config: str) -> None:
    """Registers an identity with a configuration that cannot be served."""

    class Identity(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x

    Identity.__name__ = name
    served_as(config)(Identity)


refused("UnsignedInput", BATCHING + tensors("input", x="UINT16") + tensors("output", y="FP32"))
refused("BFloat16Output", FLOAT_IN + tensors("output", y="BF16"))
refused("StringInput", BATCHING + tensors("input", x="STRING") + tensors("output", y="FP32"))
refused("OneBasedIndex", BATCHING + tensors("input", INPUT__1="FP32") + tensors("output", y="FP32"))
refused("NoBoolean", FLOAT + parameter("INFERENCE_MODE", "nope"))
refused("NoNumber", FLOAT + parameter("INTRA_OP_THREAD_COUNT", "abc"))
refused("SharedWeights", FLOAT + parameter("ENABLE_WEIGHT_SHARING", "true"))
refused("Sequences", FLOAT + "sequence_batching { }\n")
refused(
    "Ragged",
    BATCHING
    + 'input [ { name: "x"  data_type: TYPE_FP32  dims: [ -1 ]  allow_ragged_batch: true } ]\n'
    + tensors("output", y="FP32"),
)
refused(
    "BatchInput",
    FLOAT
    + 'batch_input [ { kind: BATCH_ELEMENT_COUNT  target_name: "count"  data_type: TYPE_FP32  '
    + 'source_input: "x" } ]\n',
)


@served_as(BATCHING + tensors("input", a__0="FP32", b__0="FP32") + tensors("output", y="FP32"))
class DuplicateIndex(nn.Module):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a + b


@served_as(FLOAT)
class TensorOrNone(nn.Module):
    def forward(self, x: Tensor | None) -> Tensor:
        return torch.zeros(1) if x is None else x


@served_as(FLOAT)
class DictionaryIn(nn.Module):
    def forward(self, x: dict[str, Tensor]) -> Tensor:
        return x["x"]


@served_as(FLOAT)
class NoForward(nn.Module):
    @torch.jit.export
    def predict(self, x: Tensor) -> Tensor:
        return x


def write_model(repository: Path, name: str) -> Path:
    """Writes one of `MODELS`; `Missing` has no file, `StateDict` one that is no TorchScript.

    Returns:
        Its version directory.
    """
    module, config = MODELS.get(name, (None, FLOAT))
    version = repository / name / "1"
    version.mkdir(parents=True)
    text = f'backend: "pytorch"\ninstance_group [ {{ kind: KIND_CPU }} ]\n{config}'
    (version.parent / "config.pbtxt").write_text(text)
    if module is not None:
        file = "another.pt" if "default_model_filename" in config else "model.pt"
        torch.jit.script(module()).save(str(version / file))
    elif name == "StateDict":
        torch.save({"weight": torch.zeros(1)}, version / "model.pt")
    return version
