# SPDX-License-Identifier: MIT
"""One variant, once: `python -m tests.bench.variants NAME MODE`, in a fresh process.

All datagrams are in the socket's buffer before the event loop looks at it, so
that what is measured is the receiving side alone. Prints datagrams a second.
"""

from __future__ import annotations

import asyncio
import gc
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

DATAGRAMS = 20_000
PAYLOAD = bytes(64)
SENDERS = 8
BUFFER = 256 << 20
MODES = ("drain", "echo")

_IP_OPTIONS = 4
_SO_RCVBUFFORCE, _SO_SNDBUFFORCE = 33, 32


def big_buffers(sock: socket.socket) -> None:
    """Let a socket hold all datagrams, in both directions."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, BUFFER)
        sock.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, BUFFER)
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)


def filled_socket(option: bytes) -> tuple[socket.socket, list[socket.socket]]:
    """Return a socket with all datagrams waiting, and the senders' sockets."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    big_buffers(sock)
    sock.bind(("127.0.0.1", 0))
    senders = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(SENDERS)]
    for sender in senders:
        big_buffers(sender)
        if option:
            sender.setsockopt(socket.IPPROTO_IP, _IP_OPTIONS, option)
        sender.connect(sock.getsockname())
    for number in range(DATAGRAMS):
        senders[number % SENDERS].send(PAYLOAD)
    return sock, senders


class _Counting(asyncio.DatagramProtocol):
    """Notes when the first and the last datagram came; answers in echo mode."""

    def __init__(self, is_echo: bool, done: asyncio.Future[float]) -> None:
        self._left = DATAGRAMS
        self._done = done
        self._started = 0.0
        if is_echo:
            self.datagram_received = self._echo  # type: ignore[method-assign]

    def connection_made(self, transport: Any) -> None:
        self._sendto: Callable[..., None] = transport.sendto

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        if self._left == DATAGRAMS:
            self._started = time.perf_counter()
        self._left -= 1
        if not self._left:
            self._done.set_result(time.perf_counter() - self._started)

    def _echo(self, data: bytes, addr: tuple[Any, ...]) -> None:
        self._sendto(data, addr)
        _Counting.datagram_received(self, data, addr)


async def _measure(mode: str, sock: socket.socket, is_uoa: bool) -> float:
    loop = asyncio.get_running_loop()
    done: asyncio.Future[float] = loop.create_future()

    def factory() -> _Counting:
        return _Counting(mode == "echo", done)

    sock.setblocking(False)
    gc.disable()
    if is_uoa:
        import uoa

        await uoa.asyncio.create_datagram_endpoint(factory, sock=sock, trust="127.0.0.0/8")
    else:
        await loop.create_datagram_endpoint(factory, sock=sock)
    async with asyncio.timeout(60):
        return await done


def _free_block() -> None:
    """Free one large block: glibc stops serving large ones by mmap from then on."""
    block = bytearray(8 << 20)
    del block


# Name: is it uoa's endpoint, on uvloop, in a process that freed a large block?
VARIANTS = {
    "asyncio": (False, False, False),
    "asyncio, warm heap": (False, False, True),
    "uvloop": (False, True, False),
    "uoa on asyncio": (True, False, False),
    "uoa on uvloop": (True, True, False),
}


def run(name: str, mode: str) -> float:
    """Return the datagrams a second of one variant."""
    is_uoa, is_uvloop, has_freed = VARIANTS[name]
    option = b""
    if is_uoa:
        import uoa

        option = uoa.wire.build("ipo", ("203.0.113.7", 5555))
    sock, senders = filled_socket(option)
    if has_freed:
        _free_block()
    factory = None
    if is_uvloop:
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        seconds = runner.run(_measure(mode, sock, is_uoa))
    for sender in senders:
        sender.close()
    return (DATAGRAMS - 1) / seconds


def run_apart(name: str, mode: str) -> float:
    """Return what run() does, from a process of its own."""
    result = subprocess.run(
        [sys.executable, "-m", "tests.bench.variants", name, mode],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=120,
    )
    return float(result.stdout)


if __name__ == "__main__":
    print(run(*sys.argv[1:]))
