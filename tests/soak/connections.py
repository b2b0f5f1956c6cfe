# SPDX-License-Identifier: MIT
"""`python -m tests.soak.connections SECONDS SEED`: attack uoa.dnslib over TCP, report as JSON.

Floods of connections: reset, cut within the header, with malformed headers and queries;
and waves of slow ones, more than the server has threads for, that send a byte now and
then. Honest clients ask all along.
"""

from __future__ import annotations

import asyncio
import errno
import json
import random
import socket
import struct
import sys
import tempfile
import time
from typing import IO, Any, Final

from tests.frameworks import world
from tests.frameworks.servers import dns_answer, dns_question
from tests.senders import Address
from tests.soak import payloads
from tests.soak.adapters import REASONS, Watch, errors_in, measured
from tests.soak.attack import SERVER, TRUSTED, UNTRUSTED, Server
from tests.soak.traffic import Damage, stream_header
from uoa import wire
from uoa.cli import _netns

_AT_ONCE: Final = 64  # quick ones
_WAVE: Final = 300  # slow ones, of which the server takes 256 at a time
_WAVE_SECONDS: Final = 20.0
_BYTE_SECONDS: Final = 0.5
_ASK_SECONDS: Final = 0.5
_PATIENCE: Final = 240.0
_POOL: Final = 4096
_IP_BIND_ADDRESS_NO_PORT: Final = 24  # linux/in.h


def _socket(host: str) -> socket.socket:
    sock = socket.socket()
    # Without it a port would be taken from all that there are, and not from this pair's.
    sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
    sock.bind((host, 0))
    sock.setblocking(False)
    return sock


def _reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


