# SPDX-License-Identifier: MIT
"""The kernel that tests of the `sockopt` backend ask: it answers as docs/socket-options.md says."""

from __future__ import annotations

import ctypes
import errno
import os
import random
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from tests.capability import need
from tests.reference import sockopt as reference
from tests.senders import Address
from tests.sockopt.kernel_table import REQUESTS, KernelTable
from tests.wire import harness
from tests.wire.harness import Vector, address16
from tests.wire.sockopt_lines import answer_to, random_vector

RANDOM_REQUESTS: Final = 1000
FAMILIES: Final = (socket.AF_INET, socket.AF_INET6)

LB: Final = ("10.0.0.5", 40001)
SERVER: Final = ("10.0.0.1", 4433)
ANYWHERE: Final = ("::", SERVER[1])
CLIENT: Final = ("203.0.113.7", 5555)
CLIENT6: Final = ("2001:db8:cafe::7", 5556)
VIP: Final = ("198.51.100.10", 443)

# What the answer goes over: it shows which bytes were written.
OUT: Final = b"\xee"

AGE: Final = slice(84, 88)

# linux/sched.h, linux/mount.h
CLONE_NEWNS: Final = 0x20000
MS_REC: Final = 1 << 14
MS_PRIVATE: Final = 1 << 18
MNT_DETACH: Final = 2

_libc = ctypes.CDLL(None, use_errno=True)


def getsockopt(
    sock: socket.socket, request: int, buffer: bytes, length: int | None = None, level: int = 0
) -> tuple[str, int, bytes]:
    """Call getsockopt() with bytes in the buffer, which socket.getsockopt() cannot.

    Returns:
        `OK` or the name of the errno, the length and the whole buffer after the call.
    """
    memory = (ctypes.c_char * len(buffer)).from_buffer_copy(buffer)
    size = ctypes.c_uint32(len(buffer) if length is None else length)
    failed = _libc.getsockopt(sock.fileno(), level, request, memory, ctypes.byref(size))
    outcome = errno.errorcode[ctypes.get_errno()] if failed else "OK"
    return outcome, size.value, memory.raw


def ports(peer: Address, local: Address) -> bytes:
    """Pack the ports of a question, in network order."""
    return struct.pack(">HH", peer[1], local[1])


def flow_question(peer: Address, local: Address = ANYWHERE, version: int = 1) -> bytes:
    """Pack request 2051 as the table of section 2.7 has it."""
    ends = address16(peer[0]) + address16(local[0]) + ports(peer, local)
    return struct.pack("=H", version) + 6 * OUT + ends + 44 * OUT


def flow_answer(
    question: bytes, client: Address, vip: Address, *, flags: int, dialect: int, vni: int
) -> bytes:
    """Pack the answer to it, but for the age."""
    return b"".join(
        (
            struct.pack("=HHI", 1, flags, vni),
            question[8:44],
            struct.pack(">BBH", dialect, 0, client[1]),
            *(address16(client[0]), address16(vip[0])),
            struct.pack(">HH", vip[1], 0),
        )
    )


def dpvs_question(peer: Address, local: Address = ("0.0.0.0", SERVER[1])) -> bytes:
    """Pack request 2048 about IPv4 addresses as the table of section 2.1 has it."""
    ends = b"".join(socket.inet_aton(end[0]) + bytes(12) for end in (peer, local))
    return struct.pack("=H", socket.AF_INET) + ends + ports(peer, local) + 20 * OUT


def dpvs_answer(question: bytes, client: Address) -> bytes:
    """Pack the answer to it."""
    family = socket.AF_INET6 if ":" in client[0] else socket.AF_INET
    real = struct.pack("=H16s", family, socket.inet_pton(family, client[0]))
    return question[:38] + real + struct.pack(">H", client[1])


@contextmanager
def kernel(family: int = socket.AF_INET) -> Iterator[tuple[KernelTable, socket.socket]]:
    """Enter a table, with a socket that may ask it."""
    with KernelTable() as table, socket.socket(family, socket.SOCK_DGRAM) as sock:
        yield table, sock


