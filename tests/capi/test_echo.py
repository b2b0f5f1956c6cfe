# SPDX-License-Identifier: MIT
"""examples/c/echo.c behind senders that do what balancers do."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.capability import need
from tests.capi.conftest import Installed
from tests.senders import Address, send_claim, udp_socket
from uoa import wire

TRUST: Final = "127.0.0.0/8,::1"
CLIENTS: Final = [("203.0.113.7", 5555), ("2001:db8::7", 6666)]
SWITCH: Final = {"bd31": "bd"}


def show(host: str, port: int) -> str:
    """Return HOST:PORT, an IPv6 host in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def free_port(host: str) -> int:
    """Return a port that nobody has."""
    with udp_socket(host) as sock:
        port: int = sock.getsockname()[1]
        return port


class Server:
    """The example at work."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        """Take the process and the port it serves."""
        self._process = process
        self.port = port

    def line(self) -> str:
        """Return the next line that it prints."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().rstrip("\n")


class Serve:
    """Starts the example."""

    def __init__(self, program: Path, installed: Installed) -> None:
        """Take the program and where its library is."""
        self._program = program
        self._environment = installed.environment()

    @contextmanager
    def __call__(self, host: str, *options: str, trust: str = TRUST) -> Iterator[Server]:
        """Run it on a free port until the end of the block."""
        port = free_port(host)
        command = [str(self._program), "--listen", show(host, port), "--trust", trust, *options]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env=self._environment
        ) as process:
            server = Server(process, port)
            try:
                assert server.line() == "ready"
                yield server
                assert process.poll() is None
            finally:
                process.terminate()

    def fail(self, *options: str) -> tuple[int, str]:
        """Run it with what it must refuse; return its status and what it says."""
        result = subprocess.run(
            [self._program, *options],
            capture_output=True,
            text=True,
            env=self._environment,
            timeout=30,
        )
        assert result.stdout == ""
        return result.returncode, result.stderr


@pytest.fixture
def serve(echo: Path, installed: Installed) -> Serve:
    """Give a test the example, ready to start."""
    return Serve(echo, installed)


def ask(sock: socket.socket, server: Address, client: Address, dialect: str) -> bytes:
    """Send a question that names its client; return what the asked address answers."""
    send_claim(sock, server, client, b"who am I?", dialect)
    answer, sender = sock.recvfrom(1000)
    assert sender[:2] == server
    return answer


@pytest.mark.parametrize("client", CLIENTS, ids=["client4", "client6"])
@pytest.mark.parametrize("dialect", ["ppv2", "ipo", "bd31"])
@pytest.mark.parametrize(
    ("listen", "to"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("::1", "::1"),
        ("0.0.0.0", "127.0.0.2"),
        ("::", "::1"),
        ("::", "127.0.0.2"),
    ],
)
def test_it_names_the_client(
    serve: Serve, listen: str, to: str, dialect: str, client: Address
) -> None:
    """Line and answer have client, balancer and source; the asked address answers."""
    need("ipv6")
    if dialect != "ppv2":
        need("raw")
    source = "proxy" if dialect == "ppv2" else "cmsg"
    with (
        serve(listen, "--dialect", SWITCH.get(dialect, dialect)) as server,
        udp_socket("::1" if to == "::1" else "127.0.0.1") as balancer,
    ):
        via = show(*balancer.getsockname()[:2])
        line = f"client {show(*client)} via {via} source={source}"
        for _ in range(3):
            assert ask(balancer, (to, server.port), client, dialect) == line.encode()
            assert server.line() == line


@pytest.mark.parametrize("client", CLIENTS, ids=["client4", "client6"])
@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "0.0.0.0"])
def test_spp_answers_carry_the_header(serve: Serve, host: str, client: Address) -> None:
    """The answer to an SPP datagram begins with the header that the balancer sent."""
    need("ipv6")
    to = "127.0.0.2" if host == "0.0.0.0" else host
    with serve(host, "--dialect", "spp") as server, udp_socket(to) as balancer:
        via = show(*balancer.getsockname()[:2])
        line = f"client {show(*client)} via {via} source=proxy"
        answer = ask(balancer, (to, server.port), client, "spp")

        assert answer == wire.build("spp", client) + line.encode()
        assert server.line() == line


