# SPDX-License-Identifier: MIT
"""libuoa as Python sees it: `ffi` and `lib`, and no policy.

`core.cdef` declares, `batch.c` adds what only Python needs, meson compiles both
together with the C core.
"""

from uoa._native._core import ffi, lib

__all__ = ["ffi", "lib"]
