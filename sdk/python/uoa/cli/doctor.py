# SPDX-License-Identifier: MIT
"""`uoa doctor`: which backends work here, and for each that does not, why and what to do.

Every answer is an attempt of this process: a socket is prepared, a datagram with a
claim is sent to it over the loopback interface, and the client must come out.
"""

from __future__ import annotations

import json
import os
import platform
import socket
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uoa import _trust, wire
from uoa._exceptions import BackendError, UOAError
from uoa._resolver import Resolver
from uoa._socket import Socket
from uoa._version import __version__
from uoa.cli import _ancillary, _raw, _table

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

SCHEMA = 1

_CLIENT = ("203.0.113.7", 5555)
_HOSTS = {4: "127.0.0.1", 6: "::1"}
_SECONDS = 2.0  # a datagram over the loopback interface takes microseconds
_COLUMNS = (("backend", 8), ("part", 14), ("works", 5), ("found", 0))
_SMALL_BUFFER = 1 << 20
_SYSCTL = Path("/proc/sys/net")


@dataclass(frozen=True, slots=True)
class Finding:
    """What one attempt showed."""

    backend: str
    part: str
    works: bool
    found: str
    """What happened."""
    todo: str | None = None
    """What to do if this backend is wanted."""


# ---- Attempts ------------------------------------------------------------------------


def _sysctl(name: str) -> str:
    try:
        return (_SYSCTL / name).read_text(encoding="ascii").strip()
    except OSError:
        return "not there"


def _reason(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)


def _claimed(backend: str, dialect: str, family: int, *, send: bool = True) -> str:
    """Send a claim to a socket of ours; return what came out. Raises OSError, UOAError."""
    host = _HOSTS[family]
    kind = socket.AF_INET6 if family == 6 else socket.AF_INET
    part = wire.build(dialect, _CLIENT, vip=(_HOSTS[4], 53), outer=family)
    resolver = Resolver([host], backend, "bd" if dialect.startswith("bd") else dialect)
    with (
        Socket(kind, resolver=resolver) as server,
        socket.socket(kind, socket.SOCK_DGRAM) as sender,
    ):
        server.bind((host, 0))
        if not send:
            return "the kernel takes the request; sending an option was not tried (CAP_NET_RAW)"
        server.settimeout(_SECONDS)
        sender.bind((host, 0))
        to = server.getsockname()
        if dialect in wire.PAYLOAD_DIALECTS:
            sender.sendto(part, to)
        else:
            sender.sendmsg([b""], _ancillary.options(part, family), 0, to)
        _, addr = server.recvfrom(100)
        client = addr.client
        if (client.host, client.port) != _CLIENT:
            raise BackendError(f"the claim did not arrive: the client came out as {client.source}")
    return f"a datagram's claim arrived, dialect {dialect}"


def _cmsg(family: int) -> Finding:
    name = f"IPv{family} options"
    try:
        found = _claimed("cmsg", "ipo", family, send=_raw.is_allowed())
    except TimeoutError:
        limits = ", ".join(
            f"net.ipv6.{option} is {_sysctl(f'ipv6/{option}')}"
            for option in ("max_dst_opts_number", "max_dst_opts_length")
        )
        return Finding(
            "cmsg",
            name,
            False,
            "a datagram with an option was lost on the loopback interface"
            + (f": {limits}" if family == 6 else ""),
            "let packets with options pass: raise these limits, or look for a packet filter",
        )
    except (OSError, UOAError) as error:
        todo = "bring the loopback interface up"
        if family == 6:
            todo += ", and switch IPv6 on, if your balancer speaks it to you"
        return Finding("cmsg", name, False, f"no socket for it: {_reason(error)}", todo)
    return Finding("cmsg", name, True, found)


def _proxy(dialect: str) -> Finding:
    try:
        return Finding("proxy", dialect, True, _claimed("proxy", dialect, 4))
    except (OSError, UOAError) as error:
        todo = "bring the loopback interface up, or look for a packet filter"
        return Finding("proxy", dialect, False, f"no claim came through: {_reason(error)}", todo)


