from pathlib import Path

import pytest

from ofa_server import processor
from ofa_server.errors import ServerError


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


@pytest.mark.parametrize(
    ("flags", "expected"),
    [("fpu avx512_vnni", True), ("avx512_vnni amx_int8", True), ("avx_vnni avx512f", False)],
)
def test_integers_are_multiplied_where_sums_are_wide(
    flags: str, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text(f"processor : 0\nflags : {flags}\n")
    monkeypatch.setattr(processor, "_CPU_INFO", info)
    assert processor.multiplies_int8() == expected


def test_int8_is_served_where_sums_are_wide_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ('{"precision": "float16"}', '{"precision": "int8"}', "{", "[]")
    for version, text in enumerate(texts, 1):
        manifest = tmp_path / "caption" / str(version) / "manifest.json"
        manifest.parent.mkdir(parents=True)
        manifest.write_text(text)
    (tmp_path / "vqa").mkdir()
    info = tmp_path / "cpuinfo"
    monkeypatch.setattr(processor, "_CPU_INFO", info)
    info.write_text("flags : avx512_vnni\n")
    processor.check_processor(tmp_path, ["vqa", "caption"])
    info.write_text("flags : avx_vnni\n")
    processor.check_processor(tmp_path, ["vqa"])
    reason = (
        "^version 2 of caption is in int8, which needs a processor with AVX512-VNNI; on this one "
        "sums of products would be cut off$"
    )
    with pytest.raises(ServerError, match=reason):
        processor.check_processor(tmp_path, ["vqa", "caption"])