def answered(vectors: Iterable[Vector], family: int) -> list[Vector]:
    """Return the sockopt vectors about requests that the kernel can answer on such sockets.

    IPv4 sockets know no level 41, and say so in words of their own.
    """
    return [
        vector
        for vector in vectors
        if vector["optname"] in REQUESTS and (vector["level"] == 0 or family == socket.AF_INET6)
    ]


def end(address: bytes, port: int) -> Address:
    """Return an end of a flow of the reference as the table takes it."""
    return socket.inet_ntop(socket.AF_INET6, address), port


@contextmanager
def rows_of(vector: Vector, table: KernelTable) -> Iterator[None]:
    """Keep the flows of a sockopt vector in the table."""
    flows = reference.read_table(vector["table"])
    for number, flow in enumerate(flows, 1):
        met = reference.matches(flows[:number], *flow[:2], reference.ANY, flow.local_port)
        table.set(
            end(flow.peer, flow.peer_port),
            end(flow.local, flow.local_port),
            end(flow.client, flow.client_port),
            vip=end(flow.vip, flow.vip_port),
            dialect=flow.dialect,
            vni=flow.vni,
            age=flow.age / 1000,
            several=len({(each.client, each.client_port) for each in met}) > 1,
        )
    yield
    for flow in flows:
        table.delete(end(flow.peer, flow.peer_port), end(flow.local, flow.local_port))


def check(
    vector: Vector, expect: Mapping[str, Any], table: KernelTable, sock: socket.socket
) -> None:
    """Ask what a vector asks. Ages grow meanwhile: up to the time that it takes is right."""
    since = time.monotonic()
    asked = bytes.fromhex(vector["request"])
    with rows_of(vector, table):
        call = (vector["optname"], asked, vector["optlen"], vector["level"])
        outcome, length, buffer = getsockopt(sock, *call)
    if outcome == "OK" == expect.get("errno", "OK") and vector["optname"] == 2051:
        least = bytes.fromhex(expect["reply"])[AGE]
        grown = int.from_bytes(buffer[AGE], "little") - int.from_bytes(least, "little")
        assert 0 <= grown <= (time.monotonic() - since) * 1000 + 1
        buffer = buffer[: AGE.start] + least + buffer[AGE.stop :]
    assert f"{outcome} {length} {buffer.hex() or '-'}" == answer_to(vector, expect), vector["name"]


def cgroup_of_this_process() -> str:
    """Return its path in the tree of version 2."""
    *_, line = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    return line


def cgroup2_mounts() -> list[str]:
    """Return where the tree of version 2 is mounted."""
    lines = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    return [line.split()[1] for line in lines if line.split()[2] == "cgroup2"]


@pytest.mark.netns
@pytest.mark.parametrize("family", FAMILIES)
class TestVectors:
    """What vectors and reference say, asked of the running kernel on sockets of a family."""

    def test_vectors(self, family: int) -> None:
        """Errno, length and every byte of the buffer are what each vector says."""
        vectors = answered(harness.load(harness.SOCKOPT_SUITES), family)
        assert len(vectors) > 80
        with kernel(family) as (table, sock):
            for vector in vectors:
                check(vector, vector["expect"], table, sock)

    def test_random_requests(self, family: int) -> None:
        """They are those of the reference for questions that no vector has."""
        rnd = random.Random(1)
        vectors = answered([random_vector(rnd) for _ in range(RANDOM_REQUESTS)], family)
        met = set()
        with kernel(family) as (table, sock):
            for number, vector in enumerate(vectors):
                call = (vector["level"], vector["optname"], vector["optlen"])
                expect = reference.answer(*call, bytes.fromhex(vector["request"]), vector["table"])
                check(vector | {"name": number}, expect, table, sock)
                met.add(expect.get("errno", "OK"))
        assert met >= {"OK", "EINVAL", "ENOENT", "ENOTUNIQ", "EAFNOSUPPORT"}


