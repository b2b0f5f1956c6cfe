# SPDX-License-Identifier: MIT
"""`uoa.dnslib`: what is DNS about it, over UDP and over TCP."""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import SimpleNamespace
from typing import Any, Final

import dnslib
import dnslib.server
import pytest

import uoa
import uoa.dnslib
import uoa.socketserver
from tests.frameworks.servers import dns_answer, dns_question, dns_reply, serving_forever
from tests.frameworks.world import Running
from tests.senders import Address, udp_socket
from uoa import wire
from uoa.cli._hostport import text_of

CLIENT: Final = ("203.0.113.7", 5555)
CLIENT6: Final = ("2001:db8::7", 5555)
TRUST: Final = "127.0.0.1,::1"
STRANGER: Final = "127.0.0.2"
# A CAA record whose tag is no text: dnslib raises a UnicodeDecodeError.
NOT_TEXT: Final = bytes.fromhex("000100000000000100000000 00 0101 0001 00000000 0003 0001ff")
# A question that is too long for an answer, though not for dnslib to read.
TOO_LONG: Final = (
    bytes.fromhex("000101000001000000000000")
    + (b"\x3c" + b"a" * 60) * 5
    + bytes.fromhex("00 0010 0001")
)


def chain_of_pointers() -> bytes:
    """Return a query with a name of so many pointers that dnslib raises a RecursionError."""
    head = bytes.fromhex("000100000001000000000002 016100 0010 0001")
    # A record of an unknown type holds the chain, each link to the one before; the
    # next record's name begins at its end.
    record = bytes.fromhex("00 ff00 0001 00000000")
    start = len(head) + len(record) + 2
    at = [12, *range(start, start + 6000, 2)]
    links = b"".join(struct.pack(">H", 0xC000 | target) for target in at)
    data = links[:-2]
    return head + record + struct.pack(">H", len(data)) + data + links[-2:] + bytes(10)


def tcp_header(client: Address, local: bool = False) -> bytes:
    """Return a PROXY v2 header for a TCP connection."""
    if local:
        return wire.build_local()
    header = bytearray(wire.build("ppv2", client, vip=("198.51.100.1", 53)))
    header[13] = header[13] & 0xF0 | 1
    return bytes(header)


def over_tcp(message: bytes) -> bytes:
    """Return a DNS message with its length in front."""
    return struct.pack(">H", len(message)) + message


def read_answer(sock: socket.socket) -> bytes:
    """Return the next answer on a connection; nothing if it was closed instead."""
    with sock.makefile("rb") as file:
        length = file.read(2)
        return file.read(struct.unpack(">H", length)[0]) if length else b""


class Dns:
    """A DNSServer at work, and its resolver."""

    def __init__(self, running: Running, resolver: uoa.Resolver) -> None:
        self.address = running.address
        self.lines = running.lines
        self.complaints = running.complaints
        self.log = running.log
        self.wait = running.wait
        self._resolver = resolver

    def stats(self) -> dict[str, int]:
        """Return the counters that are not 0."""
        return {name: count for name, count in self._resolver.stats().items() if count}


class WhoAmI:
    """Answers who asks."""

    def __init__(self, running: Running) -> None:
        self._running = running

    @uoa.real_client
    def resolve(self, request: Any, handler: Any, client: uoa.Client) -> Any:
        """Answer."""
        return dns_reply(request, self._running.say(client))


@contextmanager
def dns_server(
    host: str = "127.0.0.1", make: Callable[[Running], Any] = WhoAmI, **arguments: Any
) -> Iterator[Dns]:
    """Run a DNSServer; exceptions that reach handle_error() fail the test at its end."""
    running = Running(("", 0))
    logger = dnslib.server.DNSLogger("error", prefix=False, logf=running.log.append)
    if "client_resolver" not in arguments and "trust" not in arguments:
        arguments["client_resolver"] = uoa.Resolver(TRUST, dialects="ppv2")
    server = uoa.dnslib.DNSServer(make(running), host, 0, logger=logger, **arguments)
    with serving_forever(server.server, running):
        yield Dns(running, server.server.client_resolver)
    assert running.complaints == []


@contextmanager
def connection(to: Address, host: str | None = None) -> Iterator[socket.socket]:
    """Open a TCP connection, from a host."""
    own = (host or to[0], 0)
    with socket.create_connection(to, timeout=20, source_address=own) as sock:
        yield sock


def said(client: Address, sock: socket.socket, source: str) -> str:
    """Return the line about a client that came through a socket."""
    own = text_of(client)
    return f"client {own} via {text_of(sock.getsockname()[:2])} source={source} current={own}"


