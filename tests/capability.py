# SPDX-License-Identifier: MIT
"""What this machine can do, for tests that need more than a Python interpreter.

UOA_REQUIRE names the capabilities that must not be missing: there a test that
needs one of them fails where it would be skipped.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
import platform
import shutil
import socket
import subprocess
from collections.abc import Callable
from typing import Final

import pytest

import uoa
from tests.senders import send_option

Probe = Callable[[], str | None]

# linux/bpf.h: bpf(BPF_MAP_CREATE) for one array of one integer.
_BPF_SYSCALL: Final = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "s390x": 351, "ppc64le": 361}
_BPF_MAP_CREATE: Final = 0
_BPF_ARRAY: Final = (2, 4, 4, 1)  # type, key size, value size, entries


def _program(name: str) -> Probe:
    return lambda: None if shutil.which(name) else f"no {name} in PATH"


def _netns() -> str | None:
    if shutil.which("unshare") is None:
        return "no unshare in PATH (util-linux)"
    for flags in ("-n", "-Urn"):
        result = subprocess.run(["unshare", flags, "true"], capture_output=True, text=True)
        if result.returncode == 0:
            return None
    return result.stderr.strip()


def _userns() -> str | None:
    result = subprocess.run(["unshare", "-Urn", "true"], capture_output=True, text=True)
    return result.stderr.strip() if result.returncode else None


def _raw() -> str | None:
    option = uoa.wire.build("ipo", ("192.0.2.1", 1))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        try:
            send_option(sock, sock.getsockname(), option)
        except OSError as error:
            return f"IP options cannot be sent (CAP_NET_RAW): {error}"
    return None


def _bpf() -> str | None:
    if os.geteuid() != 0:
        return "not root"
    number = _BPF_SYSCALL.get(platform.machine())
    if number is None:
        return f"no number of bpf() for {platform.machine()}"
    attributes = (ctypes.c_uint32 * 32)(*_BPF_ARRAY)
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.syscall(number, _BPF_MAP_CREATE, attributes, ctypes.sizeof(attributes))
    if fd < 0:
        return f"bpf(): {os.strerror(ctypes.get_errno())}"
    os.close(fd)
    if reason := _program("clang")():
        return reason
    result = subprocess.run(
        ["clang", "-E", "-x", "c", "-"],
        input="#include <bpf/bpf.h>\n#include <bpf/bpf_helper_defs.h>\n",
        capture_output=True,
        text=True,
    )
    return "no headers of libbpf" if result.returncode else None


def _llvm() -> str | None:
    tools = ("llvm-profdata", "llvm-cov")
    return next((f"no {name} in PATH" for name in tools if shutil.which(name) is None), None)


def _libfuzzer() -> str | None:
    if reason := _program("clang")():
        return reason
    target = "int LLVMFuzzerTestOneInput(const unsigned char *p, unsigned long n) { return 0; }"
    command = ["clang", "-fsanitize=fuzzer,address", "-x", "c", "-", "-o", os.devnull]
    result = subprocess.run(command, input=target, capture_output=True, text=True)
    return "clang has no libFuzzer (libclang-rt-dev)" if result.returncode else None


def _pty() -> str | None:
    try:
        leader, follower = os.openpty()
    except OSError as error:
        return str(error)
    os.close(leader)
    os.close(follower)
    return None


def _py311() -> str | None:
    try:
        result = subprocess.run(["python3.11", "-V"], capture_output=True)
    except OSError as error:
        return str(error)
    return "python3.11 does not run" if result.returncode else None


def _uvloop() -> str | None:
    return None if importlib.util.find_spec("uvloop") else "uvloop is not installed"


def _ipv6() -> str | None:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.bind(("::1", 0))
    except OSError as error:
        return f"::1 cannot be bound: {error}"
    return None


def _aioquic_examples() -> str | None:
    if not importlib.util.find_spec("aioquic") or not importlib.util.find_spec("wsproto"):
        return "aioquic or wsproto is not installed"
    from tests.interop import aioquic_examples

    return aioquic_examples.fetch()


PROBES: Final[dict[str, Probe]] = {
    "aioquic-examples": _aioquic_examples,
    "bpf": _bpf,
    "chromium": _program("chromium"),
    "clang": _program("clang"),
    "dig": _program("dig"),
    "dnsdist": _program("dnsdist"),
    "dnsperf": _program("dnsperf"),
    "g++": _program("g++"),
    "gcc": _program("gcc"),
    "ip": _program("ip"),
    "ipv6": _ipv6,
    "kdig": _program("kdig"),
    "knotd": _program("knotd"),
    "libfuzzer": _libfuzzer,
    "llvm": _llvm,
    "logger": _program("logger"),
    "meson": _program("meson"),
    "netns": _netns,
    "ninja": _program("ninja"),
    "pkg-config": _program("pkg-config"),
    "pty": _pty,
    "py311": _py311,
    "raw": _raw,
    "rsyslogd": _program("rsyslogd"),
    "socat": _program("socat"),
    "unbound": _program("unbound"),
    "userns": _userns,
    "uvloop": _uvloop,
}


@functools.cache
def lacks(name: str) -> str | None:
    """Return why the machine has not this capability, or None if it has."""
    return PROBES[name]()


def required() -> set[str]:
    """Return the capabilities that UOA_REQUIRE names."""
    return set(os.environ.get("UOA_REQUIRE", "").replace(",", " ").split())


def need(name: str) -> None:
    """Skip the calling test, with the reason, unless the machine has this capability.

    Fails instead of skipping when UOA_REQUIRE names it.
    """
    reason = lacks(name)
    if reason is None:
        return
    if name in required():
        pytest.fail(f"UOA_REQUIRE names {name!r}, which is missing here: {reason}", pytrace=False)
    pytest.skip(f"needs {name}: {reason}")


def unable(*names: str) -> int | None:
    """Return None, or with which status a program ends that needs what is missing here.

    The same as need() for what is no test: it says why, and is a failure only
    when UOA_REQUIRE names the capability.
    """
    missing = {name: reason for name in names if (reason := lacks(name))}
    for name, reason in missing.items():
        print(f"skipped: needs {name}: {reason}", flush=True)
    return int(not required().isdisjoint(missing)) if missing else None