@pytest.mark.netns
@pytest.mark.parametrize("family", FAMILIES)
class TestAnswers:
    """What the kernel says of one flow, on sockets of a family."""

    def test_flow(self, family: int) -> None:
        """2051 tells all that the table has, with and without the local address."""
        with kernel(family) as (table, sock):
            table.set(LB, SERVER, CLIENT6, vip=VIP, dialect="bd29", vni=7)
            for local, flags in ((SERVER, 0), (ANYWHERE, 1)):
                question = flow_question(LB, local)
                answer = flow_answer(question, CLIENT6, VIP, flags=flags, dialect=5, vni=7)
                outcome, length, buffer = getsockopt(sock, 2051, question)
                assert (outcome, length, buffer[: AGE.start]) == ("OK", 88, answer)

    @pytest.mark.parametrize("client", [CLIENT, CLIENT6])
    def test_dpvs(self, family: int, client: Address) -> None:
        """2048 names the client, with and without the local address."""
        with kernel(family) as (table, sock):
            table.set(LB, SERVER, client)
            for question in (dpvs_question(LB, SERVER), dpvs_question(LB)):
                answer = dpvs_answer(question, client)
                assert getsockopt(sock, 2048, question) == ("OK", 58, answer)

    def test_longer_buffers(self, family: int) -> None:
        """Bytes behind the answer stay as they were, and are not counted."""
        with kernel(family) as (table, sock):
            table.set(LB, SERVER, CLIENT)
            behind = 5000 * OUT  # more than the page that programs are shown
            question = dpvs_question(LB)
            answer = dpvs_answer(question, CLIENT) + behind
            assert getsockopt(sock, 2048, question + behind) == ("OK", 58, answer)
            outcome, length, buffer = getsockopt(sock, 2051, flow_question(LB) + behind)
            assert (outcome, length, buffer[88:]) == ("OK", 88, behind)

    @pytest.mark.parametrize(
        ("request_", "question", "error"),
        [
            (2051, flow_question((LB[0], 1)), "ENOENT"),
            (2051, flow_question(LB, ("10.0.0.2", SERVER[1])), "ENOENT"),
            (2051, flow_question(LB, ("::", 1)), "ENOENT"),
            (2051, flow_question(LB, version=2), "EINVAL"),
            (2051, flow_question(LB)[:-1], "EINVAL"),
            (2051, b"", "EINVAL"),
            (2048, dpvs_question((LB[0], 1)), "ENOENT"),
            (2048, dpvs_question(LB)[:-1], "EINVAL"),
            (2049, dpvs_question(LB), "ENOPROTOOPT"),
            (2052, flow_question(LB), "ENOPROTOOPT"),
        ],
    )
    def test_failures(self, family: int, request_: int, question: bytes, error: str) -> None:
        """What has no answer has an errno, and leaves buffer and length as they were."""
        with kernel(family) as (table, sock):
            table.set(LB, SERVER, CLIENT)
            assert getsockopt(sock, request_, question) == (error, len(question), question)

    def test_several_clients(self, family: int) -> None:
        """Where several clients are met 2051 names none, and 2048 the newest."""
        with kernel(family) as (table, sock):
            table.set(LB, ("10.0.0.2", SERVER[1]), CLIENT6)
            table.set(LB, SERVER, CLIENT, several=True)
            question = flow_question(LB)
            assert getsockopt(sock, 2051, question) == ("ENOTUNIQ", 88, question)
            assert getsockopt(sock, 2051, flow_question(LB, SERVER))[0] == "OK"
            question = dpvs_question(LB)
            assert getsockopt(sock, 2048, question)[2] == dpvs_answer(question, CLIENT)

    def test_requests_that_are_switched_off(self, family: int) -> None:
        """A request that is not to be answered is unknown, and counted as the others are."""
        with kernel(family) as (table, sock):
            table.set(LB, SERVER, CLIENT)
            questions = {2048: dpvs_question(LB), 2051: flow_question(LB)}
            for count, chosen in enumerate([(2048, 2051), (2048,), (), (2051,)], 1):
                table.answers(*chosen)
                for request, question in questions.items():
                    outcome, _, buffer = getsockopt(sock, request, question)
                    if request in chosen:
                        assert outcome == "OK"
                    else:
                        assert (outcome, buffer) == ("ENOPROTOOPT", question)
                assert table.asked() == {2048: count, 2051: count}


