"""Holds preprocess back while enough rows wait for the generator.

A picture that cannot be answered in time should be refused before it is decoded. Triton refuses a
request at once, without any Python, when the queue of the ensemble's first member is full; but it
fills only if that member takes no more than the next one can use. So preprocess waits here before
it takes a request, while the generator has its fill (docs/decisions/0012).

How many rows wait, Triton's metrics say. Nothing is counted here over time, so nothing can go
wrong with requests that time out, are cancelled or fail.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

#: Where a stub finds the metrics; `ofa serve` sets it.
METRICS_URL = "OFA_METRICS_URL"
#: Triton's own default.
_DEFAULT_URL = "http://127.0.0.1:8002/metrics"
#: What preprocess' config.pbtxt says: which model has the rows that wait, and how many may, by the
#: device of that model. It has its instances on each GPU, however many there are.
GENERATOR_PARAMETER = "generator"
MAX_WAITING_PARAMETERS = {"cpu": "max_waiting_rows", "cuda": "max_waiting_rows_per_gpu"}

_VISIBLE_DEVICES = "CUDA_VISIBLE_DEVICES"
_GAUGE = "nv_inference_pending_request_count"
_READ_TIMEOUT_S = 1.0
#: Seconds between two looks, as a share of what the wait has lasted or, if it was longer, of what
#: the one before has. Waits last about as long as batches, so a generator whose batches are long is
#: looked at rarely, and never so late that it runs out of rows.
_MIN_WAIT_S, _MAX_WAIT_S, _WAIT_SHARE = 0.01, 0.2, 0.5


class Gate:
    """Lets requests pass one by one as long as less than a limit of rows waits behind it.

    It looks once for as many requests as may pass then, so a server with little to do pays next to
    nothing. Several processes pass requests to the same generator, and each takes its share of what
    is free. As their looks are not simultaneous, at worst almost twice the limit can wait.

    Args:
        count_waiting: returns the number of rows that wait, None if it cannot be known now: then
            requests pass.
        limit: rows that may wait.
        num_gates: processes that pass requests to the same generator, this one included.
        sleep: waits for a number of seconds.
    """

    def __init__(
        self,
        count_waiting: Callable[[], int | None],
        limit: int,
        num_gates: int,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._count_waiting = count_waiting
        self._limit = limit
        self._num_gates = num_gates
        self._sleep = sleep
        self._budget = 0
        self._last_wait = 0.0

    def wait(self) -> None:
        """Waits until one more request may pass."""
        waited = 0.0
        while not self._budget:
            free = self._limit - (self._count_waiting() or 0)
            # Rounded up: a place that is free is never left empty.
            self._budget = max(0, -(-free // self._num_gates))
            if not self._budget:
                share = _WAIT_SHARE * max(waited, self._last_wait)
                pause = min(max(share, _MIN_WAIT_S), _MAX_WAIT_S)
                self._sleep(pause)
                waited += pause
        if waited:
            self._last_wait = waited
        self._budget -= 1


class WaitingRows:
    """Reads from Triton's metrics how many requests wait for a model, over all of its versions.

    Args:
        url: of the metrics.
        model: its name.
    """

    def __init__(self, url: str, model: str) -> None:
        parts = urlsplit(url)
        self._path = parts.path
        self._connection = http.client.HTTPConnection(parts.netloc, timeout=_READ_TIMEOUT_S)
        self._pattern = re.compile(
            rf'^{_GAUGE}\{{(?:[^}}]*,)?model="{re.escape(model)}"[^}}]*\}} (\S+)$', re.MULTILINE
        )

    def __call__(self) -> int | None:
        """Returns the number, None where nobody answers or the model is not known."""
        try:
            # The connection is kept, and made again after a failure.
            self._connection.request("GET", self._path)
            page = self._connection.getresponse().read().decode()
        except (OSError, http.client.HTTPException):
            self._connection.close()
            return None
        counts = self._pattern.findall(page)
        return sum(int(float(count)) for count in counts) if counts else None

    def close(self) -> None:
        """Closes the connection, where it should not last as long as the process."""
        self._connection.close()


def find_gate(model_config: str) -> Gate | None:
    """Makes the gate of a model.

    Args:
        model_config: of preprocess, as Triton hands it to `initialize`: JSON.

    Returns:
        None where the configuration sets no limit (an export of an earlier version).
    """
    config = json.loads(model_config)
    parameters = {
        name: value["string_value"] for name, value in config.get("parameters", {}).items()
    }
    limit = max_waiting_rows(parameters)
    if limit is None:
        return None
    url = os.environ.get(METRICS_URL, _DEFAULT_URL)
    num_gates = sum(group["count"] for group in config["instance_group"])
    return Gate(WaitingRows(url, parameters[GENERATOR_PARAMETER]), limit, num_gates)


def max_waiting_rows(parameters: Mapping[str, str]) -> int | None:
    """How many rows may wait by what a configuration says, None if it sets no limit."""
    if limit := parameters.get(MAX_WAITING_PARAMETERS["cpu"]):
        return int(limit)
    if limit := parameters.get(MAX_WAITING_PARAMETERS["cuda"]):
        return int(limit) * num_gpus()
    return None


def num_gpus(devices: Path = Path("/dev")) -> int:
    """How many GPUs Triton sees, at least one.

    Asked of the environment and of the device files, because preprocess has no CUDA.

    Args:
        devices: folder of the device files.
    """
    visible = os.environ.get(_VISIBLE_DEVICES, "")
    return max(1, len(visible.split(",")) if visible else len([*devices.glob("nvidia[0-9]*")]))
