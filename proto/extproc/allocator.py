"""The C allocator of a process that serves long prompts: told to keep their blocks, and to return others.

A message with 128,000 token ids is copied a few times on its way, 1 to 2 MB each. glibc takes such blocks
from the system and gives them back at once, so that every copy is paid for page by page: a third of what an
exchange of that size costs. Other allocators (musl's, jemalloc) know nothing of these calls.
"""

import ctypes
from typing import Final

__all__ = ["keep_large_blocks", "return_freed_memory"]

# mallopt's parameters (malloc.h of glibc), and what they are set to.
_TRIM_THRESHOLD: Final = -1
_MMAP_THRESHOLD: Final = -3
_ARENA_MAX: Final = -8
_KEPT_BYTES: Final = 16 * 1024 * 1024  # free memory at the heap's end that stays ours
_KEPT_BLOCK: Final = 64 * 1024
_LARGEST_ON_HEAP: Final = 8 * 1024 * 1024  # larger blocks still come from the system and go back


def keep_large_blocks() -> bool:
    """Reuse the memory of large blocks, at the price of up to 16 MiB that stay unused; whether that is set.

    Once, before threads start. They share one heap from then on: a block that one thread frees is the next
    one's, and Python's lock lets one of them allocate at a time anyway.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    limits = ((_TRIM_THRESHOLD, _KEPT_BYTES), (_MMAP_THRESHOLD, _LARGEST_ON_HEAP), (_ARENA_MAX, 1))
    done = [mallopt(parameter, value) for parameter, value in limits]
    return all(done)


def return_freed_memory(keep: int = 0) -> bool:
    """Give pages that nothing uses back to the system; whether the allocator knows how to (glibc does).

    Loading a tokenizer of 11 MB leaves 130 MB of them. Takes some milliseconds, in which other threads that
    allocate wait: for after a load, not for a request.

    `keep` bytes stay ours, for what is going to be kept: the system gives memory page by page, whenever one
    is first written to, for 0.3 us each, and for 10 us in a virtual machine whose host has none ready. While
    a cache of 80 MB fills, each request of 28,000 tokens would wait for 230 of them.
    """
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError):
        return False
    kept = [bytearray(_KEPT_BLOCK) for _ in range(keep // _KEPT_BLOCK)]  # small, to be found in the gaps
    trim(0)
    del kept
    return True