class _Attack:
    """The attack on one server of connections."""

    def __init__(self, seconds: float, seed: int, log: IO[bytes]) -> None:
        rng = random.Random(seed)
        self._damage = Damage(rng)
        self._headers = [stream_header(rng) for _ in range(_POOL)]
        self._queries = [
            struct.pack(">H", len(query)) + query for query in payloads.dns(rng) if query
        ]
        self._server = Server("tests.soak.servers", "dnslib-tcp", ",".join(TRUSTED), stderr=log)
        self._to: Address = SERVER[0], self._server.ports[1]
        self._watch = Watch("dnslib-tcp", seconds)
        self.opened = self.mutated = self.refused = self.waves = 0
        self.asked = self.tried = 0
        self.wrong: list[str] = []
        self.unanswered: list[str] = []

    async def _connected(self, host: str) -> socket.socket | None:
        sock = _socket(host)
        try:
            await asyncio.get_running_loop().sock_connect(sock, self._to)
        except OSError as error:
            sock.close()
            if error.errno not in (errno.EADDRNOTAVAIL, errno.ECONNRESET, errno.ETIMEDOUT):
                raise
            self.refused += 1
            return None
        self.opened += 1
        return sock

    async def _bad(self) -> None:
        """Open a connection and do harm."""
        damage, loop = self._damage, asyncio.get_running_loop()
        # Of a stranger's connection the header is the query.
        sock = await self._connected(TRUSTED[0] if damage.random() < 0.75 else UNTRUSTED[0])
        if sock is None:
            return
        kind = damage.random()
        built = damage.pick(self._headers)
        header = damage.maybe(built, first=12) if damage.random() < 0.9 else damage.maybe(built)
        said = header + damage.maybe(damage.pick(self._queries), first=2)
        is_cut = kind < 0.25
        if is_cut:
            said = said[: damage.below(len(header) + 1)]
        self.mutated += header != built or is_cut
        try:
            if kind > 0.05:
                half = damage.below(len(said)) if said and damage.random() < 0.3 else 0
                if half:
                    await loop.sock_sendall(sock, said[:half])
                    await asyncio.sleep(0)
                await loop.sock_sendall(sock, said[half:])
            if kind > 0.3:
                # What is malformed is closed by the server, as what is answered.
                async with asyncio.timeout(damage.random()):
                    while await loop.sock_recv(sock, 65536):
                        pass
        except (OSError, TimeoutError):
            pass  # The server may well close it.
        if damage.random() < 0.7:
            _reset(sock)
        else:
            sock.close()

    async def _slow(self) -> None:
        """Open a connection, and send a byte now and then until the server has enough."""
        damage, loop = self._damage, asyncio.get_running_loop()
        sock = await self._connected(TRUSTED[0] if damage.random() < 0.8 else UNTRUSTED[0])
        if sock is None:
            return
        said = damage.pick(self._headers) + damage.pick(self._queries)
        at = damage.below(min(60, len(said)))  # some of them in the query
        try:
            await loop.sock_sendall(sock, said[:at])
            for byte in said[at:]:
                await asyncio.sleep(_BYTE_SECONDS)
                await loop.sock_sendall(sock, bytes([byte]))
        except OSError:
            pass  # It was closed: that is what was to be shown.
        _reset(sock)

    async def _once(self, host: str, header: bytes, claim: Address | None) -> bool:
        """Ask once; return whether there was an answer, which is judged."""
        loop = asyncio.get_running_loop()
        self.tried += 1
        sock = await self._connected(host)
        if sock is None:
            return False
        try:
            question = dns_question()
            whole = header + struct.pack(">H", len(question)) + question
            await loop.sock_sendall(sock, whole)
            data = b""
            async with asyncio.timeout(30):
                while more := await loop.sock_recv(sock, 65536):
                    data += more
            if len(data) < 2:
                return False
            client = claim or sock.getsockname()
            source = "direct" if claim is None else "proxy"
            right = world.line(client, sock, source)
            if (answer := dns_answer(data[2:])) != right:
                self.wrong.append(f"{answer} instead of {right}")
            return True
        except (OSError, TimeoutError):
            return False
        finally:
            sock.close()

    async def _ask(self) -> None:
        client = ("203.0.113.200", 5003)
        header = bytearray(wire.build("ppv2", client))
        header[13] = header[13] & 0xF0 | 1  # STREAM
        for host, start, claim in (
            (TRUSTED[0], bytes(header), client), (UNTRUSTED[0], b"", None)
        ):  # fmt: skip
            self.asked += 1
            end = time.monotonic() + _PATIENCE
            while not await self._once(host, start, claim):
                if time.monotonic() > end:
                    self.unanswered.append(f"through {host}")
                    break

    async def _flood(self) -> None:
        while not self._is_over:
            await self._bad()

    async def _honest(self) -> None:
        reasons = {"payload": REASONS["stream"]}
        while self._watch.goes_on(reasons) and not (self.wrong or self.unanswered):
            await self._ask()
            await asyncio.sleep(_ASK_SECONDS)
        self._is_over = True

    async def _samples(self) -> None:
        while not self._is_over:
            self._watch.sample(self._server.report(), f"{self.opened} connections")
            await asyncio.sleep(_ASK_SECONDS)

    async def _waves(self) -> None:
        while not self._is_over:
            self.waves += 1
            end = self._watch.elapsed + _WAVE_SECONDS
            await asyncio.gather(*(self._slow() for _ in range(_WAVE)))
            while self._watch.elapsed < end and not self._is_over:
                await asyncio.sleep(_BYTE_SECONDS)

    async def _run(self) -> None:
        self._is_over = False
        await asyncio.gather(
            self._honest(),
            self._samples(),
            self._waves(),
            *(self._flood() for _ in range(_AT_ONCE)),
        )
        await self._ask()

    def run(self) -> dict[str, Any]:
        """Attack until the time is over; return the report."""
        self._watch.sample(self._server.report(), "0 connections")
        asyncio.run(self._run())
        report = self._server.report()
        return {
            **report,
            **measured(self._watch.samples),
            "sent": self.opened,
            "mutated": self.mutated,
            "delivered": report["payload"]["connections"],
            "refused": self.refused,
            "waves": self.waves,
            "honest": {
                "asked": self.asked,
                "tried": self.tried,
                "wrong": self.wrong,
                "unanswered": self.unanswered,
            },
            "reasons": {"payload": REASONS["stream"]},
            "seconds": round(self._watch.elapsed, 1),
            "status": self._server.close(),
        }


def attack(seconds: float, seed: int) -> dict[str, Any]:
    """Attack; return the report."""
    _netns.enter()
    _netns.set_up([*TRUSTED, *UNTRUSTED, *SERVER])
    with tempfile.TemporaryFile() as log:
        report = _Attack(seconds, seed, log).run()
        return {**report, "tracebacks": errors_in(log)}


if __name__ == "__main__":
    print(json.dumps(attack(float(sys.argv[1]), int(sys.argv[2]))))
