# SPDX-License-Identifier: MIT
"""The one place where a negative errno of libuoa becomes an exception."""

import os

from uoa._exceptions import BackendError


def check(result: int, what: str) -> int:
    """Return `result` if it is none; raise MemoryError or BackendError otherwise."""
    if result >= 0:
        return result
    if -result == 12:  # ENOMEM
        raise MemoryError(what)
    raise BackendError(-result, f"{what}: {os.strerror(-result)}")


def error_of(result: int) -> OSError:
    """Return the OSError (of the subclass Python would raise) for a negative errno."""
    return OSError(-result, os.strerror(-result))