def _sockopt() -> Finding:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            asker = Resolver([], "sockopt").meet(sock, reads=False)
        except (OSError, UOAError):
            return Finding(
                "sockopt",
                "getsockopt()",
                False,
                "nobody answers requests 2051 or 2048",
                "load a module or a program that keeps the table, if your balancer needs one (opp)",
            )
    return Finding("sockopt", "getsockopt()", True, f"the kernel answers request {asker.request}")


_ATTEMPTS: tuple[Callable[[], Finding], ...] = (
    lambda: _cmsg(4),
    lambda: _cmsg(6),
    lambda: _proxy("ppv2"),
    lambda: _proxy("spp"),
    _sockopt,
)


# ---- The machine ---------------------------------------------------------------------


def _auto(*, reads: bool) -> str | None:
    """Return what `auto` takes for a socket here, None if nothing works."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        resolver = Resolver([])
        with suppress(UOAError):
            resolver.meet(sock, reads=reads)
            return resolver.backend
    return None


def _environment() -> dict[str, Any]:
    trust = os.environ.get(_trust.ENVIRONMENT)
    problem = None
    if trust is not None:
        try:
            Resolver([item for item in trust.split(",") if item.strip() != "*"]).close()
        except UOAError as error:
            problem = f"{_trust.ENVIRONMENT}: {error}"
    return {
        "uoa": __version__,
        "python": platform.python_version(),
        "kernel": platform.release(),
        "trust": trust,
        "problem": problem,
        "receive_buffer": {
            name: _number(_sysctl(f"core/rmem_{name}")) for name in ("default", "max")
        },
        "auto": {"endpoint": _auto(reads=True), "other_transports": _auto(reads=False)},
    }


def _number(text: str) -> int | None:
    return int(text) if text.isdigit() else None


def _remarks(environment: dict[str, Any]) -> Iterator[str]:
    buffer = environment["receive_buffer"]
    auto = environment["auto"]
    yield (
        f"uoa {environment['uoa']}, Python {environment['python']}, Linux {environment['kernel']}"
    )
    yield (
        f"auto takes {auto['endpoint'] or 'nothing'} for endpoints of uoa, "
        f"{auto['other_transports'] or 'nothing but proxy'} for transports of others"
    )
    if environment["trust"] is None:
        yield f"{_trust.ENVIRONMENT} is not set: each server says itself whom it trusts"
    elif not environment["problem"]:
        yield f"{_trust.ENVIRONMENT} is {environment['trust']}"
    if buffer["max"] is not None and buffer["max"] < _SMALL_BUFFER:
        yield (
            f"receive buffers are at most {buffer['max']} bytes (net.core.rmem_max): "
            "a busy server wants more"
        )


def run(args: argparse.Namespace) -> int:
    """Try everything; 0 if a backend works and UOA_TRUST is no mistake."""
    findings = [attempt() for attempt in _ATTEMPTS]
    environment = _environment()
    is_ok = any(finding.works for finding in findings) and environment["problem"] is None
    if args.json:
        document = {
            "schema": SCHEMA,
            "ok": is_ok,
            "backends": [asdict(finding) for finding in findings],
            "environment": environment,
        }
        print(json.dumps(document, indent=1))
        return 0 if is_ok else 1
    _table.print_rows(
        _COLUMNS, [(f.backend, f.part, "yes" if f.works else "no", f.found) for f in findings]
    )
    print()
    for remark in _remarks(environment):
        print(remark)
    for finding in findings:
        if finding.todo:
            print(f"{finding.backend}, {finding.part}: {finding.todo}")
    if environment["problem"]:
        raise BackendError(environment["problem"])
    return 0 if is_ok else 1


def add_parser(commands: Any) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "doctor",
        help="which backends work here, and why not",
        description=__doc__.split("\n")[0],
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(run=run)
