# SPDX-License-Identifier: MIT
"""`uoa demo`: real clients, a real balancer and a real server, for four families.

    client ──► VIP │ uoa lb │ inside ──► server
    two of them    full NAT              an asyncio echo protocol on uoa.asyncio

All addresses are on the loopback interface of a private network namespace. Each
client sends many datagrams, of which the balancer marks the first three only.
What the server process printed is compared with the clients' own sockets.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from uoa.cli import _netns
from uoa.cli._hostport import text_of

if TYPE_CHECKING:
    from collections.abc import Iterator

SCHEMA = 1

_CLIENTS = 2
_DATAGRAMS = 50  # of each client
_TIMEOUT = 5.0
_REFUSED = 75  # exit status of the child that found no namespace


@dataclass(frozen=True)
class _Family:
    """The addresses of one family: who is who on the drawing above."""

    clients: tuple[str, str]
    vip: str
    inside: str
    server: str


_PRIVATE = {
    4: _Family(("203.0.113.7", "203.0.113.8"), "198.51.100.80", "10.0.0.5", "10.0.1.9"),
    6: _Family(
        ("2001:db8:c::7", "2001:db8:c::8"), "2001:db8:f::80", "2001:db8:a::5", "2001:db8:b::9"
    ),
}
_LOOPBACK = {
    4: _Family(("127.0.0.7", "127.0.0.8"), "127.0.0.80", "127.0.0.5", "127.0.0.9"),
    6: _Family(("::1", "::1"), "::1", "::1", "::1"),
}

# Name, family of the client's side, family of the server's.
_SCENARIOS = (("4to4", 4, 4), ("6to6", 6, 6), ("nat46", 4, 6), ("nat64", 6, 4))


@dataclass
class Scenario:
    """What came of one family pair. Addresses are of the first client."""

    name: str
    dialect: str
    sent: int = 0
    resolved: int = 0
    wrong: int = 0
    replies: int = 0
    peer: tuple[str, int] | None = None
    client: tuple[str, int] | None = None
    truth: tuple[str, int] | None = None

    @property
    def ok(self) -> bool:
        """Whether every datagram arrived, was answered and named its client."""
        return self.wrong == 0 and self.sent == self.resolved == self.replies > 0


def _start(stack: ExitStack, *arguments: str) -> tuple[subprocess.Popen[str], list[str]]:
    """Start a module of ours; return it and the words of its first line."""
    process = subprocess.Popen(
        [sys.executable, "-m", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    stack.enter_context(process)
    stack.callback(process.terminate)
    assert process.stdout is not None
    first = process.stdout.readline().split()
    if not first:
        raise ChildProcessError(f"demo: {arguments[0]} did not start: see its message above")
    return process, first


def _clients(stack: ExitStack, family: _Family, vip: tuple[str, int]) -> list[socket.socket]:
    sockets = []
    for host in family.clients:
        kind = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = stack.enter_context(socket.socket(kind, socket.SOCK_DGRAM))
        sock.settimeout(_TIMEOUT)
        sock.bind((host, 0))
        sock.connect(vip)
        sockets.append(sock)
    return sockets


def _exchange(clients: list[socket.socket], result: Scenario) -> None:
    """Send from both clients in turn, each datagram after the last one's answer."""
    for number in range(_DATAGRAMS):
        for client, sock in enumerate(clients):
            payload = f"{client} {number}".encode()
            sock.send(payload)
            result.sent += 1
            try:
                result.replies += sock.recv(2048) == payload
            except OSError:
                return  # nothing came back: no use in waiting for the others


def _judge(lines: Iterator[str], truths: list[tuple[str, int]], result: Scenario) -> None:
    """Compare what the server said of each datagram with the client's own address."""
    for line in lines:
        report = json.loads(line)
        client = (report["client"][0], report["client"][1])
        truth = truths[int(report["payload"].split()[0])]
        result.resolved += report["resolved"]
        if client != truth:
            result.wrong += 1
        # Show a wrong answer rather than a right one.
        if result.client is None or (client != truth and result.client == result.truth):
            result.peer = (report["peer"][0], report["peer"][1])
            result.client, result.truth = client, truth