def test_an_option_is_kept_for_its_flow(serve: Serve) -> None:
    """A datagram without an option has the client of its flow's last one; another peer has none."""
    need("raw")
    with (
        serve("127.0.0.1") as server,
        udp_socket("127.0.0.1") as balancer,
        udp_socket("127.0.0.1") as other,
    ):
        at = ("127.0.0.1", server.port)
        known = ask(balancer, at, CLIENTS[0], "ipo")
        balancer.sendto(b"again", at)
        other.sendto(b"hello", at)
        own = show(*other.getsockname())

        assert balancer.recv(1000) == known
        assert other.recv(1000).decode() == f"client {own} via {own} source=none"


def test_a_stranger_is_direct(serve: Serve) -> None:
    """A sender outside of `trust` is its own client, whatever it claims."""
    with (
        serve("127.0.0.1", "--backend", "proxy", trust="10.0.0.0/8") as server,
        udp_socket("127.0.0.1") as stranger,
    ):
        own = show(*stranger.getsockname())
        answer = ask(stranger, ("127.0.0.1", server.port), CLIENTS[0], "ppv2")

        assert answer.decode() == f"client {own} via {own} source=direct"


def test_batches_do_not_mix_clients_up(serve: Serve) -> None:
    """Hundreds of datagrams of two balancers' ports, sent at once: each gets its own answer."""
    with (
        serve("127.0.0.1", "--dialect", "ppv2") as server,
        udp_socket("127.0.0.1") as one,
        udp_socket("127.0.0.1") as two,
    ):
        at = ("127.0.0.1", server.port)
        for port in range(1, 101):
            send_claim(one, at, ("203.0.113.1", port), b"", "ppv2")
            send_claim(two, at, ("2001:db8::2", port), b"", "ppv2")
        for port in range(1, 101):
            assert one.recv(1000).startswith(f"client 203.0.113.1:{port} via ".encode())
            assert two.recv(1000).startswith(f"client [2001:db8::2]:{port} via ".encode())
        lines = [server.line() for _ in range(200)]

        assert len(set(lines)) == 200


def test_trust_may_come_from_the_environment(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, echo: Path, installed: Installed
) -> None:
    """Without --trust there must be UOA_TRUST; the example trusts nobody by default."""
    assert serve.fail() == (1, "echo: no --trust: name your balancers, or set UOA_TRUST\n")
    monkeypatch.setenv("UOA_TRUST", "10.0.0.1/8")
    assert "10.0.0.1/8" in Serve(echo, installed).fail()[1]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--trust", "10.0.0.1/8"], "--trust 10.0.0.1/8: bits are set behind the prefix length"),
        (["--trust", "::1,lb"], "--trust lb: not a prefix such as 10.0.0.0/24"),
        (["--dialect", "x"], "--dialect x: none of ipo, opp, bd, ppv2, spp"),
        (["--backend", "x"], "--backend x: none of auto, cmsg, proxy, sockopt"),
        (["--listen", "99"], "--listen 99: not HOST:PORT"),
        (["--listen", "[::1]:x"], "--listen: ::1 port x: "),
        (["--listen", "192.0.2.1:99"], "--listen: 192.0.2.1 port 99: "),
        (["--listen", "127.0.0.1:0", "--backend", "sockopt"], "nothing in this kernel knows"),
    ],
)
def test_it_says_what_is_wrong(serve: Serve, options: list[str], text: str) -> None:
    """A value that it cannot use ends it with status 1, and is named on stderr."""
    status, said = serve.fail("--trust", "::1", *options)

    assert status == 1
    assert said.startswith("echo: ")
    assert text in said


@pytest.mark.parametrize("options", [["--listen"], ["--what"], ["word"]], ids=" ".join)
def test_it_says_how_it_is_used(serve: Serve, options: list[str]) -> None:
    """Options that it does not have end it with status 2 and the usage on stderr."""
    status, said = serve.fail("--trust", "::1", *options)

    assert status == 2
    assert "usage: echo" in said
