# SPDX-License-Identifier: MIT
"""The examples that need a framework do what every example does, in their own protocol.

What is theirs alone is tested elsewhere: test_whoami_h3.py, test_syslog_example.py, and with
programs nobody here wrote in tests/interop.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.capability import need
from tests.frameworks.asking import get_page
from tests.frameworks.relay import Relay
from tests.frameworks.servers import dns_answer, dns_question
from tests.interop.programs import PYTHON, balancing
from tests.senders import Address, udp_socket
from tests.unit.endpoints import ALICE, BOB, HOSTS, TRUST
from uoa.cli._hostport import text_of

_FOLDER: Final = Path(__file__).parents[2] / "examples/python"


class Example:
    """An example at work."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def line(self) -> str:
        """Return the next line on stdout."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().rstrip("\n")


@contextmanager
def running_example(name: str, at: Address, *arguments: str) -> Iterator[Example]:
    """Run an example until the `with` ends, which finds that it has said no more."""
    command = [*PYTHON, str(_FOLDER / f"{name}.py"), "--listen", text_of(at), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        example = Example(process)
        try:
            assert example.line() == "ready"
            yield example
        finally:
            process.terminate()
            rest, _ = process.communicate()
    assert rest == ""


def free_address(host: str) -> Address:
    """Return an address where nobody listens."""
    with udp_socket(host) as free:
        address: Address = free.getsockname()[:2]
        return address


# ---- Questions, which return the line of the answer; None where there are no answers --------


def _ask_dns(at: Address) -> str | None:
    with udp_socket(at[0]) as sock:
        sock.sendto(dns_question(), at)
        return dns_answer(sock.recv(4096))


def _ask_h3(at: Address) -> str | None:
    found = re.search(r'id="line">([^<]*)<', get_page(at).body.decode())
    assert found is not None
    return found[1]


def _ask_syslog(at: Address) -> str | None:
    with udp_socket(at[0]) as sock:
        sock.sendto(b"<13>hello", at)
    return None


_QUESTIONS: Final[dict[str, Callable[[Address], str | None]]] = {
    "whoami_dns": _ask_dns,
    "whoami_h3": _ask_h3,
    "syslog_collector": _ask_syslog,
}

pytestmark = pytest.mark.parametrize("name", _QUESTIONS)


def _asked(example: Example, name: str, relay: Relay) -> tuple[str, Address]:
    """Ask through a balancer; return the line, which is the answer too, and the balancer's port."""
    answer = _QUESTIONS[name](relay.address)
    line = example.line()
    assert answer in (line, None)
    [peer] = relay.peers()
    return line, peer


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize(
    ("dialect", "backend", "source"),
    [
        ("ipo", None, "cmsg"),
        ("ipo", "cmsg", "cmsg"),
        ("bd31", "auto", "cmsg"),
        ("ppv2", None, "proxy"),
        ("ppv2", "proxy", "proxy"),
        (None, None, "none"),
    ],
)
def test_behind_a_balancer(
    name: str, dialect: str | None, backend: str | None, source: str, host: str
) -> None:
    """`ready`, then a line for each request, IPv6 in brackets; it is the answer as well."""
    if ":" in host:
        need("ipv6")
    if source == "cmsg":
        need("raw")
    at = free_address(host)
    arguments = ["--trust", TRUST]
    if dialect is not None:
        arguments += ["--dialect", "bd" if dialect == "bd31" else dialect]
    if backend is not None:
        arguments += ["--backend", backend]
    with running_example(name, at, *arguments) as example:
        for client in (ALICE, BOB, ALICE):
            with Relay(at, dialect) as relay:
                relay.claim = client
                line, peer = _asked(example, name, relay)
            who = text_of(peer if source == "none" else client)
            assert line == f"client {who} via {text_of(peer)} source={source}"


def test_spp(name: str) -> None:
    """The same where replies have to carry a header, which `uoa lb` takes off."""
    at, vip = free_address("127.0.0.1"), free_address("127.0.0.1")
    arguments = ["--trust", TRUST, "--dialect", "spp"]
    with running_example(name, at, *arguments) as example, balancing(vip, at, "spp", 0):
        answer = _QUESTIONS[name](vip)
        line = example.line()
        ports = r"127\.0\.0\.1:\d+"
        assert re.fullmatch(rf"client {ports} via {ports} source=proxy", line)
        assert answer in (line, None)


@pytest.mark.parametrize("host", HOSTS)
def test_directly(name: str, host: str) -> None:
    """Who comes from no balancer is the client; the balancers are those of UOA_TRUST."""
    if ":" in host:
        need("ipv6")
    at = free_address(host)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("UOA_TRUST", "192.0.2.1")
        with running_example(name, at) as example, Relay(at, None) as relay:
            line, peer = _asked(example, name, relay)
            assert line == f"client {text_of(peer)} via {text_of(peer)} source=direct"


def test_no_request_no_line(name: str) -> None:
    """What is no request of the protocol is not told on stdout."""
    at = free_address("127.0.0.1")
    with running_example(name, at, "--trust", "192.0.2.1") as example, Relay(at, None) as relay:
        with udp_socket("127.0.0.1") as sock:
            for _ in range(10):
                # Whatever is in it, it is a message of syslog, but for this one.
                sock.sendto(b"" if name == "syslog_collector" else b"junk", at)
        line, peer = _asked(example, name, relay)
        assert line == f"client {text_of(peer)} via {text_of(peer)} source=direct"


def test_what_cannot_work(name: str) -> None:
    """A backend that cannot read the dialect is refused, before `ready`."""
    command = [
        sys.executable, str(_FOLDER / f"{name}.py"), "--listen", "127.0.0.1:0",
        "--trust", TRUST, "--backend", "cmsg", "--dialect", "ppv2",
    ]  # fmt: skip
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert result.returncode == 1
    assert result.stdout == ""
    assert "ConfigurationError" in result.stderr or "BackendError" in result.stderr
