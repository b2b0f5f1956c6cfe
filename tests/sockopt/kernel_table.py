# SPDX-License-Identifier: MIT
"""A running kernel that answers "who is the client of this flow?", for tests of those who ask.

    with KernelTable() as table, udp_socket("10.0.0.1") as server:
        table.set(("10.0.0.5", 40001), server.getsockname(), ("203.0.113.7", 5555))
        ...
        assert table.asked() == {2048: 0, 2051: 1}

The program answer.bpf.c is attached to a cgroup of its own, which the calling process enters and
leaves again. Sockets belong to the cgroup they were made in: only those made inside of the block
are answered. So are those of processes started there, which must have ended before it does.
"""

from __future__ import annotations

import ctypes
import os
import platform
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from tests.capability import need
from tests.senders import Address
from tests.wire.build import BPF, INCLUDE, NAMES, OPTIMISED, ROOT, WARNINGS, compile_with
from tests.wire.harness import DIALECT_NUMBERS, Conversation, address16

REQUESTS: Final = (2048, 2051)
"""What the kernel can be made to answer; 2048 with 58 and with 18 bytes."""

ANY: Final = "::"
"""The local address of a question by one who does not know it, of either family."""

_NS: Final = 10**9

_BUILT: Final = ROOT / "build/tests/sockopt"
_SOURCES: Final = (
    *("tests/sockopt/*.*", "tests/wire/lines.h", "tests/wire/build.py"),
    *("sdk/core/include/uoa/*.h", *NAMES),
)


class KernelTable:
    """The table, the kernel that answers from it, and this process in its cgroup."""

    def __init__(self) -> None:
        self._open = ExitStack()
        self._loader: Conversation

    def __enter__(self) -> KernelTable:
        need("bpf")
        need("gcc")
        with ExitStack() as stack:
            cgroup = stack.enter_context(_private_cgroup())
            loader = Conversation(_loader(), str(_program()), str(cgroup))
            self._loader = stack.enter_context(loader)
            self.answers(*REQUESTS)
            stack.enter_context(_inside(cgroup))
            self._open = stack.pop_all()
        return self

    def __exit__(self, *reason: Any) -> None:
        self._open.__exit__(*reason)

    def set(
        self,
        peer: Address,
        local: tuple[str | None, int],
        client: Address,
        *,
        vip: Address | None = None,
        dialect: str = "ipo",
        vni: int = 0,
        age: float = 0.0,
        several: bool = False,
    ) -> None:
        """Enter a flow; questions with and without its local address find it.

        Args:
            peer: the outer source, the balancer.
            local: the outer destination; with the host None only questions without it find the
                flow. There is one entry for those for each peer and local port: the newest.
            client: who the traffic came from.
            vip: where the client sent it to, if that is known.
            dialect: in which words the balancer named the client.
            vni: the virtual network.
            age: how many seconds ago the flow was learned.
            several: questions without the local address meet several clients, of which this is
                the newest: 2051 says so, 2048 names it.
        """
        learned = time.monotonic_ns() - round(age * _NS)
        ends = f"{_end(client)} {_end(vip or (ANY, 0))}"
        rest = f"{vni} {DIALECT_NUMBERS[dialect]} {learned} {several:d}"
        self._tell(f"set {_key(peer, local)} {ends} {rest}")

    def delete(self, peer: Address, local: tuple[str | None, int]) -> None:
        """Take a flow out again.

        After that no flow of this peer and local port is found without a local address.
        """
        self._tell(f"delete {_key(peer, local)}")

    def answers(self, *requests: int) -> None:
        """Let the kernel answer these of `REQUESTS` and no other; at first it answers all.

        To a kernel without uoa all are unknown, to one with an older module 2051.
        """
        self._tell(" ".join(("answer", *map(str, requests))))

    def asked(self) -> dict[int, int]:
        """Return how often each of `REQUESTS` came so far, answered or not."""
        counts = self._tell("asked").split()[1:]
        return dict(zip(REQUESTS, map(int, counts), strict=True))

    def _tell(self, line: str) -> str:
        return self._loader.ask(line)


def _end(end: Address) -> str:
    return f"{address16(end[0]).hex()} {end[1]}"


def _key(peer: Address, local: tuple[str | None, int]) -> str:
    return f"{_end(peer)} {_end((local[0] or ANY, local[1]))}"


def _built(name: str, compiler: str, *arguments: str | Path) -> Path:
    """Return a program under build/, compiled anew where one of its sources is younger.

    It is kept for the next test: most run in a process of their own.
    """
    target = _BUILT / name
    sources = [source for pattern in _SOURCES for source in ROOT.glob(pattern)]
    newest = max(source.stat().st_mtime for source in sources)
    if not target.exists() or target.stat().st_mtime < newest:
        _BUILT.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=_BUILT) as folder:
            compile_with(compiler, *arguments, "-o", Path(folder) / name)
            os.replace(Path(folder) / name, target)
    return target


def _loader() -> Path:
    flags = ("-std=gnu11", *WARNINGS, *OPTIMISED, "-I", INCLUDE, "-I", "tests/wire")
    return _built("table", "gcc", *flags, "tests/sockopt/table.c", *NAMES, "-lbpf")


def _program() -> Path:
    # Debian keeps <asm/types.h> in a folder that only its own target looks into.
    system = f"/usr/include/{platform.machine()}-linux-gnu"
    flags = (*BPF, *WARNINGS, "-I", INCLUDE, "-idirafter", system)
    return _built("answer.bpf.o", "clang", *flags, "-c", "tests/sockopt/answer.bpf.c")


@contextmanager
def _private_cgroup() -> Iterator[Path]:
    """Make a cgroup below the one that this process is in."""
    with _cgroup2() as root:
        cgroup = tempfile.mkdtemp(prefix="uoa-", dir=_own_cgroup(root))
        try:
            yield Path(cgroup)
        finally:
            os.rmdir(cgroup)


@contextmanager
def _cgroup2() -> Iterator[Path]:
    """Find the tree of version 2, or mount it for as long as it is needed."""
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        mount, _, filesystem = line.partition(" - ")
        root, point = mount.split(" ")[3:5]
        if filesystem.startswith("cgroup2 ") and root == "/":
            yield Path(point)
            return
    libc = ctypes.CDLL(None, use_errno=True)
    with tempfile.TemporaryDirectory(prefix="uoa-cgroup2-") as folder:
        place = folder.encode()
        _check(libc.mount(b"none", place, b"cgroup2", ctypes.c_ulong(0), None), folder)
        try:
            yield Path(folder)
        finally:
            _check(libc.umount2(place, 0), folder)


def _check(result: int, what: str) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)


def _own_cgroup(root: Path) -> Path:
    """Return the cgroup of this process in the tree of version 2."""
    lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    path = next(line.removeprefix("0::/") for line in lines if line.startswith("0::/"))
    return root / path


@contextmanager
def _inside(cgroup: Path) -> Iterator[None]:
    """Keep this process in a cgroup, with all of its threads."""
    process = str(os.getpid())
    (cgroup / "cgroup.procs").write_text(process)
    try:
        yield
    finally:
        (cgroup.parent / "cgroup.procs").write_text(process)
