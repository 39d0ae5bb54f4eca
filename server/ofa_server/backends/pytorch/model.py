"""Stand-in for Triton's PyTorch backend, which the server from PyPI does not carry.

Where a backend's folder holds no shared library, Triton runs its `model.py` for every model that
names that backend. So the same config.pbtxt and model.pt are served here and, by the C++ backend,
in NVIDIA's image. It runs `torch.jit.load(model.pt)` and nothing of OFA: that package need not be
installed. `pytorch_config` says which models are taken.

Meant differences from the C++ backend, apart from what that one gets wrong or cannot do: an input
index that it crashes on is refused; an output whose first dimension is not the batch is an error
for the whole batch instead of wrong rows; a client sees the first and last line of a TorchScript
error, the log all of it; thread and JIT settings stay within a model, because a model is a process;
so do those of the allocator.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import triton_python_backend_utils as pb_utils
from allocator import keep_blocks_apart, pool_blocks
from pytorch_config import TORCH_DTYPES, ConfigError, Output, PytorchConfig, read_config

# Who reads the log can do nothing about how an exported network hands its 8-bit weights to FBGEMM.
warnings.filterwarnings("ignore", message="torch.quantize_per_tensor")

# How the C++ backend names what it finds in a tuple in place of a tensor.
_TORCHSCRIPT_NAMES = {int: "Int", type(None): "None", tuple: "Tuple", dict: "GenericDict"}


class OutputError(Exception):
    """An output that cannot be sent; `code` is the TritonError code of the C++ backend."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class TritonPythonModel:
    """One instance of a TorchScript model."""

    @staticmethod
    def auto_complete_config(model_config: pb_utils.ModelConfig) -> pb_utils.ModelConfig:
        """Leaves the configuration alone: the C++ backend completes nothing either."""
        return model_config

    def initialize(self, args: dict[str, str]) -> None:
        """Loads model.pt and checks the configuration against it.

        Raises:
            pb_utils.TritonModelException: if the model cannot be served; Triton then reports it
                as unavailable with this message.
        """
        config = json.loads(args["model_config"])
        path = Path(pb_utils.get_model_dir()) / (config["default_model_filename"] or "model.pt")
        if not path.is_file():
            raise pb_utils.TritonModelException(
                f"unable to find '{path}' for model instance '{args['model_instance_name']}'"
            )
        self._device = _device(args["model_instance_kind"], args["model_instance_device_id"])
        keep_blocks_apart()
        self._has_run = False
        try:
            # The mode of the module is the exporter's: the C++ backend never calls eval() either.
            self._module = torch.jit.load(path, map_location=self._device)
            self._config = read_config(config, _forward_arguments(self._module))
        except ConfigError as error:
            raise pb_utils.TritonModelException(str(error)) from None
        except RuntimeError as error:
            raise pb_utils.TritonModelException(
                f"failed to load model '{config['name']}': {error}"
            ) from None
        _apply_settings(self._config)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Runs all requests as one batch, or one by one where the model does not batch."""
        if self._config.max_batch_size > 0:
            return self._execute_batch(requests)
        return [response for request in requests for response in self._execute_batch([request])]

    def _execute_batch(self, requests: list[Any]) -> list[Any]:
        inputs = [self._input_tensors(request) for request in requests]
        rows = [tensors[0].shape[0] for tensors in inputs]
        try:
            outputs = self._run(
                [torch.cat(parts) for parts in zip(*inputs, strict=True)], sum(rows)
            )
        except OutputError as error:
            return _same_error(requests, str(error), error.code)
        except Exception as error:  # noqa: BLE001 - whatever a model raises fails its batch only
            pb_utils.Logger.log_error(f"model '{self._config.name}': {error}")
            message = f"PyTorch execute failure: {_first_and_last_line(error)}"
            return _same_error(requests, message, pb_utils.TritonError.INTERNAL)
        if self._config.max_batch_size == 0:
            return [_respond(requests[0], outputs)]
        parts = {name: tensor.split(rows) for name, tensor in outputs.items()}
        return [
            _respond(request, {name: tensors[index] for name, tensors in parts.items()})
            for index, request in enumerate(requests)
        ]

    def _input_tensors(self, request: Any) -> list[torch.Tensor]:  # noqa: ANN401 - pb_utils type
        return [
            torch.from_numpy(pb_utils.get_input_tensor_by_name(request, name).as_numpy())
            for name in self._config.inputs
        ]

    def _run(self, inputs: Sequence[torch.Tensor], num_rows: int) -> dict[str, torch.Tensor]:
        inference_mode = self._config.switches.get("INFERENCE_MODE", True)
        with torch.no_grad(), torch.inference_mode(inference_mode):
            returned = _as_tuple(self._module(*(tensor.to(self._device) for tensor in inputs)))
        if not self._has_run:
            # The first call, a warm-up, has laid the weights out.
            self._has_run = True
            pool_blocks()
        rows_expected = num_rows if self._config.max_batch_size > 0 else None
        return {
            output.name: _checked(output, returned, rows_expected).cpu()
            for output in self._config.outputs
        }


def _device(kind: str, device_id: str) -> torch.device:
    # Triton sees a GPU that a CPU build of torch cannot use: serve from the CPU then.
    if kind == "GPU" and torch.cuda.is_available():
        return torch.device("cuda", int(device_id))
    return torch.device("cpu")


def _forward_arguments(module: torch.jit.ScriptModule) -> list[tuple[str, str]]:
    if not module._c._has_method("forward"):
        raise ConfigError("the model has no method forward")
    schema = module._c._get_method("forward").schema
    return [(argument.name, argument.type.str()) for argument in schema.arguments[1:]]


def _apply_settings(config: PytorchConfig) -> None:
    """Sets what is set per process; the C++ backend leaves the rest at torch's defaults too."""
    setters = {
        "ENABLE_JIT_EXECUTOR": torch._C._jit_set_profiling_executor,
        "ENABLE_JIT_PROFILING": torch._C._jit_set_profiling_mode,
        "ENABLE_TENSOR_FUSER": torch._C._jit_set_texpr_fuser_enabled,
        "INTRA_OP_THREAD_COUNT": torch.set_num_threads,
        "INTER_OP_THREAD_COUNT": torch.set_num_interop_threads,
        "DISABLE_OPTIMIZED_EXECUTION": lambda off: torch._C._set_graph_executor_optimize(not off),
    }
    for key, value in {**config.switches, **config.thread_counts}.items():
        if key in setters:
            setters[key](value)


