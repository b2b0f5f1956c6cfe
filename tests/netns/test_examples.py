# SPDX-License-Identifier: MIT
"""Each example, as a user runs it, behind `uoa lb`."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.capability import need

_EXAMPLES = Path(__file__).parents[2] / "examples" / "python"


@contextmanager
def _running(*command: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.terminate()


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().rstrip("\n")


def _free_port(host: str) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.bind((host, 0))
        port: int = sock.getsockname()[1]
        return port


@pytest.mark.parametrize("example", ["echo.py", "echo_socket.py", "echo_socketserver.py"])
@pytest.mark.parametrize("dialect", ["ipo", "bd31", "ppv2"])
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_echo_names_its_client(example: str, dialect: str, host: str) -> None:
    """Echo servers print and answer the client's address, the balancer's, and the source."""
    need("ipv6")
    if dialect != "ppv2":
        need("raw")
    at = f"[{host}]" if ":" in host else host
    listen = f"{at}:{_free_port(host)}"
    switch = dialect if dialect in ("ipo", "ppv2") else "bd"
    python = (sys.executable, "-W", "error")
    with ExitStack() as stack:
        server = stack.enter_context(
            _running(
                *python,
                str(_EXAMPLES / example),
                "--listen",
                listen,
                "--trust",
                "127.0.0.0/8,::1",
                "--dialect",
                switch,
            )
        )
        assert _line(server) == "ready"
        balancer = stack.enter_context(
            _running(
                *python,
                "-m",
                "uoa",
                "lb",
                "--listen",
                "127.0.0.1:0",
                "--to",
                listen,
                "--dialect",
                dialect,
                "--trail",
                "0" if dialect == "ppv2" else "3",
            )
        )
        vip = ("127.0.0.1", int(_line(balancer).split()[1].rpartition(":")[2]))
        client = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        client.bind(("127.0.0.33", 0))
        client.settimeout(10)
        own = "{}:{}".format(*client.getsockname())
        for _ in range(5):
            client.sendto(b"who am I?", vip)
            answer = client.recv(1000).decode()
            assert answer == _line(server)
            words = answer.split()
            assert words[:2] == ["client", own]
            assert words[2] == "via"
            assert words[3].startswith(f"{at}:")
            assert words[4] == ("source=proxy" if dialect == "ppv2" else "source=cmsg")
