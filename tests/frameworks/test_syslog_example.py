# SPDX-License-Identifier: MIT
"""examples/python/syslog_collector.py: one line for each message, which no message can forge."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Final

import pytest

import uoa.testing
from tests.capability import need
from tests.interop.programs import PYTHON, running
from tests.senders import udp_socket
from tests.unit.endpoints import ALICE, BOB, HOSTS
from uoa.cli._hostport import text_of

_EXAMPLE: Final = Path(__file__).parents[2] / "examples" / "python" / "syslog_collector.py"


@pytest.mark.parametrize("backend", ["auto", "proxy"])
@pytest.mark.parametrize("host", HOSTS)
def test_each_message_is_one_line(host: str, backend: str) -> None:
    """Clients of both families, messages of several lines, empty datagrams, 60,000 bytes."""
    if ":" in host:
        need("ipv6")
    with udp_socket(host) as free:
        listen = free.getsockname()[:2]
    hostile = b"<13>x\nclient 192.0.2.1:1 via 192.0.2.2:2 source=proxy\r\x1b[2K\xff"
    with running(
        *PYTHON, str(_EXAMPLE), "--listen", text_of(listen), "--trust", "127.0.0.0/8,::1",
        "--backend", backend, "--dialect", "ppv2",
        ready="^ready$",
    ) as collector, uoa.testing.Balancer(listen) as balancer:  # fmt: skip
        messages = [(b"<13>hello", ALICE), (hostile, BOB), (b"<13>" + bytes(60000), ALICE)]
        for number, (data, client) in enumerate(messages, start=1):
            balancer.send(b"", client)
            balancer.send(data, client)
            collector.wait_for("^b['\"]", number)
        lines = collector.lines("^client ")
        assert lines == [
            f"client {text_of(client)} via {text_of(balancer.peer(client))} source=proxy"
            for _, client in messages
        ]
        said = [ast.literal_eval(line) for line in collector.lines("^b['\"]")]
        assert said == [data for data, _ in messages]
