"""How many threads the models run: the one place that says so.

Nothing else sets a number, unless a generator's configuration does (`INTRA_OP_THREAD_COUNT`). The
libraries read these variables when they start, in Triton's Python stubs as in NVIDIA's image.
docs/serving.md says what was measured.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from ofa_server.model_configs import ModelConfig, num_instances

#: A container's limit (cgroup v2): microseconds that may be used, or "max", and out of how many.
_CPU_MAX = Path("/sys/fs/cgroup/cpu.max")


def thread_variables(
    environment: Mapping[str, str], configs: Mapping[str, ModelConfig]
) -> dict[str, str]:
    """Variables for Triton and its stubs.

    Args:
        environment: what it sets already stays as it is.
        configs: the models by name.
    """
    generators = [config for config in configs.values() if config.backend == "pytorch"]
    most_instances = max(map(num_instances, generators), default=1)
    defaults = {
        # The instances of a generator, which is where the time is spent, share all cores.
        "OMP_NUM_THREADS": str(max(1, usable_cores() // most_instances)),
        # Turns that a thread spins for its neighbours before it sleeps. By default it spins for
        # milliseconds: alone that is no faster, and beside another busy process on the same cores
        # each spins for a thread that the other keeps from running.
        "GOMP_SPINCOUNT": "1000",
        # numpy in preprocess and postprocess, and the tokenizer, would start as many threads again.
        "OPENBLAS_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    return {name: environment.get(name, value) for name, value in defaults.items()}


def usable_cores() -> int:
    """Cores that this process may run on: at least 1.

    A container's limit is a share of time, which `os.cpu_count` does not know: with 2 of 64 cores
    allowed, 64 threads would spend the share waiting for one another.
    """
    allowed = len(os.sched_getaffinity(0))
    quota, period = _CPU_MAX.read_text().split() if _CPU_MAX.is_file() else ("max", "1")
    return allowed if quota == "max" else max(1, min(allowed, int(quota) // int(period)))
