# SPDX-License-Identifier: MIT
"""`uoa doctor`: which backends work here, and why others do not.

Each is tried by a datagram to ourselves, received by the code that serves users:

    a plain socket ──► lo ──► uoa.Socket: is the client whom the datagram named?

or, for `sockopt`, by a question to the kernel. Nothing is changed.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import platform
import socket
import struct
import warnings
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from uoa import wire
from uoa._exceptions import BackendError, TrustError
from uoa._resolver import Resolver
from uoa._socket import Socket
from uoa._trust import ENVIRONMENT
from uoa._version import __version__
from uoa.cli import _ancillary, _raw, _table

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

SCHEMA = 1

WORKS, FAILS, NOT_TRIED = "works", "fails", "not tried"

_PATIENCE = 1.0  # seconds that a datagram may take over the loopback interface
_SMALL = 128 * 1024  # bytes of receive buffer: a hundred datagrams, more or less
_MOST = (1 << 30) - 1  # the kernel doubles it, and gives less
_OLD_REQUEST = 2048
_SIOCGIFFLAGS, _IFF_UP = 0x8913, 1  # linux/sockios.h, linux/if.h
_COLUMNS = (("backend", 7), ("wire", 4), ("tried", 16), ("result", 9), ("why, and what to do", 0))


class _Wire(NamedTuple):
    """An IP version, and what a datagram over it is made of."""

    name: str
    number: int
    family: socket.AddressFamily
    host: str
    request: str
    """The socket option that asks for the header's options."""
    client: tuple[str, int]
    vip: tuple[str, int]


_WIRES = (
    _Wire(
        *("ipv4", 4, socket.AF_INET, "127.0.0.1", "IP_RECVOPTS"),
        *(("192.0.2.7", 5555), ("192.0.2.80", 443)),
    ),
    _Wire(
        *("ipv6", 6, socket.AF_INET6, "::1", "IPV6_RECVDSTOPTS"),
        *(("2001:db8::7", 5555), ("2001:db8::80", 443)),
    ),
)


@dataclass(frozen=True)
class Trial:
    """What came of one thing that was tried."""

    what: str
    wire: str | None
    result: str
    why: str | None = None
    todo: str | None = None


@dataclass(frozen=True)
class Backend:
    """What came of everything that was tried of one backend."""

    name: str
    works: bool
    why: str | None
    todo: str | None
    tried: tuple[Trial, ...]


class _FailedError(Exception):
    """Why it does not work, and what to do."""

    result = FAILS


class _UntriedError(_FailedError):
    """Why nobody can tell here, and who could."""

    result = NOT_TRIED


# ---- A datagram to ourselves ---------------------------------------------------


def _setting(name: str) -> int | None:
    """Return a setting of this network namespace, if the kernel has it."""
    try:
        return int(Path("/proc/sys", name.replace(".", "/")).read_text(encoding="ascii"))
    except OSError:
        return None


def _is_loopback_down() -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        answer = fcntl.ioctl(sock, _SIOCGIFFLAGS, struct.pack("=16s24x", b"lo"))
    return not struct.unpack_from("=H", answer, 16)[0] & _IFF_UP


def _refused_by_settings(over: _Wire, option: bytes) -> _FailedError | None:
    """Return which setting makes the kernel drop packets with this option: IPv4 has none."""
    if over.number == 4:
        return None
    number, length = "net.ipv6.max_dst_opts_number", "net.ipv6.max_dst_opts_length"
    for name, least, usual in ((number, 1, 8), (length, len(option), 0x7FFFFFFF)):
        value = _setting(name)
        if value is not None and value < least:
            why = f"{name} is {value}, so that the kernel drops what has such an option"
            return _FailedError(why, f"sysctl -w {name}={usual}")
    return None


def _explained(error: OSError, over: _Wire, what: str) -> _FailedError:
    """Return what the kernel means by an error."""
    why = f"{what}: {os.strerror(error.errno or 0)}"
    if error.errno == errno.EAFNOSUPPORT:
        todo = f"nothing, unless balancers reach this host over {over.name}: then boot with it"
        return _FailedError(f"the kernel has no {over.name}", todo)
    if error.errno in (errno.EADDRNOTAVAIL, errno.ENETUNREACH):
        off = "net.ipv6.conf.lo.disable_ipv6"
        if over.number == 6 and _setting(off):
            todo = f"nothing, unless balancers reach this host over ipv6: sysctl -w {off}=0"
            return _FailedError(f"{off} is 1: {why}", todo)
        if _is_loopback_down():
            return _FailedError(f"the loopback interface is down: {why}", "ip link set lo up")
    return _FailedError(why, "use another backend, or a system that allows this")


