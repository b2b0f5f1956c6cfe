# SPDX-License-Identifier: MIT
"""socat, which sends and reads IP options without knowing what they mean."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.capability import need
from tests.interop.programs import PYTHON, Program, balancing, running
from tests.senders import Address, udp_socket
from uoa import wire
from uoa.cli._hostport import text_of

_ECHO = Path(__file__).parents[2] / "examples" / "python" / "echo.py"
_BALANCER, _STRANGER = "127.0.0.8", "198.51.100.9"
_CLIENT, _VIP = ("203.0.113.7", 5555), ("127.0.0.1", 5300)

# The client's address as options of IPv4, by docs/wire-format.md 1.1 and 1.3, not by our builder.
_OPTIONS = {
    "ipo": "1f0815b3cb007107",
    "bd31": "1f10000015b314b4cb0071077f000001",
    "bd30": "1e10000015b314b4cb0071077f000001",
    "bd29": "1d1000000000000015b30000cb007107",
}

# What socat runs for a datagram; the option that came beside it is in the environment, in hex.
_TELL = "SYSTEM:'echo options=$SOCAT_IP_OPTIONS$SOCAT_IPV6_DSTOPTS payload=$(cat)'"

pytestmark = pytest.mark.netns(_CLIENT[0], _STRANGER)


@contextmanager
def _reader(listen: Address) -> Iterator[Program]:
    """Run socat, which answers one datagram with its option and its payload."""
    need("socat")
    if ":" in listen[0]:
        address = f"UDP6-RECVFROM:{listen[1]},bind=[{listen[0]}],ipv6-recvdstopts"
    else:
        address = f"UDP4-RECVFROM:{listen[1]},bind={listen[0]},ip-recvopts"
    with running("socat", "-d", "-d", address, _TELL, ready="receiving on ") as program:
        yield program


@pytest.mark.parametrize("dialect", _OPTIONS)
def test_options_of_socat_are_read(dialect: str) -> None:
    """An endpoint knows the client that socat names, and believes it of a trusted sender only."""
    need("socat")
    with running(
        *PYTHON, str(_ECHO), "--listen", "127.0.0.1:5601", "--trust", "127.0.0.0/8",
        "--dialect", "ipo" if dialect == "ipo" else "bd",
        ready="^ready$",
    ) as server:  # fmt: skip
        for host, port, client, source in (
            (_BALANCER, 4001, text_of(_CLIENT), "cmsg"),
            (_STRANGER, 4002, f"{_STRANGER}:4002", "direct"),
        ):
            to = f"UDP4-SENDTO:127.0.0.1:5601,bind={host}:{port},ip-options=x{_OPTIONS[dialect]}"
            subprocess.run(["socat", "-u", "-", to], input=b"hello", check=True)
            line = f"client {client} via {host}:{port} source={source}"
            assert server.wait_for(re.escape(f" via {host}:{port} ")) == [line]


@pytest.mark.parametrize("listen", [("127.0.0.1", 5602), ("::1", 5602)], ids=["4", "6"])
@pytest.mark.parametrize("dialect", _OPTIONS)
def test_options_of_send_reach_socat(dialect: str, listen: Address) -> None:
    """What `uoa send` puts beside a datagram is what socat reads there, byte for byte."""
    need("raw")
    outer = 6 if ":" in listen[0] else 4
    option = wire.build(dialect, _CLIENT, vip=_VIP, outer=outer)
    assert outer == 6 or option.hex() == _OPTIONS[dialect]
    with _reader(listen):
        result = subprocess.run(
            [
                *PYTHON, "-m", "uoa", "send", text_of(listen), "--dialect", dialect,
                "--client", text_of(_CLIENT), "--vip", text_of(_VIP), "--wait", "30", "--json",
            ],
            capture_output=True,
            text=True,
            check=True,
        )  # fmt: skip
        (reply,) = json.loads(result.stdout)["replies"]
        assert bytes.fromhex(reply).decode() == f"options=x{option.hex()} payload=hello\n"


@pytest.mark.parametrize("listen", [("127.0.0.1", 5602), ("::1", 5602)], ids=["4", "6"])
@pytest.mark.parametrize("dialect", _OPTIONS)
def test_options_of_lb_reach_socat(dialect: str, listen: Address) -> None:
    """`uoa lb` names the client in the first datagrams of a flow, and socat's answers reach it."""
    need("raw")
    option = wire.build(dialect, _CLIENT, vip=_VIP, outer=6 if ":" in listen[0] else 4)
    with balancing(_VIP, listen, dialect, trail=2), udp_socket(*_CLIENT) as client:
        for number in range(4):
            with _reader(listen):
                client.sendto(b"%d" % number, _VIP)
                answer, sender = client.recvfrom(1000)
            told = f"x{option.hex()}" if number < 2 else ""
            assert answer.decode() == f"options={told} payload={number}\n"
            assert sender == _VIP
