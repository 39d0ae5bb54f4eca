"""A model repository that starts in a second: an ensemble over two processes that echo a text.

`ofa serve` treats it like any other, so what concerns processes only is tested with it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ofa_server.warmup import write_warmup_files

MEMBER = """
backend: "python"
max_batch_size: 1
input [ { name: "image"  data_type: TYPE_STRING  dims: [ 1 ] } ]
output [ { name: "captions"  data_type: TYPE_STRING  dims: [ 1 ] } ]
instance_group [ { kind: KIND_CPU  count: 2 } ]
"""
ENSEMBLE = """
platform: "ensemble"
max_batch_size: 1
input [ { name: "image"  data_type: TYPE_STRING  dims: [ 1 ] } ]
output [ { name: "captions"  data_type: TYPE_STRING  dims: [ 1 ] } ]
ensemble_scheduling {
  step [
    {
      model_name: "NAME_member"
      model_version: -1
      input_map { key: "image"  value: "image" }
      output_map { key: "captions"  value: "captions" }
    }
  ]
}
"""
MODEL = """
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        texts = [pb_utils.get_input_tensor_by_name(r, "image").as_numpy() for r in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("captions", t)]) for t in texts]
"""


def write_echo_repository(folder: Path, model: str = MODEL, name: str = "echo") -> Path:
    ensemble, member = folder / name, folder / f"{name}_member"
    for directory, config in ((ensemble, ENSEMBLE), (member, MEMBER)):
        (directory / "1").mkdir(parents=True)
        (directory / "config.pbtxt").write_text(config.replace("NAME", name))
    (member / "1" / "model.py").write_text(model)
    write_warmup_files(ensemble, {"image": np.array([b"hello"], dtype=np.object_)})
    return folder
