from pathlib import Path

import pytest

from ofa_server import processor


@pytest.mark.parametrize(
    ("flags", "device", "expected"),
    [
        ("fpu avx512_bf16 amx_bf16 amx_tile", "cpu", "bfloat16"),
        ("fpu avx512_bf16 amx_bf16 amx_tile", "cuda", "float32"),
        ("fpu avx512_bf16", "cpu", "float32"),
        ("fpu amx_bf16_of_later_days", "cpu", "float32"),
    ],
)
def test_bfloat16_is_the_default_where_amx_multiplies_it(
    flags: str, device: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text(f"processor : 0\nflags : {flags} \nbugs :\n")
    monkeypatch.setattr(processor, "_CPU_INFO", info)
    assert processor.default_precision(device) == expected
    monkeypatch.setattr(processor, "_CPU_INFO", tmp_path / "missing")
    assert processor.default_precision(device) == "float32"
