# SPDX-License-Identifier: MIT
"""`uoa lb`: a small full-NAT UDP balancer for laptops, tests and labs.

    client ──► --listen │ lb │ --source ──► --to (server)

Each client address gets a socket of its own towards the server, and the first
`--trail` datagrams of such a flow tell the server who the client is, as real
balancers do it. Not for production.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections import OrderedDict
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from uoa import wire
from uoa._exceptions import BackendError, ConfigurationError, WireError
from uoa._socket import Socket
from uoa.cli import _ancillary, _hostport, _raw

if TYPE_CHECKING:
    import argparse

    from uoa._client import Addr

_IDLE_SECONDS = 300.0
_MAX_FLOWS = 10_000
_READS_PER_WAKEUP = 64
_ROOM = 65536


@dataclass(slots=True)
class _Flow:
    """One client address, and the socket that stands for it towards the server."""

    client: Addr
    sock: socket.socket
    opp: _raw.OppSocket | None  # beside it, while there is something to tell by opp
    header: bytes
    left: int  # datagrams that still have to tell the client
    used: float

    def stop_telling(self) -> None:
        """Close what only datagrams that tell need."""
        if self.opp is not None:
            self.opp.close()
            self.opp = None

    def close(self) -> None:
        """Close the sockets."""
        self.stop_telling()
        self.sock.close()


class Balancer:
    """Forwards datagrams between the clients and one server, until closed."""

    def __init__(
        self,
        listen: tuple[str, int],
        to: tuple[str, int],
        dialect: str,
        *,
        trail: int = 3,
        source: str | None = None,
        lie: bool = False,
    ) -> None:
        """Bind the listening socket.

        Args:
            listen: where clients send to.
            to: the server.
            dialect: how it is told, one of wire.DIALECT_NAMES.
            trail: how many datagrams of a flow tell; 0: all of them.
            source: the local host to reach the server from.
            lie: tell a client that is not the sender: for tests of tests.

        Raises:
            BackendError: the address is not to be had, or the dialect needs CAP_NET_RAW.
        """
        if dialect not in wire.PAYLOAD_DIALECTS and not _raw.is_allowed():
            what = "protocol 248" if dialect == "opp" else "IP options"
            raise BackendError(
                f"lb: dialect {dialect!r}: sending {what} needs CAP_NET_RAW: run as "
                "root, or inside `unshare -Urn`, or use --dialect ppv2"
            )
        self._to = to
        self._dialect = dialect
        self._trail = trail
        self._lie = lie
        self._outer = 6 if ":" in to[0] else 4
        self._source = source
        self._flows: OrderedDict[tuple[Any, ...], _Flow] = OrderedDict()
        # Trusts nobody, so that all are direct; answers leave from where they came to.
        self._listener = Socket.from_socket(_bound(listen), trust=[])
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._listener, self._from_clients)

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        host, port = self._listener.getsockname()[:2]
        return host, port

    def close(self) -> None:
        """Close all sockets."""
        self._loop.remove_reader(self._listener)
        self._listener.close()
        while self._flows:
            self._drop(next(iter(self._flows)))

    # ---- Towards the server ----------------------------------------------------

    def _from_clients(self) -> None:
        for _ in range(_READS_PER_WAKEUP):
            try:
                data, client = self._listener.recvfrom(_ROOM)
            except BlockingIOError:
                return
            except OSError:
                continue  # an ICMP error of an earlier reply
            self._forward(data, client)

    def _forward(self, data: bytes, client: Addr) -> None:
        flow = self._flows.get(client) or self._open(client)
        flow.used = self._loop.time()
        self._flows.move_to_end(client)
        try:
            if flow.left == 0:
                flow.sock.send(data)
            else:
                self._tell(flow, data)
        except (OSError, WireError):
            pass  # a full buffer, an ICMP error, no room: UDP may lose a datagram
        if flow.left > 0:
            flow.left -= 1
            if flow.left == 0:
                flow.stop_telling()

    def _tell(self, flow: _Flow, data: bytes) -> None:
        if flow.opp is not None:
            flow.opp.send(flow.header, data)
        elif self._dialect in wire.PAYLOAD_DIALECTS:
            flow.sock.send(flow.header + data)
        else:
            flow.sock.sendmsg([data], _ancillary.options(flow.header, self._outer))

    def _open(self, client: Addr) -> _Flow:
        now = self._loop.time()
        # The least recently used go: idle ones two at a time, and one for its place.
        for key, flow in list(islice(self._flows.items(), 2)):
            if now - flow.used > _IDLE_SECONDS or len(self._flows) >= _MAX_FLOWS:
                self._drop(key)
        sock = _bound((self._source or ("::" if self._outer == 6 else "0.0.0.0"), 0))
        try:
            sock.connect(self._to)
            opp = _raw.OppSocket(sock) if self._dialect == "opp" else None
        except OSError:
            sock.close()
            raise
        # spp is on every datagram, in both directions.
        left = -1 if self._trail == 0 or self._dialect == "spp" else self._trail
        flow = _Flow(client, sock, opp, self._header(client), left, now)
        self._flows[client] = flow
        self._loop.add_reader(sock, self._from_server, flow)
        return flow

    def _header(self, client: Addr) -> bytes:
        host, port = client
        if self._lie:
            port = port % 65535 + 1
        return wire.build(self._dialect, (host, port), vip=client.client.local, outer=self._outer)

    def _drop(self, key: tuple[Any, ...]) -> None:
        flow = self._flows.pop(key)
        self._loop.remove_reader(flow.sock)
        flow.close()

    # ---- Towards the client ----------------------------------------------------

    def _from_server(self, flow: _Flow) -> None:
        for _ in range(_READS_PER_WAKEUP):
            try:
                data = flow.sock.recv(_ROOM)
            except BlockingIOError:
                return
            except OSError:
                continue  # the server is not there: an ICMP error
            flow.used = self._loop.time()
            if self._dialect == "spp":
                if not data.startswith(flow.header):
                    continue  # as real ones do: a reply without the header is lost
                data = data[len(flow.header) :]
            with contextlib.suppress(OSError):
                self._listener.sendto(data, flow.client)


def _bound(address: tuple[str, int]) -> socket.socket:
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        sock.bind(address)
    except OSError as error:
        sock.close()
        where = _hostport.text_of(address)
        raise BackendError(error.errno, f"lb: {where}: {error.strerror}") from None
    return sock


async def _serve(args: argparse.Namespace) -> int:
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def fail(_: object, context: dict[str, Any]) -> None:
        error = context.get("exception") or RuntimeError(context["message"])
        if not done.done():
            done.set_exception(error)

    loop.set_exception_handler(fail)

    def stop() -> None:
        if not done.done():
            done.set_result(0)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    balancer = Balancer(
        args.listen, args.to, args.dialect, trail=args.trail, source=args.source, lie=args.lie
    )
    listen = _hostport.text_of(balancer.address)
    print(f"ready: {listen} to {_hostport.text_of(args.to)}, dialect {args.dialect}", flush=True)
    try:
        return int(await done)
    finally:
        balancer.close()


def run(args: argparse.Namespace) -> int:
    """Balance until SIGINT or SIGTERM."""
    if args.trail < 0:
        raise ConfigurationError(f"--trail: {args.trail} is below 0: 0 tells on every datagram")
    return asyncio.run(_serve(args))


def add_parser(commands: Any) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "lb", help="a small full-NAT balancer for tests", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--listen", type=_hostport.parse, required=True, metavar="HOST:PORT")
    parser.add_argument("--to", type=_hostport.parse, required=True, metavar="HOST:PORT")
    parser.add_argument(
        "--dialect",
        choices=wire.DIALECT_NAMES,
        default="ipo",
        help="how the server is told (default ipo)",
    )
    parser.add_argument(
        "--trail",
        type=int,
        default=3,
        metavar="N",
        help="how many datagrams of a flow tell the client (default 3; 0: all)",
    )
    parser.add_argument("--source", metavar="HOST", help="the local host to reach the server from")
    parser.add_argument(
        "--lie", action="store_true", help="tell a wrong client, to see that a test notices"
    )
    parser.set_defaults(run=run)
