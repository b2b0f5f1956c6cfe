# SPDX-License-Identifier: MIT
"""`python refuse_unshare.py COMMAND…`: run a command that can make no namespaces.

A seccomp filter answers unshare() with EPERM, as containers' default profiles do.
"""

import ctypes
import os
import platform
import struct
import sys

_UNSHARE = {"x86_64": 272, "aarch64": 97, "riscv64": 97}[platform.machine()]
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_EPERM = 1


def _filter() -> bytes:
    """if the call's number is unshare: EPERM, else: allow."""
    instructions = (
        (0x20, 0, 0, 0),  # load seccomp_data.nr
        (0x15, 0, 1, _UNSHARE),  # equal? else skip one
        (0x06, 0, 0, _ERRNO | _EPERM),
        (0x06, 0, 0, _ALLOW),
    )
    return b"".join(struct.pack("=HBBI", *item) for item in instructions)


def main() -> None:
    """Install the filter and become the command."""
    libc = ctypes.CDLL(None, use_errno=True)
    code = ctypes.create_string_buffer(_filter())
    program = ctypes.create_string_buffer(struct.pack("@HP", 4, ctypes.addressof(code)))
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(
        _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0
    ):
        raise OSError(ctypes.get_errno(), "seccomp")
    os.execvp(sys.argv[1], sys.argv[1:])


main()
