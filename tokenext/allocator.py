"""The C allocator of the process, asked to return what loading a model left over.

Loading reads a tokenizer of 11 MB into several forms and drops most of them. glibc keeps the freed pages
for later, and takes those large blocks for a sign that it should keep more: with a vocabulary of 150,000 a
process then holds 130 MB that nobody uses.
"""

import ctypes

__all__ = ["return_freed_memory"]


def return_freed_memory() -> bool:
    """Give pages that nothing uses back to the system; whether the allocator knows how to (glibc does).

    Takes some milliseconds, in which other threads that allocate wait: for after a load, not for a request.
    """
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError):
        return False
    trim(0)
    return True
