# SPDX-License-Identifier: MIT
"""dnsdist as the balancer: PROXY v2 in front of each query, all from one socket."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.capability import need
from tests.interop.dnsdist import FRONT, dnsdist
from tests.interop.programs import PATIENCE, PYTHON, Program, dig, running
from tests.senders import Address
from uoa.cli._hostport import text_of

_TRUST = "127.0.0.0/8,::1"
_STRANGER = "198.51.100.9"
pytestmark = pytest.mark.netns("203.0.113.7", "2001:db8:c::7", _STRANGER)


@contextmanager
def _server(listen: Address) -> Iterator[Program]:
    """Run whoami_dns.py, which trusts loopback addresses."""
    with running(
        *PYTHON, "-m", "tests.interop.whoami_dns", "--listen", text_of(listen), "--trust", _TRUST,
        ready="^ready$",
    ) as program:  # fmt: skip
        yield program


def _line(client: Address, via: str, source: str) -> str:
    return f"client {text_of(client)} via {via} source={source}"


@pytest.mark.parametrize("backend", [("127.0.0.1", 5353), ("::1", 5353)], ids=["4", "6"])
def test_queries_name_their_client(backend: Address, tmp_path: Path) -> None:
    """The server knows each client behind dnsdist, of both families, with and without TLVs."""
    with _server(backend) as server, dnsdist(backend, tmp_path):
        peers = set()
        for port, (host, name) in enumerate(
            [
                ("127.0.0.9", "who."),
                ("::1", "who."),
                ("203.0.113.7", "who."),
                ("2001:db8:c::7", "who."),
                ("203.0.113.7", "tagged."),
                ("::1", "tagged."),
                ("127.0.0.10", "who."),
            ],
            start=4001,
        ):
            answer = dig((host, port), FRONT[":" in host], name, "TXT")
            assert answer.status == "NOERROR"
            (text,) = answer.records
            via = text.split()[3]
            assert text == _line((host, port), via, "proxy")
            server.wait_for(f"^{re.escape(text)}$")
            peers.add(via)
        # All of them came through the one socket of dnsdist.
        assert len(peers) == 1
        assert peers.pop().startswith(text_of(backend)[:-4])


@pytest.mark.parametrize("backend", [("127.0.0.1", 5353), ("::1", 5353)], ids=["4", "6"])
def test_health_checks_are_answered(backend: Address, tmp_path: Path) -> None:
    """A health check (LOCAL) is direct traffic of dnsdist, and its answer keeps the server up."""
    host = re.escape(text_of((backend[0], 0))[:-1])
    with _server(backend) as server, dnsdist(backend, tmp_path) as program:
        checks = server.wait_for(f"^client ({host}\\d+) via \\1 source=direct$", count=3)
        assert len(set(checks)) == len(checks)  # a port of its own each
        assert dig(("127.0.0.9", 4001), FRONT[0], "a.", "A") == ("NOERROR", ["192.0.2.1"])
        assert not program.lines("as 'down'")
        assert not server.lines("source=none")


def test_clients_of_one_socket_are_not_mixed_up(tmp_path: Path) -> None:
    """Many clients share a socket: each is named by its own queries, and none is remembered."""
    backend = ("127.0.0.1", 5353)
    clients = [(f"127.0.0.{number}", 4000 + number) for number in range(10, 22)]
    with _server(backend), dnsdist(backend, tmp_path):
        peers = set()
        for asking in range(5 * len(clients)):
            client = clients[asking % len(clients)]
            ((text,), (looked_up,)) = (
                dig(client, FRONT[0], name, "TXT").records for name in ("who.", "lookup.")
            )
            via = text.split()[3]
            assert text == _line(client, via, "proxy")
            assert looked_up == "lookup None flows 0"
            peers.add(via)
        assert len(peers) == 1


def test_headers_of_strangers_are_not_believed() -> None:
    """A PROXY header that kdig sends is believed of a trusted peer, and of nobody else."""
    need("dig")
    need("kdig")
    to, claimed = ("127.0.0.1", 5353), ("203.0.113.7", 5555)

    def kdig(source: Address) -> tuple[str, ...]:
        return (
            "kdig", "+short", "+retry=0", f"+timeout={PATIENCE}",
            "+proxy=203.0.113.7#5555-192.0.2.1#53", "-b", "{}#{}".format(*source),
            "-p", str(to[1]), f"@{to[0]}", "who.", "TXT",
        )  # fmt: skip

    with _server(to) as server:
        balancer, stranger = ("127.0.0.8", 4001), (_STRANGER, 4002)
        believed = _line(claimed, text_of(balancer), "proxy")
        result = subprocess.run(kdig(balancer), capture_output=True, text=True, check=True)
        assert result.stdout == f'"{believed}"\n'

        direct = _line(stranger, text_of(stranger), "direct")
        with running(*kdig(stranger)):
            server.wait_for(f"^{re.escape(direct)}$")
        assert server.lines(re.escape(text_of(claimed))) == [believed]
        assert dig(stranger, to, "who.", "TXT").records == [direct]
