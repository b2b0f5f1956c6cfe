# SPDX-License-Identifier: MIT
"""A QUIC client without a socket, for the test that holds the balancer's: it asks through any.

aioquic does the protocol, and which port a datagram leaves through, and what it
claims, is decided anew for each question.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Sequence
from socket import socket
from typing import Any, Final

from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ConnectionTerminated, StreamDataReceived
from cryptography.hazmat.primitives.serialization import Encoding

from tests.frameworks.quic import ALPN, NAME, certificate
from tests.frameworks.world import PATIENCE, World
from tests.senders import Address

# To aioquic the server is always here: that it comes through a balancer is not its business.
_SERVER: Final = ("server", 443)


class QuicTalk:
    """One connection: each question is a stream of its own, with the answer on it."""

    alpn: Sequence[str] = (ALPN,)

    def __init__(self, world: World, verify_mode: ssl.VerifyMode = ssl.CERT_REQUIRED) -> None:
        self._world = world
        configuration = QuicConfiguration(
            is_client=True,
            alpn_protocols=list(self.alpn),
            verify_mode=verify_mode,
            server_name=NAME,
            cadata=certificate()[0].public_bytes(Encoding.PEM),
        )
        self._quic = QuicConnection(configuration=configuration)
        self._answers: dict[int, bytes] = {}
        self._ended: set[int] = set()
        self._is_begun = False

    def ask(self, sock: socket, claim: Address | None) -> str:
        """Ask on a new stream, through a socket that claims so; return the answer."""
        [answer] = self.ask_at_once(sock, claim, 1)
        return answer

    def ask_at_once(self, sock: socket, claim: Address | None, count: int) -> list[str]:
        """Ask so often, with a datagram for each question, before any answer is read."""
        if not self._is_begun:
            self._is_begun = True
            self._quic.connect(_SERVER, now=time.monotonic())
            self._begin()
        streams = []
        for _ in range(count):
            streams.append(self._open())
            self._send(sock, claim)
        self._until(lambda: self._ended.issuperset(streams), sock, claim)
        return [self._answers.pop(stream).decode() for stream in streams]

    def _begin(self) -> None:
        """Prepare the protocol above."""

    def _open(self) -> int:
        stream = self._quic.get_next_available_stream_id()
        self._quic.send_stream_data(stream, b"who am I?", end_stream=True)
        return stream

    def _heard(self, event: Any) -> None:
        if isinstance(event, StreamDataReceived):
            self._keep(event.stream_id, event.data, event.end_stream)

    def _keep(self, stream: int, data: bytes, is_end: bool) -> None:
        self._answers[stream] = self._answers.get(stream, b"") + data
        if is_end:
            self._ended.add(stream)

    def _send(self, sock: socket, claim: Address | None) -> None:
        for data, _ in self._quic.datagrams_to_send(now=time.monotonic()):
            self._world.send(sock, data, claim)

    def _until(self, condition: Any, sock: socket, claim: Address | None) -> None:
        """Send and receive until the condition holds."""
        end = time.monotonic() + PATIENCE
        while True:
            self._send(sock, claim)
            if condition():
                return
            assert time.monotonic() < end, (
                f"no answer; the server said {self._world.running.lines[-3:]}"
            )
            timer = self._quic.get_timer()
            received = self._world.receive(sock, min(end, timer or end))
            now = time.monotonic()
            if received is not None:
                self._quic.receive_datagram(received, _SERVER, now=now)
            elif timer is not None and timer <= now:
                self._quic.handle_timer(now=now)
            while (event := self._quic.next_event()) is not None:
                assert not isinstance(event, ConnectionTerminated), event
                self._heard(event)


class Http3Talk(QuicTalk):
    """The same over HTTP/3: each question is a request."""

    alpn = H3_ALPN

    def _begin(self) -> None:
        self._http = H3Connection(self._quic)

    def _open(self) -> int:
        stream = self._quic.get_next_available_stream_id()
        headers = {":method": "GET", ":scheme": "https", ":authority": NAME, ":path": "/"}
        pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
        self._http.send_headers(stream, pairs, end_stream=True)
        return stream

    def _heard(self, event: Any) -> None:
        for part in self._http.handle_event(event):
            if isinstance(part, DataReceived):
                self._keep(part.stream_id, part.data, part.stream_ended)
