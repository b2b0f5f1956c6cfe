# SPDX-License-Identifier: MIT
"""Every fenced block in docs/frameworks is run, or tagged `text`; servers in their protocol."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from tests.capability import need
from tests.docs import BLOCKS, Block, ask, name_of, run, serving
from tests.frameworks import quic
from tests.frameworks.asking import ask_dns, ask_quic, get_page
from tests.frameworks.relay import Relay
from tests.interop.programs import Program
from tests.senders import Address
from tests.unit.endpoints import ALICE

_BLOCKS: Final = [block for block in BLOCKS if block.needs_framework]
_PYTHON: Final = [block for block in _BLOCKS if block.language == "python"]
_SERVERS: Final = [block for block in _PYTHON if block.is_server]


# ---- How a server is asked -----------------------------------------------------------


def _collect(at: Address, server: Program) -> None:
    """Send syslog messages until one is noted; nothing answers."""
    ask(at, b"<13>1 - h a - - - hello", until=lambda: server.lines("."))


class _Protocol(NamedTuple):
    ask: Callable[[Address, Program], object]
    answer: str | None
    """With {host} for the client's; None where the protocol has none."""
    printed: str | None
    """A pattern of a line that the server prints; {host} as above."""


_PROTOCOLS: Final = {
    "dns.md": _Protocol(
        lambda at, _: ask_dns(at), "{host}", r"^client {host} via \('127\.0\.0\.1', \d+\)$"
    ),
    "nserver.md": _Protocol(lambda at, _: ask_dns(at), "{host}", r"^client {host}$"),
    "syslog.md": _Protocol(_collect, None, r"^{host} (notice hello|23|hello)$"),
    "aioquic.md": _Protocol(
        lambda at, _: ask_quic(at).decode(),
        "hello",
        r"^client {host} via \('127\.0\.0\.1', \d+\)$",
    ),
    "asgi.md": _Protocol(lambda at, _: get_page(at).body.decode(), "hello {host}", None),
}


# ---- The blocks ----------------------------------------------------------------------


def test_every_block_is_run_or_text() -> None:
    """Each block of these pages is Python, which is run here, or tagged `text`."""
    others = [name_of(b) for b in _BLOCKS if b.language not in ("python", "text")]

    assert others == []
    assert {Path(block.page).name for block in _SERVERS} == set(_PROTOCOLS)


@pytest.mark.parametrize("block", [b for b in _PYTHON if not b.is_server], ids=name_of)
def test_blocks_run(block: Block) -> None:
    """A block that is no server runs to its end, assertions included."""
    run(block)


@contextmanager
def _balanced(to: Address, block: Block) -> Iterator[Address]:
    """Put a balancer in front that says everybody is ALICE, in the block's own dialect."""
    dialect = "ppv2" if '"ppv2"' in block.text else "ipo"
    if dialect == "ipo":
        need("raw")
    with Relay(to, dialect) as relay:
        relay.claim = ALICE
        yield relay.address


@pytest.mark.parametrize("is_balanced", [False, True], ids=["direct", "balanced"])
@pytest.mark.parametrize("block", _SERVERS, ids=name_of)
def test_servers_know_who_asks(
    block: Block, is_balanced: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server answers in its own protocol, and names the client, behind a balancer or not."""
    quic.write_certificate(tmp_path)
    monkeypatch.chdir(tmp_path)
    protocol = _PROTOCOLS[Path(block.page).name]
    host = ALICE[0] if is_balanced else "127.0.0.1"
    with serving(block, "127.0.0.1" if is_balanced else None) as (server, at):
        if is_balanced:
            with _balanced(at, block) as vip:
                answer = protocol.ask(vip, server)
        else:
            answer = protocol.ask(at, server)
        assert answer == (protocol.answer and protocol.answer.format(host=host))
        if protocol.printed is not None:
            pattern = protocol.printed.replace("{host}", host.replace(".", r"\."))
            server.wait_for(pattern)