def _server(over: _Wire, backend: str, dialect: str) -> Socket:
    """Open a socket as users do, which believes this host."""
    resolver = Resolver([over.host], backend, dialect, max_flows=1)
    try:
        sock = Socket(over.family, resolver=resolver)
        try:
            sock.bind((over.host, 0))
        except OSError:
            sock.close()
            raise
    except OSError as error:
        what = over.request if error.errno == errno.ENOPROTOOPT else over.host
        raise _explained(error, over, what) from None
    sock.settimeout(_PATIENCE)
    return sock


def _open(over: _Wire) -> None:
    """See whether a server may ask for the options of what it receives."""
    _server(over, "cmsg", "ipo").close()


def _exchange(over: _Wire, backend: str, dialect: str) -> None:
    """Send a datagram that names a client, and see whether the server is told that client."""
    added = wire.build(dialect, over.client, vip=over.vip, outer=over.number)
    option, header = (added, b"") if backend == "cmsg" else (b"", added)
    payload = f"uoa doctor {os.getpid()}".encode()
    with (
        _server(over, backend, dialect) as server,
        socket.socket(over.family, socket.SOCK_DGRAM) as sender,
    ):
        refused = _refused_by_settings(over, option) if option else None
        ancillary = _ancillary.options(option, over.number)
        try:
            sender.sendmsg([header, payload], ancillary, 0, server.getsockname())
        except OSError as error:
            if option and not _raw.is_allowed():
                raise refused or _UntriedError(
                    "sending it needs CAP_NET_RAW, which servers do without",
                    "be root to try this as well",
                ) from None
            raise _explained(error, over, f"sending to {over.host}") from None
        data = b""
        try:
            while not data.endswith(payload):  # a stranger may write to us
                data, addr = server.recvfrom(2048)
        except TimeoutError:
            carrier = "datagrams with IP options" if option else "datagrams on lo"
            raise refused or _FailedError(
                f"the datagram did not arrive within {_PATIENCE:g} s",
                f"look for a packet filter that drops {carrier}: nft list ruleset",
            ) from None
    told = (addr.client.source, addr.client.host, addr.client.port)
    if told != (backend, *over.client):
        raise _FailedError(
            f"the datagram arrived, but not the client in its {dialect}",
            'use dialects="ppv2", which no system takes out on the way',
        )


def _tried(what: str, over: _Wire, attempt: Callable[[], object]) -> Trial:
    try:
        attempt()
    except _FailedError as error:
        return Trial(what, over.name, error.result, *error.args)
    return Trial(what, over.name, WORKS)


# ---- The backends --------------------------------------------------------------


def _cmsg() -> Iterator[Trial]:
    for over in _WIRES:
        asked = _tried(over.request, over, partial(_open, over))
        yield asked
        if asked.result == WORKS:
            yield _tried("ipo", over, partial(_exchange, over, "cmsg", "ipo"))


def _proxy() -> Iterator[Trial]:
    for over in _WIRES:
        for dialect in ("ppv2", "spp"):
            yield _tried(dialect, over, partial(_exchange, over, "proxy", dialect))


def _sockopt() -> Iterator[Trial]:
    """Ask for the flow of nobody, as every resolver does that meets a socket."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
        closing(Resolver([], "sockopt", max_flows=1)) as resolver,
    ):
        try:
            request = resolver.meet(sock, reads=False).request
        except BackendError:
            why = "nobody answers these getsockopt() requests"
            todo = "load a module or a program that does, or use cmsg or proxy, which need none"
            yield Trial("2051, 2048", None, FAILS, why, todo)
            return
    if request == _OLD_REQUEST:
        why = "nobody answers 2051, so that VIP, dialect and age stay unknown"
        todo = "nothing, unless you need these"
        yield Trial("2048", None, WORKS, why, todo)
    else:
        yield Trial("2051", None, WORKS)


def _judged(name: str, trials: Iterator[Trial]) -> Backend:
    """A backend works if it does over one of the wires."""
    tried = tuple(trials)
    results: dict[str | None, set[str]] = {}
    for trial in tried:
        results.setdefault(trial.wire, set()).add(trial.result)
    if any(WORKS in result and FAILS not in result for result in results.values()):
        return Backend(name, True, None, None, tried)
    first = next(trial for trial in tried if trial.result == FAILS)
    return Backend(name, False, first.why, first.todo, tried)


def _auto(*, reads: bool) -> str | None:
    """Return what `auto` takes for a socket of ours, or, if others read it, of theirs."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
        closing(Resolver([], max_flows=1)) as resolver,
    ):
        try:
            resolver.meet(sock, reads=reads)
        except BackendError:
            return None
        return resolver.backends[0]


