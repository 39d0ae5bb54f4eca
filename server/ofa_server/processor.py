"""What the processor of this machine is good at."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ofa_server.errors import ServerError
from ofa_server.versions import read_manifests

_CPU_INFO = Path("/proc/cpuinfo")


def default_precision(device: str) -> str:
    """The precision of an export that names none.

    AMX is made to multiply bfloat16 several times as fast as float32 (none was to be had to
    measure it), and of unseen pictures over 99 in 100 get the same caption, while no task loses
    more than 0.2 points (docs/precision.md). Everywhere else float32, whose answers are the
    reference's.

    Args:
        device: "cpu" or "cuda", that the export is for.
    """
    return "bfloat16" if device == "cpu" and "amx_bf16" in _cpu_flags() else "float32"


def multiplies_int8() -> bool:
    """Whether FBGEMM sums up products of 8-bit integers in 32 bits, which it does with AVX512-VNNI.

    Else it does in 16, where sums of two products can be cut off: wrong without a sign of it.
    """
    return "avx512_vnni" in _cpu_flags()


def check_processor(repository: Path, ensembles: Iterable[str]) -> None:
    """Looks whether this machine may run what another has exported.

    Raises:
        ServerError: a version is in int8, and this processor would answer wrongly.
    """
    if multiplies_int8():
        return
    for export, manifest in read_manifests(repository, ensembles).items():
        if manifest.get("precision") == "int8":
            raise ServerError(
                f"{export} is in int8, which needs a processor with AVX512-VNNI; on this one sums "
                "of products would be cut off"
            )


def _cpu_flags() -> set[str]:
    return set(_CPU_INFO.read_text().split()) if _CPU_INFO.is_file() else set()
