"""How the C library hands memory back, for processes that hold gigabytes.

glibc keeps freed blocks of up to 32 MiB for later, and between blocks of many sizes they are of little use: training a
model of 100M parameters held a quarter more than it ever used at once. From a fixed threshold on every block is mapped
by itself and returned when it is freed. That costs page faults, which small models would feel and large ones do not.
"""

import ctypes
import sys

M_MMAP_THRESHOLD = -3
THRESHOLD_BYTES = 1 << 20
LARGE_MODEL_BYTES = 1 << 28


def return_freed_memory(model_bytes: int) -> bool:
    """Have freed memory returned at once, from now on, where the model is large enough; whether that was done.

    Does nothing where the C library is not glibc.
    """
    if model_bytes < LARGE_MODEL_BYTES or not sys.platform.startswith("linux"):
        return False
    library = ctypes.CDLL(None)
    try:
        library.gnu_get_libc_version  # noqa: B018 - the symbol that tells glibc from other C libraries
    except AttributeError:
        return False
    return bool(library.mallopt(M_MMAP_THRESHOLD, THRESHOLD_BYTES))
