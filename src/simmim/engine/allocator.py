"""What the C library does with memory that is freed."""

import ctypes
import platform
from contextlib import suppress

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # mallopt's numbers for its settings (malloc.h)
_LARGEST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let glibc keep large buffers that are freed, in place of giving them back and asking for them anew at every step.

    Worth some per cent of a step on a CPU. Where another allocator is preloaded (jemalloc, say) it is not spoken to.

    Returns:
        Whether there is a glibc, and it agreed.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    with suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, _LARGEST), (_TOP_PAD, 64 * 2**20))
        return all(bool(mallopt(name, value)) for name, value in settings)
    return False
