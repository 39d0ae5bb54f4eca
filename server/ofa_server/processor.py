"""What the processor of this machine is good at."""

from __future__ import annotations

from pathlib import Path

_CPU_INFO = Path("/proc/cpuinfo")


def default_precision(device: str) -> str:
    """The precision of an export that names none.

    Where a processor has AMX, bfloat16 takes half of float32's time or less, and captions are
    the same in 99 of 100 cases and more, with no task's accuracy 0.2 points below
    (docs/precision.md). Everywhere else float32, whose answers are the reference's.

    Args:
        device: "cpu" or "cuda", that the export is for.
    """
    has_amx = (
        device == "cpu" and _CPU_INFO.is_file() and "amx_bf16" in _CPU_INFO.read_text().split()
    )
    return "bfloat16" if has_amx else "float32"
