"""Does any picture or message crash the server, leak, harm a neighbour or get an unclean answer?

A fifth of the cases goes through a live server, which is never started again; the others into the
library's preprocessing, in processes with limits on memory and time. A case is told by its number,
so a failing one can be made again; its bytes and what became of it are left in `build/chaos/fuzz/`.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.common import ROOT
from chaos import fuzz_library, fuzz_server
from chaos.figures import Figure
from chaos.fuzz_pictures import make_corpus

_NUM_LIVE, _NUM_IN_PROCESS = 20_000, 80_000
_QUICK_SHARE = 20


def run(repository: Path, quick: bool) -> list[Figure]:
    """Fuzzes a server of its own, then the library."""
    share = _QUICK_SHARE if quick else 1
    corpus = make_corpus(ROOT / "samples")
    return [
        *fuzz_server.run(repository, corpus, _NUM_LIVE // share),
        *fuzz_library.run(repository, corpus, _NUM_IN_PROCESS // share),
    ]