def _run_scenario(
    name: str, outside: _Family, inside: _Family, backend: str, dialect: str, sabotage: bool
) -> Scenario:
    result = Scenario(name, dialect)
    with ExitStack() as stack:
        server, ready = _start(stack, "uoa.cli._demo_server", inside.server, inside.inside, backend)
        to = text_of((ready[1], ready[2]))
        trail = "0" if backend == "proxy" else "3"
        lie = ["--lie"] if sabotage else []
        _, ready = _start(
            stack, "uoa", "lb", "--listen", text_of((outside.vip, 0)), "--to", to,
            "--source", inside.inside, "--dialect", dialect, "--trail", trail, *lie,
        )  # fmt: skip
        vip = (outside.vip, int(ready[1].rpartition(":")[2]))
        clients = _clients(stack, outside, vip)
        _exchange(clients, result)
        truths = [sock.getsockname()[:2] for sock in clients]
        result.truth = truths[0]
        output, _ = server.communicate(timeout=_TIMEOUT)
        _judge(iter(output.splitlines()), truths, result)
    return result


def _report(results: list[Scenario], backend: str, degraded: bool, as_json: bool) -> int:
    ok = all(result.ok for result in results)
    if as_json:
        document: dict[str, Any] = {
            "schema": SCHEMA,
            "ok": ok,
            "degraded": degraded,
            "backend": backend,
            "scenarios": [asdict(result) for result in results],
        }
        print(json.dumps(document, indent=2))
        return 0 if ok else 1
    if degraded:
        print("Network namespaces are refused here: this is the loopback interface, and PROXY v2.")
    for result in results:
        peer = text_of(result.peer) if result.peer else "nothing"
        client = text_of(result.client) if result.client else "nobody"
        print(f"{result.name:6} the socket saw {peer}, the client is {client}")
        if result.ok:
            print(f"       {result.sent} datagrams, {result.replies} answers, all of them right")
        else:
            truth = text_of(result.truth) if result.truth else "nobody"
            print(
                f"       WRONG: the client's own socket is {truth}; of {result.sent} datagrams "
                f"{result.wrong} are wrong, {result.resolved} resolved, {result.replies} answered"
            )
    print("ok" if ok else "NOT OK")
    return 0 if ok else 1


def _run_all(families: dict[int, _Family], degraded: bool, args: argparse.Namespace) -> int:
    backend, dialect = ("proxy", "ppv2") if degraded else ("cmsg", "ipo")
    results = [
        _run_scenario(name, families[outside], families[inside], backend, dialect, args.sabotage)
        for name, outside, inside in _SCENARIOS
    ]
    return _report(results, backend, degraded, args.json)


def _run_in_namespace(args: argparse.Namespace) -> int:
    try:
        _netns.enter()
        _netns.set_up(
            host
            for family in _PRIVATE.values()
            for host in (*family.clients, family.vip, family.inside, family.server)
        )
    except OSError:
        return _REFUSED
    return _run_all(_PRIVATE, degraded=False, args=args)


def run(args: argparse.Namespace) -> int:
    """Run the four scenarios; 0 if every answer was right."""
    # In a child, since a namespace cannot be left again when it turns out that
    # nothing may be changed inside it.
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = _run_in_namespace(args)
            sys.stdout.flush()
        except OSError as error:
            print(f"uoa: {error}", file=sys.stderr)
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return _run_all(_LOOPBACK, degraded=True, args=args) if status == _REFUSED else status


def add_parser(commands: Any) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "demo", help="see it work, in a private network namespace", description=__doc__
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument(
        "--sabotage", action="store_true", help="make the balancer lie: this must fail"
    )
    parser.set_defaults(run=run)
