# SPDX-License-Identifier: MIT
"""logger and rsyslog, which send syslog through `uoa lb` to the collector of the examples.

logger, rsyslogd ──syslog──► uoa lb ──option or PROXY v2──► syslog_collector.py
"""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.capability import need
from tests.interop.programs import PYTHON, Program, balancing, running
from tests.senders import Address, udp_socket
from uoa.cli._hostport import text_of
from uoa.syslog import Message, parse

_COLLECTOR = Path(__file__).parents[2] / "examples" / "python" / "syslog_collector.py"
_TRUST = "127.0.0.0/8,::1"

# A program that sends to an address of its own host sends from it, too.
_VIPS = {4: ("198.51.100.10", 514), 6: ("2001:db8:f::10", 514)}
_SERVERS = {4: ("127.0.0.1", 5514), 6: ("::1", 5514)}
_CLIENTS = {4: "203.0.113.7", 6: "2001:db8:c::7"}

_RSYSLOG = """
global(workDirectory="{folder}" processInternalMessages="on")
module(load="imudp")
input(type="imudp" address="127.0.0.1" port="5515" ruleset="forward")
ruleset(name="forward") {{
  action(type="omfwd" target="{target}" port="{port}" protocol="udp" address="{source}"
         template="{template}")
}}
action(type="omfile" file="/dev/stdout")
"""

pytestmark = pytest.mark.netns(
    *(host for host, _ in _VIPS.values()), *_CLIENTS.values(), "198.51.100.9"
)


@contextmanager
def _collecting(listen: Address, dialect: str) -> Iterator[Program]:
    with running(
        *PYTHON, str(_COLLECTOR), "--listen", text_of(listen), "--trust", _TRUST,
        "--dialect", dialect,
        ready="^ready$",
    ) as program:  # fmt: skip
        yield program


def _received(collector: Program, text: str) -> tuple[str, bytes]:
    """Return the line about the message with this text, and the message."""
    collector.wait_for(re.escape(text))
    # Both streams of the collector are read as one, and it writes to one after the other.
    lines = collector.lines("^client |^b['\"]")
    place = next(number for number, line in enumerate(lines) if text in line)
    data: bytes = ast.literal_eval(lines[place])
    return lines[place - 1], data


def _host_of(line: str, source: str) -> str:
    """Return the client's host of a line that says it came through the balancer."""
    found = re.fullmatch(rf"client (.+):\d+ via (127\.0\.0\.1|\[::1\]):\d+ source={source}", line)
    assert found is not None, line
    return found[1].strip("[]")


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("outer", [4, 6])
@pytest.mark.parametrize(("dialect", "source"), [("ipo", "cmsg"), ("ppv2", "proxy")])
def test_messages_of_logger_name_its_host(
    family: int, outer: int, dialect: str, source: str
) -> None:
    """logger writes both RFCs: the collector knows the client, and parse() what it says."""
    need("logger")
    vip, server = _VIPS[family], _SERVERS[outer]
    with (
        _collecting(server, dialect) as collector,
        balancing(vip, server, dialect, trail=0 if dialect == "ppv2" else 3),
    ):
        for rfc in (3164, 5424):
            subprocess.run(
                [
                    "logger", "-d", "-n", vip[0], "-P", str(vip[1]), f"--rfc{rfc}",
                    "-p", "local3.warning", "-t", "uoa-test", f"hello of {rfc}",
                ],
                check=True,
            )  # fmt: skip
            line, data = _received(collector, f"hello of {rfc}")
            assert _host_of(line, source) == vip[0]

            message = parse(data)
            assert (message.rfc, message.app, message.text) == (rfc, "uoa-test", f"hello of {rfc}")
            assert (message.facility_name, message.severity_name) == ("local3", "warning")
            assert message.hostname
            assert message.timestamp is not None
        assert len(collector.lines("^client ")) == 2


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize(
    ("template", "rfc"),
    [
        ("RSYSLOG_TraditionalForwardFormat", 3164),
        ("RSYSLOG_ForwardFormat", 3164),
        ("RSYSLOG_SyslogProtocol23Format", 5424),
    ],
)
@pytest.mark.parametrize(("dialect", "source"), [("ipo", "cmsg"), ("ppv2", "proxy")])
def test_messages_of_rsyslog_name_its_host(
    family: int, template: str, rfc: int, dialect: str, source: str, tmp_path: Path
) -> None:
    """rsyslog forwards what another host said: the client is rsyslog, whatever is in the text."""
    need("rsyslogd")
    vip, server, client = _VIPS[family], _SERVERS[4], _CLIENTS[family]
    config = tmp_path / "rsyslog.conf"
    config.write_text(
        _RSYSLOG.format(
            folder=tmp_path, target=vip[0], port=vip[1], source=client, template=template
        )
    )
    with (
        _collecting(server, dialect) as collector,
        balancing(vip, server, dialect, trail=0 if dialect == "ppv2" else 3),
        running("rsyslogd", "-n", "-f", str(config), "-i", str(tmp_path / "pid"), ready=" start"),
        udp_socket("127.0.0.1") as sender,
    ):
        for number in range(5):
            text = f"message {number}"
            sender.sendto(
                b"<34>Oct 11 22:14:15 elsewhere su[77]: " + text.encode(), ("127.0.0.1", 5515)
            )
            line, data = _received(collector, text)
            assert _host_of(line, source) == client

            message = parse(data)
            assert message.text.strip() == text  # one of the formats adds white space
            assert message == Message(
                text=message.text,
                rfc=rfc,
                facility=4,
                severity=2,
                timestamp=message.timestamp,
                hostname="elsewhere",
                app="su",
                procid="77",
            )


def test_headers_of_strangers_are_not_believed() -> None:
    """logger from a host that is no balancer is its own client, whatever it writes."""
    need("logger")
    server = ("198.51.100.9", 5514)
    with _collecting(server, "ppv2") as collector:
        subprocess.run(
            ["logger", "-d", "-n", server[0], "-P", str(server[1]), "-t", "tag", "of a stranger"],
            check=True,
        )
        line, _ = _received(collector, "of a stranger")
        found = re.fullmatch(r"client (198\.51\.100\.9:\d+) via \1 source=direct", line)
        assert found is not None, line
