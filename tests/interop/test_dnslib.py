# SPDX-License-Identifier: MIT
"""DNS servers on `uoa.dnslib`: asked by dig, kdig and dnsperf, through `uoa lb` and dnsdist."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.capability import need
from tests.interop.dnsdist import FRONT, dnsdist
from tests.interop.programs import PATIENCE, PYTHON, Program, balancing, dig, running
from tests.senders import Address
from uoa.cli._hostport import text_of

_EXAMPLE = Path(__file__).parents[2] / "examples/python/whoami_dns.py"
_CLIENTS = {4: "203.0.113.7", 6: "2001:db8:c::7"}
_SERVERS = {4: ("127.0.0.1", 5353), 6: ("::1", 5353)}
_VIPS = {4: ("127.0.0.1", 5301), 6: ("::1", 5301)}
_TRUST = "127.0.0.0/8,::1"

pytestmark = pytest.mark.netns(*_CLIENTS.values())


@contextmanager
def _whoami(listen: Address, dialect: str) -> Iterator[Program]:
    """Run the example."""
    with running(
        *PYTHON, str(_EXAMPLE), "--listen", text_of(listen), "--trust", _TRUST,
        "--dialect", dialect,
        ready="^ready$",
    ) as program:  # fmt: skip
        yield program


@contextmanager
def _truncated(listen: Address) -> Iterator[Program]:
    """Run the server whose answers do not fit a datagram."""
    with running(
        *PYTHON, "-m", "tests.interop.truncated_dns", text_of(listen), _TRUST, ready="^ready$"
    ) as program:
        yield program


def _kdig(source: Address, to: Address, name: str) -> str:
    """Return the text of the answer to kdig."""
    result = subprocess.run(
        [
            "kdig", "+short", "+retry=0", f"+timeout={PATIENCE}", "-b", "{}#{}".format(*source),
            "-p", str(to[1]), f"@{to[0]}", name, "TXT",
        ],
        capture_output=True,
        text=True,
        check=True,
    )  # fmt: skip
    return result.stdout.strip().strip('"')


def _dnsperf(to: Address, queries: int, folder: Path) -> dict[str, int]:
    """Let dnsperf ask; return how many queries were completed and lost: its status says nothing."""
    questions = folder / "queries"
    questions.write_text("who. TXT\n", encoding="ascii")
    result = subprocess.run(
        [
            "dnsperf", "-s", to[0], "-p", str(to[1]), "-d", str(questions), "-n", str(queries),
            "-c", "4", "-q", "64", "-t", str(PATIENCE), "-m", "udp",
        ],
        capture_output=True,
        text=True,
        check=True,
    )  # fmt: skip
    found = re.findall(r"Queries (completed|lost): +(\d+)", result.stdout)
    return {what: int(count) for what, count in found}


@pytest.mark.parametrize("dialect", ["ipo", "ppv2"])
@pytest.mark.parametrize("pair", [(4, 4), (6, 6), (4, 6), (6, 4)])
def test_behind_a_balancer(dialect: str, pair: tuple[int, int]) -> None:
    """dig and kdig read their own address in the answer, and the server's line is the same."""
    need("dig")
    need("kdig")
    client, server, vip = _CLIENTS[pair[0]], _SERVERS[pair[1]], _VIPS[pair[0]]
    source = "cmsg" if dialect == "ipo" else "proxy"
    with _whoami(server, dialect) as program, balancing(vip, server, dialect, 0):
        for port, name in enumerate(["who.", "am.", "i."], start=4001):
            (answer,) = dig((client, port), vip, name, "TXT").records
            own = re.escape(text_of((client, port)))
            assert re.fullmatch(rf"client {own} via \S+ source={source}", answer)
            program.wait_for(f"^{re.escape(answer)}$")
        answer = _kdig((client, 4009), vip, "who.")
        own = re.escape(text_of((client, 4009)))
        assert re.fullmatch(rf"client {own} via \S+ source={source}", answer)


def test_behind_dnsdist(tmp_path: Path) -> None:
    """The example knows who asks dnsdist, and its health checks are answered as direct."""
    server = _SERVERS[4]
    with _whoami(server, "ppv2") as program, dnsdist(server, tmp_path):
        for family, client in _CLIENTS.items():
            (answer,) = dig((client, 4001), FRONT[family == 6], "who.", "TXT").records
            assert answer.startswith(f"client {text_of((client, 4001))} via 127.0.0.1:")
        program.wait_for(r"^client (127\.0\.0\.1:\d+) via \1 source=direct$")


@pytest.mark.parametrize("backend", _SERVERS.values(), ids=_SERVERS)
def test_truncated_answers_are_asked_for_over_tcp(backend: Address, tmp_path: Path) -> None:
    """dig falls back to TCP through dnsdist, and the server knows it there as well."""
    with _truncated(backend) as program, dnsdist(backend, tmp_path):
        for family, client in _CLIENTS.items():
            for port in (4001, 4002):
                front = FRONT[family == 6]
                (text,) = dig((client, port), front, "long.", "TXT", falls_back=True).records
                asked = re.fullmatch(r"client (\S+) source=proxy", text)
                assert asked is not None
                # The port of the TCP connection is dig's choice.
                assert asked[1].startswith(text_of((client, 0))[:-1])
                program.wait_for(f"^udp client {re.escape(text_of((client, port)))} source=proxy$")
                program.wait_for(f"^tcp {re.escape(text)}$")
        assert not program.lines("source=none")


def test_load_through_a_balancer(tmp_path: Path) -> None:
    """Of 2,000 queries of dnsperf none is lost, and each is one client's, none the balancer's."""
    need("dnsperf")
    server, vip = _SERVERS[4], _VIPS[4]
    with _whoami(server, "ipo") as program, balancing(vip, server, "ipo", 3):
        assert _dnsperf(vip, 2000, tmp_path) == {"completed": 2000, "lost": 0}
        assert len(program.wait_for(r"^client 127\.0\.0\.1:\d+ via \S+ source=cmsg$", 2000)) == 2000


def test_load_through_dnsdist(tmp_path: Path) -> None:
    """The same through dnsdist, all of it from one of its ports."""
    need("dnsperf")
    server = _SERVERS[4]
    with _whoami(server, "ppv2") as program, dnsdist(server, tmp_path):
        assert _dnsperf(FRONT[0], 2000, tmp_path) == {"completed": 2000, "lost": 0}
        lines = program.wait_for("source=proxy$", 2000)
        assert len(lines) == 2000
        assert len({line.split()[3] for line in lines}) == 1
