# SPDX-License-Identifier: MIT
"""Honest clients among the hostile: each asks who it is, and knows the right answer.

A question may be lost in a flood, and is asked again. An answer is never wrong.
"""

from __future__ import annotations

import contextlib
import random
import socket
import ssl
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from tests.frameworks import world
from tests.frameworks.quic_talk import Http3Talk, QuicTalk
from tests.frameworks.servers import dns_answer, dns_question
from tests.frameworks.world import wait_readable
from tests.senders import Address, send_claim, udp_socket
from tests.soak.traffic import Target

_PATIENCE: Final = 120.0  # seconds, for what takes milliseconds on a machine of its own
_TRY: Final = 2.0  # seconds; then a question is taken for lost


@dataclass
class Way:
    """How one client's questions reach the server, and what is known of it there."""

    name: str
    host: str
    """Who sends: a balancer, or the client itself."""
    to: Address
    dialect: str = ""
    claim: Address | None = None
    is_believed: bool = True
    source: str = "direct"
    sent: int = 0
    asked: int = 0
    tried: int = 0
    wrong: list[str] = field(default_factory=list)
    unanswered: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.sock = udp_socket(self.host)
        self.sock.setblocking(False)

    @property
    def right(self) -> str:
        """The only right answer."""
        own: Address = self.sock.getsockname()[:2]
        client = self.claim if self.claim is not None and self.is_believed else own
        return world.line(client, self.sock, self.source)

    def send(self, payload: bytes) -> None:
        """Send a datagram with the claim that belongs here."""
        self.sent += 1
        if self.claim is None:
            self.sock.sendto(payload, self.to)
        else:
            send_claim(self.sock, self.to, self.claim, payload, self.dialect)

    def receive(self, until: float) -> bytes | None:
        """Return the payload of the next datagram from the server; None: none came in time."""
        if not wait_readable(self.sock, until):
            return None
        data = self.sock.recv(65535)
        return data[38:] if self.dialect == "spp" and data.startswith(b"\x56\xec") else data


def ways(trusted: tuple[str, str], untrusted: tuple[str, str], to: Target) -> list[Way]:
    """Return one way for each carrier and family that the server has, and direct ones."""
    found = []
    client4, client6 = ("203.0.113.200", 5001), ("2001:db8:c::200", 5002)
    if to.options:
        ports = (to.ipv4, to.options), (to.ipv6, to.options)
        found += [
            Way("option4", trusted[0], ports[0], "ipo", client4, source="cmsg"),
            Way("option6", trusted[1], ports[1], "ipo", client6, source="cmsg"),
            # Whose claim nobody believes.
            Way("liar", untrusted[0], ports[0], "ipo", client4, is_believed=False),
            Way("direct6", untrusted[1], ports[1]),
        ]
    port = to.ipv4, to.payload
    return [
        *found,
        Way("ppv2", trusted[0], port, "ppv2", ("203.0.113.200", 5003), source="proxy"),
        Way("spp", trusted[0], port, "spp", ("203.0.113.200", 5004), source="proxy"),
        Way("direct4", untrusted[0], port),
    ]


Ask = Callable[[Way, float], str | None]
"""Asks once; returns the answer, or None if none came in time."""


def ask(way: Way, once: Ask) -> None:
    """Ask until there is an answer, and judge it."""
    way.asked += 1
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        way.tried += 1
        answer = once(way, time.monotonic() + _TRY)
        if answer is not None:
            if answer != way.right:
                way.wrong.append(f"{way.name}: {answer} instead of {way.right}")
            return
    way.unanswered.append(f"{way.name}: {way.right}")


def datagram(question: Callable[[], bytes], answer: Callable[[bytes], str]) -> Ask:
    """Return how to ask where a datagram is answered by one."""

    def once(way: Way, until: float) -> str | None:
        way.send(question())
        data = way.receive(until)
        return None if data is None else answer(data)

    return once


dns: Final = datagram(dns_question, dns_answer)
line: Final = datagram(lambda: b"honest", bytes.decode)


def syslog(said: Callable[[], dict[str, str]]) -> Ask:
    """Return how to ask where there are no answers, but a server that writes lines down."""

    def once(way: Way, until: float) -> str | None:
        # A name for each question, since each answer is to be a new one.
        token = f"honest {way.name} {way.tried}"
        way.send(token.encode())
        while time.monotonic() < until:
            told = said()
            if token in told:
                return told[token]
        return None

    return once


# ---- QUIC ----------------------------------------------------------------------------


class _LostError(Exception):
    """A connection ended before the answer."""


