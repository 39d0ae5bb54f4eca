"""What do our own figures cost a request?

Everything that preprocess and postprocess note about one answered request. Telling Triton happens
once a second in a thread of its own and is not part of it; a stand-in takes Triton's place.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ofa.tasks.task import STAGES

_NUM_REQUESTS = 20_000
_NUM_TURNS = 7


def _microseconds(note: Callable[[], None]) -> float:
    """Median over the turns of what one call takes."""
    turns = []
    for _ in range(_NUM_TURNS):
        start = time.perf_counter()
        for _ in range(_NUM_REQUESTS):
            note()
        turns.append((time.perf_counter() - start) / _NUM_REQUESTS * 1e6)
    return statistics.median(turns)


def _stand_in() -> Any:  # noqa: ANN401
    """Takes figures and does nothing with them."""

    def ignore(*_: object, **__: object) -> None:
        pass

    metric = SimpleNamespace(increment=ignore, observe=ignore, set=ignore)
    family = SimpleNamespace(Metric=lambda **_: metric)

    def make_family(**_: object) -> Any:  # noqa: ANN401
        return family

    for kind in ("COUNTER", "GAUGE", "HISTOGRAM"):
        setattr(make_family, kind, kind)
    return SimpleNamespace(MetricFamily=make_family)


def main() -> None:
    """Prints the microseconds of each member."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    sys.modules["triton_python_backend_utils"] = _stand_in()
    from ofa_server.model_metrics import PostprocessMetrics, PreprocessMetrics

    with tempfile.TemporaryDirectory() as folder:
        arguments = {"model_name": "caption_preprocess", "model_version": "1"}
        preprocess = PreprocessMetrics(arguments, Path(folder))
        postprocess = PostprocessMetrics(arguments | {"model_name": "caption_postprocess"})

    def note_preprocess() -> None:
        with preprocess.admission():
            pass
        for stage in STAGES:
            # As `Task` does around each of its stages.
            start = time.perf_counter()
            preprocess.add_stage(stage, time.perf_counter() - start)

    print("| member | microseconds a request |")
    print("| --- | --- |")
    print(f"| preprocess | {_microseconds(note_preprocess):.1f} |")
    print(f"| postprocess | {_microseconds(lambda: postprocess.answered(9)):.1f} |")
    preprocess.close()
    postprocess.close()


if __name__ == "__main__":
    main()
