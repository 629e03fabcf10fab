"""A process's memory in pages of 2 MB, where Linux can (6.1 and later, docs/adr/0015).

What a request touches lies in hundreds of pages of 4 KB. When others have had the core in between, the
processor has to look up again where each of them is, and in a virtual machine each look takes several steps.
"""

import ctypes
import errno
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

__all__ = ["use_huge_pages"]

_HUGE: Final = 2 * 1024 * 1024
_PAGE: Final = 4096
_COLLAPSE: Final = 25  # MADV_COLLAPSE (asm-generic/mman-common.h)
_WORTH_IT: Final = 1 / 2  # of a range in use: the rest is taken with it, and filled by later objects
_MAPS: Final = Path("/proc/self/maps")
# Memory of no file that may be written to: arenas of Python's objects, and the C library's heap (proc(5)).
_OWN: Final = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) rw-p \S+ \S+ 0 *(?:\[heap\]|\[anon:.*\])?$", re.MULTILINE)


def use_huge_pages() -> int:
    """Put what memory is in use now into huge pages; how many bytes of it are in such pages then, 0 where the
    system cannot.

    For before the first request: it copies what is in use, 240 MB in half a second, and whoever needs a range
    meanwhile waits for it. Memory that is taken later comes as always: no request waits until 2 MB are found.
    """
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        madvise, mincore = libc.madvise, libc.mincore
        ranges = list(_ranges(_MAPS.read_text(encoding="utf-8", errors="replace")))
    except (AttributeError, OSError):
        return 0
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p)
    resident = ctypes.create_string_buffer(_HUGE // _PAGE)
    done = 0
    for start in ranges:
        if mincore(start, _HUGE, resident) or resident.raw.count(b"\0") > (1 - _WORTH_IT) * len(resident.raw):
            continue
        if not madvise(start, _HUGE, _COLLAPSE):
            done += _HUGE
        elif ctypes.get_errno() == errno.ENOMEM:
            break  # none is left, and to look for more takes time
    return done


def _ranges(maps: str) -> Iterator[int]:
    """Where each range begins that a huge page can hold."""
    for found in _OWN.finditer(maps):
        start, end = (int(text, 16) for text in found.groups())
        yield from range(-(-start // _HUGE) * _HUGE, end - _HUGE + 1, _HUGE)