class _InTurn(uoa.socketserver.UDPServer):
    """A server that has done with a query when it takes the next."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.client_resolver = self.resolver


class TestTcp:
    """tcp=True: one PROXY v2 header at the start of a connection from a trusted peer."""

    @pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
    @pytest.mark.parametrize("client", [CLIENT, CLIENT6])
    def test_the_header_names_the_client(self, host: str, client: Address) -> None:
        """The application reads the client of the header, of either family."""
        with dns_server(host, tcp=True) as running, connection(running.address) as sock:
            sock.sendall(tcp_header(client) + over_tcp(dns_question()))
            assert dns_answer(read_answer(sock)) == said(client, sock, "proxy")
            assert running.stats() == {"connections": 1, "resolved": 1, "found": 1, "found_ppv2": 1}

    def test_it_may_come_in_pieces(self) -> None:
        """Header, length and query are read however they are cut."""
        with dns_server(tcp=True) as running, connection(running.address) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            start = tcp_header(CLIENT)
            for at in range(len(start)):
                sock.sendall(start[at : at + 1])
            sock.sendall(over_tcp(dns_question()))
            assert dns_answer(read_answer(sock)) == said(CLIENT, sock, "proxy")

    def test_local_is_the_balancer_itself(self) -> None:
        """A health check over TCP is answered as direct."""
        with dns_server(tcp=True) as running, connection(running.address) as sock:
            sock.sendall(tcp_header(CLIENT, local=True) + over_tcp(dns_question()))
            own = sock.getsockname()[:2]
            assert dns_answer(read_answer(sock)) == said(own, sock, "direct")

    def test_without_a_header_the_client_is_unknown(self) -> None:
        """A trusted peer's query without a header is answered, and its bytes are all there."""
        with dns_server(tcp=True) as running, connection(running.address) as sock:
            sock.sendall(over_tcp(dns_question()))
            own = sock.getsockname()[:2]
            assert dns_answer(read_answer(sock)) == said(own, sock, "none")

    def test_a_header_for_udp_says_nothing(self) -> None:
        """A header whose transport is another is taken off, and counted."""
        with dns_server(tcp=True) as running, connection(running.address) as sock:
            sock.sendall(wire.build("ppv2", CLIENT) + over_tcp(dns_question()))
            own = sock.getsockname()[:2]
            assert dns_answer(read_answer(sock)) == said(own, sock, "none")
            assert running.stats()["unsupported"] == 1

    @pytest.mark.parametrize("missing", ["drop", "raise"])
    def test_missing(self, missing: str) -> None:
        """An unknown client's connection is closed, counted, and for "raise" reported."""
        resolver = uoa.Resolver(TRUST, dialects="ppv2", missing=missing)  # type: ignore[arg-type]
        with dns_server(tcp=True, client_resolver=resolver) as running:
            with connection(running.address) as sock:
                sock.sendall(over_tcp(dns_question()))
                assert read_answer(sock) == b""
            assert running.lines == []
            assert resolver.stats()["dropped"] == 1
            errors = [type(error) for error in running.complaints]
            assert errors == ([uoa.UnknownClientError] if missing == "raise" else [])
            running.complaints.clear()

    def test_a_stranger_is_direct(self) -> None:
        """An untrusted peer's bytes are a query's, whatever they look like."""
        with dns_server(tcp=True) as running:
            with connection(running.address, STRANGER) as sock:
                sock.sendall(over_tcp(dns_question()))
                own = sock.getsockname()[:2]
                assert dns_answer(read_answer(sock)) == said(own, sock, "direct")
            with connection(running.address, STRANGER) as sock:
                sock.sendall(tcp_header(CLIENT) + over_tcp(dns_question()))
                sock.shutdown(socket.SHUT_WR)
                assert read_answer(sock) == b""
            assert len(running.lines) == 1
            assert "found" not in running.stats()

    @pytest.mark.parametrize("at", [12, 13, 15, 16])
    def test_a_malformed_header_ends_the_connection(self, at: int) -> None:
        """A header that breaks a rule is counted, and nothing behind it is taken for a query."""
        header = bytearray(tcp_header(CLIENT))
        header[at] = 0xF1 if at != 15 else 11
        if at == 16:
            header[14:16] = struct.pack(">H", 14)  # two stray bytes behind the addresses
        with dns_server(tcp=True) as running:
            with connection(running.address) as sock:
                sock.sendall(bytes(header) + over_tcp(dns_question()))
                with suppress(ConnectionResetError):  # It is closed with bytes unread.
                    assert read_answer(sock) == b""
            assert running.lines == []
            assert running.stats()["malformed"] == 1

    @pytest.mark.parametrize("length", [0, 1, 11, 12, 15, 16, 27])
    def test_an_early_end(self, length: int) -> None:
        """A connection that ends within the header is nobody's, and serving goes on."""
        with dns_server(tcp=True) as running:
            with connection(running.address) as sock:
                sock.sendall(tcp_header(CLIENT)[:length])
                sock.shutdown(socket.SHUT_WR)
                assert read_answer(sock) == b""
            with connection(running.address) as sock:
                sock.sendall(tcp_header(CLIENT) + over_tcp(dns_question()))
                assert dns_answer(read_answer(sock)) == said(CLIENT, sock, "proxy")

    def test_a_slow_header_ends_the_connection(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A peer has so long for its header, however it spreads the bytes."""
        monkeypatch.setattr("uoa.dnslib._HEADER_SECONDS", 0.3)
        with dns_server(tcp=True) as running, connection(running.address) as sock:
            start = time.monotonic()
            header = tcp_header(CLIENT)
            sock.sendall(header[:1])
            assert read_answer(sock) == b""
            assert 0.25 < time.monotonic() - start < 5
            assert running.lines == []

    def test_bytes_now_and_then_buy_no_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A peer that sends a byte whenever it is about to be given up is given up all the same."""
        monkeypatch.setattr("uoa.dnslib._HEADER_SECONDS", 0.3)
        with dns_server(tcp=True) as running, connection(running.address) as sock:
            header = tcp_header(CLIENT) + over_tcp(dns_question())
            with suppress(BrokenPipeError, ConnectionResetError):
                for at in range(len(header)):
                    sock.send(header[at : at + 1])
                    if select.select([sock], [], [], 0.02)[0]:
                        break  # It was closed.
                assert sock.recv(1) == b""
            assert running.lines == []

    def test_slow_connections_do_not_keep_others_out(self) -> None:
        """While connections that send nothing stay open, others are answered."""
        with dns_server(tcp=True) as running:
            idle = [socket.create_connection(running.address) for _ in range(50)]
            with connection(running.address) as sock:
                sock.sendall(tcp_header(CLIENT) + over_tcp(dns_question()))
                assert dns_answer(read_answer(sock)) == said(CLIENT, sock, "proxy")
            for other in idle:
                other.close()

    @pytest.mark.parametrize(
        ("backend", "dialects"), [("cmsg", "ipo"), ("auto", "ipo"), ("proxy", "spp")]
    )
    def test_other_backends_are_refused(self, backend: str, dialects: str) -> None:
        """A resolver that knows nothing of TCP is refused at start, with one that does."""
        resolver = uoa.Resolver(TRUST, backend, dialects)
        with pytest.raises(uoa.ConfigurationError, match=r'dialects="ppv2" \(backend proxy\)'):
            uoa.dnslib.DNSServer(None, "127.0.0.1", 0, tcp=True, client_resolver=resolver)

    def test_trust_alone_reads_headers(self) -> None:
        """The shorthand makes a resolver that can serve TCP."""
        with dns_server(tcp=True, trust=TRUST) as running, connection(running.address) as sock:
            sock.sendall(tcp_header(CLIENT) + over_tcp(dns_question()))
            assert dns_answer(read_answer(sock)) == said(CLIENT, sock, "proxy")


class TestUdp:
    """What acceptance does not say."""

    def test_trust_is_a_shorthand(self) -> None:
        """As in the documentation: a resolver, a port and trust."""
        with dns_server(trust=TRUST) as running, socket.socket(type=socket.SOCK_DGRAM) as sock:
            sock.settimeout(20)
            sock.connect(running.address)
            sock.send(dns_question())
            own = sock.getsockname()
            assert dns_answer(sock.recv(4096)) == said(own, sock, "none")

    def test_large_queries_keep_their_room(self) -> None:
        """A query of 4,000 bytes behind a header with TLVs arrives whole."""
        query = dnslib.DNSRecord.question("who.am.i.", "TXT")
        query.add_ar(dnslib.EDNS0(udp_len=4096, opts=[dnslib.EDNSOption(65001, bytes(4000))]))
        header = bytearray(wire.build("ppv2", CLIENT) + b"\x2a\x00\x80" + bytes(128))
        header[14:16] = struct.pack(">H", len(header) - 16)
        with dns_server() as running, socket.socket(type=socket.SOCK_DGRAM) as sock:
            sock.settimeout(20)
            sock.bind(("127.0.0.1", 0))
            sock.connect(running.address)
            sock.send(bytes(header) + query.pack())
            assert dns_answer(sock.recv(4096)) == said(CLIENT, sock, "proxy")

    def test_empty_datagrams_are_no_queries(self) -> None:
        """A header alone is counted, and nobody is asked to decode it."""
        with dns_server() as running, socket.socket(type=socket.SOCK_DGRAM) as sock:
            sock.settimeout(20)
            sock.bind(("127.0.0.1", 0))
            sock.connect(running.address)
            sock.send(wire.build("ppv2", CLIENT))
            sock.send(b"")
            sock.send(wire.build("ppv2", CLIENT) + dns_question())
            assert dns_answer(sock.recv(4096)) == said(CLIENT, sock, "proxy")
            assert running.log == []
            assert running.stats()["empty"] == 2

    def test_undecodable_queries_are_logged(self) -> None:
        """What dnslib cannot read, text that is none and chains included, goes to its logger."""
        with dns_server() as running, socket.socket(type=socket.SOCK_DGRAM) as sock:
            sock.settimeout(20)
            sock.bind(("127.0.0.1", 0))
            sock.connect(running.address)
            for payload in (b"x", bytes(11), NOT_TEXT, TOO_LONG, chain_of_pointers()):
                sock.send(wire.build("ppv2", CLIENT) + payload)
            sock.send(wire.build("ppv2", CLIENT) + dns_question())
            assert dns_answer(sock.recv(4096)) == said(CLIENT, sock, "proxy")
            running.wait(lambda: len(running.log) == 5)
            assert all("Invalid Request: [203.0.113.7:5555] (udp)" in line for line in running.log)

    @pytest.mark.parametrize("error", [RecursionError, UnicodeError, dnslib.DNSLabelError])
    def test_errors_of_the_application_stay_its_own(self, error: type[Exception]) -> None:
        """What a resolver raises is not taken for a query that cannot be read."""

        class Wrong:
            def resolve(self, request: Any, handler: Any) -> Any:
                raise error

        handler = uoa.dnslib.DNSHandler.__new__(uoa.dnslib.DNSHandler)
        quiet = dnslib.server.DNSLogger("-request")
        handler.server = SimpleNamespace(resolver=Wrong(), logger=quiet)
        with pytest.raises(error):
            handler.get_reply(dns_question())

    def test_truncated_answers_repeat_the_question(self) -> None:
        """What does not fit is cut to the question, by which balancers know an answer."""

        class Short(uoa.dnslib.DNSHandler):
            udplen = 40

        with dns_server(handler=Short) as running, socket.socket(type=socket.SOCK_DGRAM) as sock:
            sock.settimeout(20)
            sock.connect(running.address)
            sock.send(dns_question())
            answer = dnslib.DNSRecord.parse(sock.recv(4096))
            assert (answer.header.tc, answer.rr) == (1, [])
            assert str(answer.q.qname) == "who.am.i."

    def test_a_server_that_sees_no_clients_is_refused(self) -> None:
        """dnslib's own server classes are refused, naming what to take."""
        with pytest.raises(uoa.ConfigurationError, match=r"uoa\.socketserver\.UDPServer"):
            uoa.dnslib.DNSServer(None, server=dnslib.server.UDPServer, trust=[])
        with pytest.raises(uoa.ConfigurationError, match=r"uoa\.dnslib\.TCPServer"):
            uoa.dnslib.DNSServer(None, tcp=True, server=dnslib.server.TCPServer, trust=[])

    def test_stop_closes_the_socket(self) -> None:
        """A stopped server can be started again on its port."""
        server = uoa.dnslib.DNSServer(dnslib.server.BaseResolver(), "127.0.0.1", 0, trust=[])
        host, port = server.server.server_address
        server.start_thread()
        server.stop()
        server.thread.join()
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            sock.bind((host, port))

    @pytest.mark.netns
    def test_nobody_is_at_port_0(self) -> None:
        """An answer that cannot be sent is lost to who asked, and reported to nobody."""
        with (
            dns_server(server=_InTurn) as running,
            socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP) as raw,
            udp_socket("127.0.0.1") as sock,
        ):
            query = dns_question()
            udp = struct.pack(">HHHH", 0, running.address[1], 8 + len(query), 0)
            raw.sendto(udp + query, ("127.0.0.1", 0))
            sock.sendto(query, running.address)
            assert dns_answer(sock.recv(65535)) == said(sock.getsockname(), sock, "none")
            assert len(running.lines) == 2
