"""Where glibc takes large blocks from, until a network has laid out its weights and after that.

By default that changes on its own (mallopt(3)): the first large block that is freed makes the later
ones come from the heap. The weights of a file are dropped one by one while they are laid out anew,
which leaves the heap full of holes: 0.9 GB for the large size.
"""

from __future__ import annotations

import ctypes

# Keys of mallopt in glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
#: Weights are larger, and pages are shared by none.
_APART_BYTES = 2**20
#: More than any intermediate result.
_POOLED_BYTES = 2**30
#: Free bytes at the heap's end that it keeps.
_KEPT_BYTES = 2**29


def keep_blocks_apart() -> None:
    """From now on a large block is a mapping of its own, given back as soon as it is freed."""
    ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _APART_BYTES)


def pool_blocks() -> None:
    """From now on every block comes from the heap, which keeps what is freed.

    Mapping an intermediate result anew would cost a page fault for each of its pages, every time.
    """
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_MMAP_THRESHOLD, _POOLED_BYTES)
    libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