# ---- The environment -----------------------------------------------------------


def _trust() -> dict[str, Any]:
    """Return what UOA_TRUST means, or why it means nothing."""
    value = os.environ.get(ENVIRONMENT)
    prefixes = why = None
    if value is not None:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            try:
                with closing(Resolver(max_flows=1)) as resolver:
                    prefixes = resolver.trust
            except TrustError as error:
                why = str(error)
        if warned:
            why = str(warned[0].message)
    return {"value": value, "prefixes": prefixes, "why": why}


def buffer_hint(default: int, most: int) -> str | None:
    """Return what to do about a receive buffer of `default` bytes, at most `most`, if anything."""
    if default >= _SMALL:
        return None
    first = "" if most >= _SMALL else f"sysctl -w net.core.rmem_max={_SMALL}, then "
    return f"{first}set SO_RCVBUF, or sysctl -w net.core.rmem_default={_SMALL}"


def _receive_buffer() -> dict[str, Any]:
    """Return what a socket gets, and gets at most, in the words of net.core.rmem_*."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        default = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _MOST)
        most = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2
    return {"default": default, "max": most, "todo": buffer_hint(default, most)}


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


def _environment() -> dict[str, Any]:
    return {
        "uoa": __version__,
        "python": platform.python_version(),
        "kernel": platform.release(),
        "ipv6": _has_ipv6(),
        "trust": _trust(),
        "receive_buffer": _receive_buffer(),
    }


# ---- What comes out ------------------------------------------------------------


def _rows(backends: list[Backend]) -> Iterator[tuple[str, ...]]:
    for backend in backends:
        for trial in backend.tried:
            advice = ": ".join(filter(None, (trial.why, trial.todo)))
            yield backend.name, trial.wire or "-", trial.what, trial.result, advice


def _trust_line(trust: dict[str, Any]) -> str:
    if trust["why"] is not None:
        return f"{ENVIRONMENT}={trust['value']}: {trust['why']}"
    if trust["prefixes"] is None:
        return f"{ENVIRONMENT} is not set: programs name their balancers themselves"
    return f"{ENVIRONMENT}: {', '.join(trust['prefixes']) or 'nobody'}"


def _print(backends: list[Backend], auto: dict[str, str | None], facts: dict[str, Any]) -> None:
    _table.print_rows(_COLUMNS, _rows(backends))
    buffer = facts["receive_buffer"]
    hint = f": small: {buffer['todo']}" if buffer["todo"] else ""
    others = auto["others"] or 'none: say dialects="ppv2" or "spp", if your balancer sends that'
    working = [backend.name for backend in backends if backend.works]
    ours = str(auto["ours"]) + ("" if auto["ours"] in working else ", which does not work here")
    print(f"works    {', '.join(working) or 'nothing'}")
    print(f"auto     for uoa's own endpoints and sockets: {ours}")
    print(f"auto     for transports of others: {others}")
    print(f"trust    {_trust_line(facts['trust'])}")
    print(f"buffer   {buffer['default']} bytes to receive, at most {buffer['max']}{hint}")
    print(f"ipv6     {'yes' if facts['ipv6'] else 'no'}")
    print(f"kernel   {facts['kernel']}")
    print(f"uoa      {facts['uoa']}, Python {facts['python']}")


def run(args: argparse.Namespace) -> int:
    """Try everything; it is an error when nothing works."""
    tries = {"cmsg": _cmsg, "proxy": _proxy, "sockopt": _sockopt}
    backends = [_judged(name, trials()) for name, trials in tries.items()]
    auto = {"ours": _auto(reads=True), "others": _auto(reads=False)}
    ok = any(backend.works for backend in backends)
    environment = _environment()
    if args.json:
        document = {
            "schema": SCHEMA,
            "ok": ok,
            "backends": [asdict(backend) for backend in backends],
            "auto": auto,
            "environment": environment,
        }
        print(json.dumps(document, indent=2))
    else:
        _print(backends, auto, environment)
    if not ok:
        raise BackendError(f"doctor: no backend works here: {backends[0].why}: {backends[0].todo}")
    return 0


def add_parser(commands: Any) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "doctor",
        help="which backends work here, and why others do not",
        description=__doc__.split("\n")[0],
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(run=run)