class _Surroundings:
    """What QuicTalk needs of a World."""

    def __init__(self, way: Way, until: float) -> None:
        self._way, self._until = way, until
        self.running = world.Running(("", 0))

    def send(self, sock: socket.socket, data: bytes, claim: Address | None) -> None:
        self._way.send(data)

    def receive(self, sock: socket.socket, until: float) -> bytes | None:
        if time.monotonic() > self._until:
            raise _LostError
        return self._way.receive(min(until, self._until))


def _rave(talk: QuicTalk, way: Way, rng: random.Random) -> None:
    """Say on a connection what no honest client does, and go without a word."""
    quic: Any = talk._quic
    if isinstance(talk, Http3Talk):
        _rave_in_http(talk, way, rng)
    for _ in range(rng.randrange(1, 12)):
        stream = quic.get_next_available_stream_id(is_unidirectional=rng.random() < 0.4)
        if rng.random() < 0.5:
            said = rng.randbytes(rng.randrange(200))
        else:  # a frame of HTTP/3, mostly HEADERS or DATA
            body = rng.randbytes(rng.randrange(60))
            said = bytes([rng.choice((0, 1, 1, 3, 4, 5, 7, 13, 0x3F)), len(body)]) + body
        quic.send_stream_data(stream, said, end_stream=rng.random() < 0.5)
        act = rng.random()
        if act < 0.2:
            quic.reset_stream(stream, rng.randrange(512))
        elif act < 0.3:
            quic.change_connection_id()
        elif act < 0.4:
            quic.send_ping(rng.randrange(9))
    _junk(quic, way, rng)
    talk._send(way.sock, None)


def _rave_in_http(talk: Http3Talk, way: Way, rng: random.Random) -> None:
    """Make requests that no browser makes, whose bodies follow when they have been answered."""
    begun = []
    for _ in range(rng.randrange(1, 6)):
        headers = [
            (b":method", rng.choice((b"POST", b"POST", b"GET", b"CONNECT", b"\xff", b"", b"A B"))),
            (b":scheme", rng.choice((b"https", b"https", b"\xfe"))),
            (b":authority", rng.choice((b"uoa.test", b"uoa.test", b"\xff\xfe", b""))),
            (b":path", rng.choice((b"/", b"/", b"/%ff?\xff", b"*", b"\x00", b""))),
        ]
        if rng.random() < 0.3:
            headers.append((b":protocol", rng.choice((b"websocket", b"x"))))
        if rng.random() < 0.4:
            headers.append((b"content-length", rng.choice((b"5", b"-1", b"\xff", b"9" * 30))))
        if rng.random() < 0.3:
            del headers[rng.randrange(len(headers))]
        stream = talk._quic.get_next_available_stream_id()
        talk._http.send_headers(stream, headers, end_stream=rng.random() < 0.3)
        begun.append(stream)
    talk._send(way.sock, None)
    while (data := way.receive(time.monotonic() + 0.05)) is not None:
        talk._quic.receive_datagram(data, ("server", 443), now=time.monotonic())
        talk._send(way.sock, None)
    for stream in begun:
        with contextlib.suppress(Exception):  # of our own library, which knows better
            talk._http.send_data(stream, b"later", end_stream=rng.random() < 0.5)
    talk._send(way.sock, None)


def _junk(quic: Any, way: Way, rng: random.Random) -> None:
    """Send packets that carry the connection's real ID, and nothing else that is real."""
    cid = quic._peer_cid.cid
    for _ in range(4):
        way.send(bytes([0x40 | rng.randrange(64)]) + cid + rng.randbytes(rng.randrange(60)))


def quic(kind: type[QuicTalk], rng: random.Random) -> Ask:
    """Return how to ask over QUIC: on a new connection, in which the hostile also speak."""

    def once(way: Way, until: float) -> str | None:
        surroundings: Any = _Surroundings(way, until + _TRY)
        talk = kind(surroundings, ssl.CERT_NONE)
        try:
            answer = talk.ask(way.sock, way.claim)
            _junk(talk._quic, way, rng)
            second = talk.ask(way.sock, way.claim)
        except (_LostError, AssertionError):
            return None
        if rng.random() < 0.5:
            _rave(talk, way, rng)
        elif rng.random() < 0.5:
            talk._quic.close()
            talk._send(way.sock, way.claim)
        return answer if answer == second else f"{answer} and then {second}"

    return once


def total(ways: Iterable[Way]) -> dict[str, Any]:
    """Return what became of all questions."""
    counts = {name: sum(getattr(way, name) for way in ways) for name in ("asked", "tried", "sent")}
    wrong = [text for way in ways for text in way.wrong]
    unanswered = [text for way in ways for text in way.unanswered]
    return {**counts, "wrong": wrong, "unanswered": unanswered}