def _as_tuple(returned: Any) -> tuple[torch.Tensor, ...]:  # noqa: ANN401
    """Checks what `forward` returned: a tensor, or a tuple of nothing but tensors."""
    if isinstance(returned, list) and returned and isinstance(returned[0], torch.Tensor):
        raise TypeError("output must be of type Tensor or List[str], received List[Tensor]")
    outputs = (returned,) if isinstance(returned, torch.Tensor) else returned
    if not isinstance(outputs, tuple):
        raise TypeError(
            "output must be of type Tensor, List[str] or Tuple containing one of these two types. "
            "It should not be a List / Dictionary of Tensors or a Scalar"
        )
    for value in outputs:
        if not isinstance(value, torch.Tensor):
            name = _TORCHSCRIPT_NAMES.get(type(value), type(value).__name__)
            raise TypeError(f"Expected Tensor but got {name}")
    return outputs


def _checked(
    output: Output, returned: Sequence[torch.Tensor], num_rows: int | None
) -> torch.Tensor:
    invalid = pb_utils.TritonError.INVALID_ARG
    if output.index >= len(returned):
        raise OutputError(
            f"The output {output.name} in the model configuration refers to an output index which "
            f"doesn't exist. This model has {len(returned)} outputs",
            invalid,
        )
    tensor = returned[output.index]
    if tensor.dtype != TORCH_DTYPES[output.data_type]:
        provided = {dtype: name for name, dtype in TORCH_DTYPES.items()}.get(
            tensor.dtype, "TYPE_<invalid>"
        )
        raise OutputError(
            f"configuration expects datatype {output.data_type} for output '{output.name}', "
            f"model provides {provided}",
            invalid,
        )
    if tensor.dim() == 0:
        raise OutputError(f"output '{output.name}' is a scalar which is not supported.", invalid)
    if num_rows is not None and tensor.shape[0] != num_rows:
        bound = "at least" if tensor.shape[0] < num_rows else "at most"
        raise OutputError(
            f"failed to split the output tensor '{output.name}' in responses: expected batch size "
            f"of {bound} {num_rows} in model output, got {tensor.shape[0]}",
            pb_utils.TritonError.UNSUPPORTED,
        )
    return tensor


def _respond(request: Any, outputs: Mapping[str, torch.Tensor]) -> Any:  # noqa: ANN401
    wanted = request.requested_output_names()
    return pb_utils.InferenceResponse(
        [
            pb_utils.Tensor(name, tensor.contiguous().numpy())
            for name, tensor in outputs.items()
            if name in wanted
        ]
    )


def _same_error(requests: list[Any], message: str, code: int) -> list[Any]:
    error = pb_utils.TritonError(message, code)
    return [pb_utils.InferenceResponse(error=error) for _ in requests]


def _first_and_last_line(error: Exception) -> str:
    """Leaves out the traceback between them, which names files of the exporting machine."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return " ".join(dict.fromkeys([lines[0], lines[-1]])) if lines else type(error).__name__