@pytest.mark.netns
class TestTable:
    """How the table is filled."""

    def test_without_local_address(self) -> None:
        """A flow without its local address is found by questions without it, and only by those."""
        with kernel() as (table, sock):
            table.set(LB, (None, SERVER[1]), CLIENT)
            assert getsockopt(sock, 2051, flow_question(LB))[0] == "OK"
            assert getsockopt(sock, 2051, flow_question(LB, SERVER))[0] == "ENOENT"

    def test_the_newest_flow_counts(self) -> None:
        """A flow takes the place of the one with its addresses, or with its wildcard."""
        other = ("10.0.0.2", SERVER[1])
        with kernel() as (table, sock):
            table.set(LB, SERVER, CLIENT6)
            table.set(LB, SERVER, CLIENT)
            table.set(LB, other, CLIENT6)
            for local, client in ((SERVER, CLIENT), (other, CLIENT6)):
                question = dpvs_question(LB, local)
                assert getsockopt(sock, 2048, question)[2] == dpvs_answer(question, client)
            question = dpvs_question(LB)
            assert getsockopt(sock, 2048, question)[2] == dpvs_answer(question, CLIENT6)

    def test_delete(self) -> None:
        """A flow that was deleted is not found, with its local address or without."""
        with kernel() as (table, sock):
            table.set(LB, SERVER, CLIENT)
            table.delete(LB, SERVER)
            for local in (SERVER, ANYWHERE):
                assert getsockopt(sock, 2051, flow_question(LB, local))[0] == "ENOENT"

    @pytest.mark.parametrize(("age", "least"), [(0, 0), (2.5, 2500), (1e8, 0xFFFFFFFF)])
    def test_age(self, age: float, least: int) -> None:
        """The age is that of the claim in milliseconds, as many as fit; it may precede the boot."""
        with kernel() as (table, sock):
            since = time.monotonic()
            table.set(LB, SERVER, CLIENT, age=age)
            buffer = getsockopt(sock, 2051, flow_question(LB))[2]
            grown = int.from_bytes(buffer[AGE], sys.byteorder) - least
            assert 0 <= grown <= (time.monotonic() - since) * 1000 + 1


@pytest.mark.netns
class TestCgroup:
    """Who is answered, and what is left."""

    def test_sockets_from_outside(self) -> None:
        """A socket made before the table is not answered in it, and no socket after it."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as before:
            with kernel() as (table, sock):
                table.set(LB, SERVER, CLIENT)
                during = sock.dup()
                assert getsockopt(before, 2051, flow_question(LB))[0] == "ENOPROTOOPT"
                assert getsockopt(during, 2051, flow_question(LB))[0] == "OK"
                assert table.asked()[2051] == 1
            with during:
                assert getsockopt(during, 2051, flow_question(LB))[0] == "ENOPROTOOPT"

    def test_processes(self) -> None:
        """A process started in the block is answered as well."""
        program = (
            "import socket, sys\n"
            "from tests.netns.test_kernel_table import LB, flow_question, getsockopt\n"
            "with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:\n"
            "    print(getsockopt(sock, 2051, flow_question(LB))[0])\n"
        )
        with KernelTable() as table:
            table.set(LB, SERVER, CLIENT)
            assert subprocess.check_output([sys.executable, "-c", program], text=True) == "OK\n"
            assert table.asked() == {2048: 0, 2051: 1}

    def test_it_leaves_nothing(self) -> None:
        """The process is back where it was, and cgroup, loader and files are gone."""
        before = cgroup_of_this_process()
        for _ in range(2):
            with KernelTable():
                inside = cgroup_of_this_process()
                assert inside != before
            assert cgroup_of_this_process() == before
            assert inside.rpartition("/")[2] not in subprocess.check_output(
                ["find", *cgroup2_mounts(), "-type", "d"], text=True
            )
            with pytest.raises(ChildProcessError):
                os.waitpid(-1, os.WNOHANG)

    def test_without_a_mounted_tree(self) -> None:
        """Where the tree of version 2 is not mounted it is, for as long as the table is there."""
        need("bpf")
        assert _libc.unshare(CLONE_NEWNS) == 0
        assert _libc.mount(None, b"/", None, ctypes.c_ulong(MS_REC | MS_PRIVATE), None) == 0
        while mounts := cgroup2_mounts():
            assert _libc.umount2(mounts[-1].encode(), MNT_DETACH) == 0
        with kernel() as (table, sock):
            assert len(cgroup2_mounts()) == 1
            table.set(LB, SERVER, CLIENT)
            assert getsockopt(sock, 2051, flow_question(LB))[0] == "OK"
        assert not cgroup2_mounts()
