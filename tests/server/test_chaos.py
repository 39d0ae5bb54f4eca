"""One scenario of `chaos/` in its short form, on a real server; times are not asserted."""

from __future__ import annotations

from pathlib import Path

import pytest

from chaos import kills, servers


def test_a_killed_process_is_noticed_and_leaves_nothing_behind(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "OUTPUT", tmp_path)
    figures = {figure.what: figure for figure in kills.run(repository, quick=True)}
    ended = figures["preprocess killed: `ofa serve` has ended after"]
    assert "status 1: the Python process of caption_preprocess_0_" in ended.note
    assert figures["preprocess killed: answers again after"].note.startswith("failed of ")
    left = [figure for what, figure in figures.items() if "left" in what]
    assert len(left) == 2
    assert all(figure.value == 0 for figure in left)
