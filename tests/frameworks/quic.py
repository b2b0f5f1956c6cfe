# SPDX-License-Identifier: MIT
"""What the tests of QUIC servers share: a certificate, aioquic's client, a server that records."""

from __future__ import annotations

import asyncio
import datetime
import functools
import ipaddress
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import HandshakeCompleted, QuicEvent, StreamDataReceived
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

import uoa
import uoa.aioquic
from tests.capability import need
from tests.senders import Address

ALPN: Final = "uoa-echo"
NAME: Final = "uoa.test"
# Loopback addresses beside it are strangers.
TRUST: Final = "127.0.0.1,::1"


@functools.cache
def certificate() -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """Return a certificate for NAME and the loopback addresses, which signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, NAME)])
    names = [
        x509.DNSName(NAME),
        *(x509.IPAddress(ipaddress.ip_address(host)) for host in ("127.0.0.1", "::1")),
    ]
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=7))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    return signed, key


def write_certificate(folder: Path) -> tuple[Path, Path]:
    """Write the certificate and its key into files, for servers in other processes."""
    signed, key = certificate()
    paths = folder / "certificate.pem", folder / "key.pem"
    paths[0].write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return paths


def server_configuration(alpn: str = ALPN) -> QuicConfiguration:
    """Return what a server needs."""
    configuration = QuicConfiguration(is_client=False, alpn_protocols=[alpn])
    configuration.certificate, configuration.private_key = certificate()
    return configuration


def client(
    to: Address,
    *,
    alpn: str = ALPN,
    create_protocol: Callable[..., QuicConnectionProtocol] = QuicConnectionProtocol,
    wait_connected: bool = True,
) -> AbstractAsyncContextManager[QuicConnectionProtocol]:
    """Return a connection of aioquic's client, which checks the certificate."""
    pem = certificate()[0].public_bytes(serialization.Encoding.PEM)
    configuration = QuicConfiguration(
        is_client=True, alpn_protocols=[alpn], server_name=NAME, cadata=pem
    )
    return connect(
        *to,
        configuration=configuration,
        create_protocol=create_protocol,
        wait_connected=wait_connected,
    )


async def ask(connection: QuicConnectionProtocol, data: bytes = b"hello") -> bytes:
    """Send on a new stream, and return the whole answer."""
    reader, writer = await connection.create_stream()
    writer.write(data)
    writer.write_eof()
    return await reader.read()


class Event(NamedTuple):
    """What a connection was told, and who its client was then."""

    what: str
    """ "handshake", "changed" or "data"."""
    client: Address | None
    """As `self.client` says."""
    current: Address | None
    """As `uoa.current()` says."""
    data: bytes = b""
    old: Address | None = None


def address(client: uoa.Client | None) -> Address | None:
    """Return host and port."""
    return None if client is None else (client.host, client.port)


class Serving:
    """A server of recorders: where it is, and all that its connections were told."""

    def __init__(self, resolver: uoa.Resolver) -> None:
        self.resolver = resolver
        self.address: Address
        self.events: list[Event] = []
        self.connections: list[Recorder] = []
        self._changed = asyncio.Event()

    def note(self, event: Event) -> None:
        """Remember, and wake who waits."""
        self.events.append(event)
        self._changed.set()

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until the connections were told something that makes the condition true."""
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    def told(self, what: str) -> list[Event]:
        """Return the events of one kind."""
        return [event for event in self.events if event.what == what]

    def changes(self) -> list[tuple[Address | None, Address | None]]:
        """Return what client_changed() was told."""
        return [(event.old, event.client) for event in self.told("changed")]


class Recorder(uoa.aioquic.RealClientMixin, QuicConnectionProtocol):
    """Echoes streams, and remembers what it was told."""

    def __init__(self, serving: Serving, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        assert self.client is None
        assert self.peer is None
        self.serving = serving
        serving.connections.append(self)
        self.senders: set[Address | None] = set()

    def note(self, what: str, **more: Any) -> None:
        """Remember an event."""
        event = Event(what, address(self.client), address(uoa.current()), **more)
        self.serving.note(event)

    def datagram_received(self, data: bytes | str, addr: Any) -> None:
        """Remember whom the datagram names."""
        self.senders.add(address(uoa.current()))
        super().datagram_received(data, addr)

    def client_changed(self, old: uoa.Client, new: uoa.Client) -> None:
        """Remember."""
        assert new is self.client
        self.note("changed", old=address(old))

    def quic_event_received(self, event: QuicEvent) -> None:
        """Remember, and echo."""
        if isinstance(event, HandshakeCompleted):
            self.note("handshake")
        elif isinstance(event, StreamDataReceived):
            self.note("data", data=event.data)
            self._quic.send_stream_data(event.stream_id, event.data, event.end_stream)


@asynccontextmanager
async def serving(
    host: str = "127.0.0.1",
    *,
    resolver: uoa.Resolver | None = None,
    create_protocol: Callable[..., QuicConnectionProtocol] | None = None,
    **arguments: Any,
) -> AsyncIterator[Serving]:
    """Run a server, of recorders unless told otherwise, on a port that is free."""
    if ":" in host:
        need("ipv6")
    told = Serving(resolver or uoa.Resolver(TRUST, dialects="ppv2"))
    server: Any = await uoa.aioquic.serve(
        host,
        0,
        configuration=server_configuration(),
        create_protocol=create_protocol or functools.partial(Recorder, told),
        resolver=told.resolver,
        **arguments,
    )
    try:
        port = server._transport.get_extra_info("sockname")[1]
        told.address = "::1" if ":" in host else "127.0.0.1", port
        yield told
    finally:
        server.close()
