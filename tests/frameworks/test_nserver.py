# SPDX-License-Identifier: MIT
"""`uoa.nserver`: nserver's transports and applications, whose rules see the client."""

from __future__ import annotations

import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import dnslib
import nserver.application
import nserver.transport
import pytest
from nserver.exceptions import InvalidMessageError
from nserver.middleware import RawMiddleware
from nserver.models import Query
from nserver.records import TXT
from nserver.rules import ZoneRule, smart_make_rule
from nserver.server import NameServer, RawNameServer

import uoa
import uoa.nserver
import uoa.testing
from tests.capability import need
from tests.senders import Address, send_claim, udp_socket
from tests.unit.endpoints import ALICE, BOB, HOSTS, TRUST
from uoa import wire

_APPLICATIONS: Final = (uoa.nserver.DirectApplication, uoa.nserver.ThreadsApplication)
_NOOP: Final = 0x04  # a TLV of PROXY v2 without meaning

# One query after another, whatever a rule does with it.
_QUICK: Final = 0.05


def _headers(**arguments: Any) -> uoa.Resolver:
    return uoa.Resolver(TRUST, dialects="ppv2", **arguments)


def _whoami() -> NameServer:
    """Return a server whose rule tells the client, and the one that is current."""
    server = NameServer("whoami")

    @uoa.real_client
    def whoami(query: Query, client: uoa.Client) -> TXT:
        assert uoa.current() == client
        return TXT(query.name, f"{client.host} {client.port} {client.source}")

    server.register_rule(ZoneRule("", ["TXT"], whoami))
    return server


def _transport(host: str = "127.0.0.1", **arguments: Any) -> uoa.nserver.UDPv4Transport:
    if ":" in host:
        need("ipv6")
    if "trust" not in arguments:
        arguments.setdefault("resolver", _headers())
    arguments.setdefault("receive_timeout", _QUICK)
    kind = uoa.nserver.UDPv6Transport if ":" in host else uoa.nserver.UDPv4Transport
    return kind(host, 0, **arguments)


class _Running:
    """An application at work on a thread."""

    def __init__(self, application: Any) -> None:
        self.application = application
        self.status: int | None = None
        self._thread = threading.Thread(target=self._run)
        bound = threading.Event()
        start = application.transport.start_server

        def start_server() -> None:
            start()
            bound.set()

        application.transport.start_server = start_server
        self._thread.start()
        assert bound.wait(10)
        self.address: Address = application.transport.socket.getsockname()[:2]

    def _run(self) -> None:
        self.status = self.application.run()

    def stop(self) -> None:
        """End it; nserver's loop of threads asks for nothing but its count of errors."""
        self.application.shutdown_server = True
        if isinstance(self.application, nserver.application.ThreadsApplication):
            self.errors = self.application.error_count
            self.application.error_count = self.application.MAX_ERRORS
        self._thread.join()


@contextmanager
def _running(
    kind: Any = uoa.nserver.DirectApplication,
    server: NameServer | RawNameServer | None = None,
    host: str = "127.0.0.1",
    **arguments: Any,
) -> Iterator[_Running]:
    """Run an application; when the block ends, nothing must have counted as an error."""
    options = {"workers": 4} if issubclass(kind, uoa.nserver.ThreadsApplication) else {}
    transport = _transport(host, **arguments)
    running = _Running(kind(_whoami() if server is None else server, transport, **options))
    try:
        yield running
    finally:
        running.stop()
    if options:
        assert running.errors == 0
    else:
        assert running.status == 0
    assert transport.socket.fileno() == -1


def _query(name: str = "who.am.i", padding: int = 0, number: int | None = None) -> bytes:
    record = dnslib.DNSRecord.question(name, "TXT")
    if number is not None:
        record.header.id = number
    if padding:
        option = dnslib.EDNSOption(12, bytes(padding))
        record.add_ar(dnslib.EDNS0(udp_len=4096, opts=[option]))
    data: bytes = record.pack()
    return data


def _text(answer: bytes) -> str:
    record = dnslib.DNSRecord.parse(answer)
    assert record.header.rcode == dnslib.RCODE.NOERROR
    return b"".join(record.rr[0].rdata.data).decode()


def _says(client: Address, source: str = "proxy") -> str:
    return f"{client[0]} {client[1]} {source}"


class TestClients:
    """Who rules are asked by."""

    @pytest.mark.parametrize("kind", _APPLICATIONS)
    @pytest.mark.parametrize("host", HOSTS)
    def test_rules_get_their_client(self, kind: Any, host: str) -> None:
        """Two clients behind one balancer, interleaved 200 times: nobody is mixed up."""
        with _running(kind, host=host) as running, udp_socket(host) as balancer:
            for number in range(0, 400, 2):
                for client, extra in ((ALICE, 0), (BOB, 1)):
                    query = _query(number=number + extra)
                    send_claim(balancer, running.address, client, query, "ppv2")
                answers = {}
                for _ in range(2):
                    answer = balancer.recv(1000)
                    answers[int.from_bytes(answer[:2]) - number] = _text(answer)
                assert answers == {0: _says(ALICE), 1: _says(BOB)}
            assert uoa.current() is None

    @pytest.mark.parametrize("host", HOSTS)
    def test_options_name_the_client(self, host: str) -> None:
        """The option beside a query works as a header in front of it does."""
        need("raw")
        resolver = uoa.Resolver(TRUST)
        with (
            _running(host=host, resolver=resolver) as running,
            udp_socket(host) as balancer,
        ):
            send_claim(balancer, running.address, BOB, _query())
            assert _text(balancer.recv(1000)) == _says(BOB, "cmsg")
            balancer.sendto(_query(), running.address)
            assert _text(balancer.recv(1000)) == _says(BOB, "cmsg")

    @pytest.mark.parametrize("kind", _APPLICATIONS)
    def test_long_queries_arrive_whole(self, kind: Any) -> None:
        """A header with TLVs and an EDNS query of more than 512 bytes, both uncut."""
        query = _query(padding=1500)
        tlv = bytes([_NOOP]) + (600).to_bytes(2) + bytes(600)
        header = bytearray(wire.build("ppv2", ALICE) + tlv)
        header[14:16] = (len(header) - 16).to_bytes(2)
        with _running(kind) as running, udp_socket("127.0.0.1") as balancer:
            balancer.sendto(bytes(header) + query, running.address)
            assert _text(balancer.recv(1000)) == _says(ALICE)

    def test_middleware_gets_the_client(self) -> None:
        """The record has the address: raw middleware sees it, with the decorator too."""
        seen: list[object] = []

        class Look(RawMiddleware):
            @uoa.real_client
            def process_request(
                self, request: Any, call_next: Callable[[Any], Any], client: uoa.Client
            ) -> Any:
                seen.extend([request.client_address, client.host, uoa.current() == client])
                return call_next(request)

        raw = RawNameServer(_whoami())
        raw.append_middleware(Look())
        with _running(server=raw) as running, udp_socket("127.0.0.1") as balancer:
            send_claim(balancer, running.address, ALICE, _query(), "ppv2")
            assert _text(balancer.recv(1000)) == _says(ALICE)
        assert seen == [ALICE, ALICE[0], True]

    @pytest.mark.parametrize("rule", ["who.am.i", re.compile("who.*"), ZoneRule])
    def test_the_client_is_hidden_from_nserver(self, rule: Any) -> None:
        """Whatever makes a rule of a decorated function calls it with the query only."""

        @uoa.real_client
        def whoami(query: Query, client: uoa.Client) -> TXT:
            return TXT(query.name, client.host)

        zone = ("am.i",) if rule is ZoneRule else ()
        made: Any = smart_make_rule(rule, *zone, ["TXT"], func=whoami)
        query = Query("TXT", "who.am.i")
        with uoa.testing.acting_as(uoa.testing.client("203.0.113.9")):
            record = made.get_func(query)(query).to_resource_record()
        assert record.rdata.data == [b"203.0.113.9"]

    def test_a_balancer_that_moves_gets_the_answer(self) -> None:
        """An answer follows the client to the balancer's newer port."""
        transport = _transport()
        transport.start_server()
        address = transport.socket.getsockname()
        with udp_socket("127.0.0.1") as old, udp_socket("127.0.0.1") as new:
            messages = []
            for balancer in (old, new):
                send_claim(balancer, address, ALICE, _query(), "ppv2")
                message = transport.receive_message()
                assert message is not None
                message.response = message.message.reply()
                messages.append(message)
            assert messages[0].transport_data.remote_address == ALICE
            assert messages[0].remote_client == ALICE
            for message in messages:
                transport.send_message_response(message)
                assert new.recv(1000)
        transport.stop_server()

    def test_the_peer_view(self) -> None:
        """With view="peer" addresses read as the balancer; the client is there."""
        transport = _transport(view="peer")
        transport.start_server()
        with udp_socket("127.0.0.1") as balancer:
            send_claim(balancer, transport.socket.getsockname(), ALICE, _query(), "ppv2")
            message: Any = transport.receive_message()
            address = message.transport_data.remote_address
            assert address == balancer.getsockname()
            assert address.client.host == ALICE[0]
        transport.stop_server()


class TestHostile:
    """What must not count as one of ten errors."""

    @pytest.mark.parametrize("kind", _APPLICATIONS)
    def test_undecodable_datagrams_do_not_stop_it(self, kind: Any) -> None:
        """Empty, header-only, cut and broken ones, far more than ten: it goes on answering."""
        rng = random.Random(5)
        query, header = _query(padding=100), wire.build("ppv2", ALICE)
        with _running(kind) as running, udp_socket("127.0.0.1") as balancer:
            for number in range(4711, 4731):
                for _ in range(3):
                    broken = bytearray(query)
                    for _ in range(rng.randint(1, 6)):
                        broken[rng.randrange(len(broken))] = rng.randrange(256)
                    for hostile in (
                        b"",
                        header,
                        header[: rng.randrange(len(header))],
                        header + rng.randbytes(rng.randrange(100)),
                        header + bytes(broken),
                        header + query[: rng.randrange(len(query))],
                    ):
                        balancer.sendto(hostile, running.address)
                balancer.sendto(header + bytes(60000), running.address)
                answer = b""
                send_claim(balancer, running.address, ALICE, _query(number=number), "ppv2")
                while answer[:2] != number.to_bytes(2):
                    answer = balancer.recv(1000)
                assert _text(answer) == _says(ALICE)

    @pytest.mark.parametrize("kind", _APPLICATIONS)
    @pytest.mark.parametrize("length", [62, 120])
    def test_names_that_no_answer_can_repeat_do_not_stop_it(self, kind: Any, length: int) -> None:
        """Queries for names that are too long, or have a label that is: it goes on answering."""
        name = (bytes([length]) + b"a" * length) * (1 if length > 63 else 5) + b"\0"
        hostile = bytes.fromhex("000101000001000000000000") + name + bytes.fromhex("0010 0001")
        with _running(kind) as running, udp_socket("127.0.0.1") as balancer:
            for _ in range(20):
                send_claim(balancer, running.address, ALICE, hostile, "ppv2")
            send_claim(balancer, running.address, ALICE, _query(number=4711), "ppv2")
            assert _text(balancer.recv(1000)) == _says(ALICE)
        if kind is uoa.nserver.ThreadsApplication:  # The other one would not have answered.
            assert running.errors == 0

    def test_datagrams_without_a_query_are_no_messages(self) -> None:
        """Empty and header-only ones are consumed, and nothing is logged; the rest is invalid."""
        transport = _transport()
        transport.start_server()
        address = transport.socket.getsockname()
        assert transport.receive_message() is None
        with udp_socket("127.0.0.1") as balancer:
            for empty in (b"", wire.build("ppv2", ALICE)):
                balancer.sendto(empty, address)
                assert transport.receive_message() is None
            balancer.sendto(b"x", address)
            with pytest.raises(InvalidMessageError):
                transport.receive_message()
        transport.stop_server()

    def test_whatever_parsing_ends_in_is_an_invalid_message(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Any exception of dnslib's parser is one that nserver expects, and its log is short."""
        transport = _transport()
        transport.start_server()

        def parse(data: bytes) -> None:
            raise RecursionError("too deep")

        monkeypatch.setattr(dnslib.DNSRecord, "parse", parse)
        with udp_socket("127.0.0.1") as balancer:
            balancer.sendto(bytes(60000), transport.socket.getsockname())
            with pytest.raises(InvalidMessageError, match="too deep") as raised:
                transport.receive_message()
        assert len(str(raised.value)) < 1000
        transport.stop_server()

    @pytest.mark.parametrize("missing", ["peer", "drop", "raise"])
    @pytest.mark.parametrize("kind", _APPLICATIONS)
    def test_missing_does_what_it_says(self, kind: Any, missing: Any) -> None:
        """Queries of unknown clients are answered, or dropped; fifty of them stop nothing."""
        resolver = _headers(missing=missing)
        with (
            _running(kind, resolver=resolver) as running,
            udp_socket("127.0.0.1") as balancer,
        ):
            for _ in range(50):
                balancer.sendto(_query(), running.address)
            send_claim(balancer, running.address, ALICE, _query(number=4711), "ppv2")
            answers = [b""]
            while answers[-1][:2] != (4711).to_bytes(2):
                answers.append(balancer.recv(1000))
            if kind is uoa.nserver.DirectApplication:
                assert len(answers) == (52 if missing == "peer" else 2)
        assert resolver.stats()["dropped"] == (0 if missing == "peer" else 50)

    def test_strangers_are_themselves(self) -> None:
        """An untrusted sender's header is no query; without one it is the client."""
        resolver = uoa.Resolver([], dialects="ppv2")
        with _running(resolver=resolver) as running, udp_socket("127.0.0.1") as stranger:
            send_claim(stranger, running.address, ALICE, _query(), "ppv2")
            stranger.sendto(_query(), running.address)
            assert _text(stranger.recv(1000)) == _says(stranger.getsockname(), "direct")
        assert resolver.stats()["untrusted"] == 1
        assert resolver.stats()["flows"] == 0

    def test_clients_that_are_gone_do_not_stop_it(self) -> None:
        """ICMP errors of answers that found nobody, where the system reports them."""
        ip_recverr = 11  # linux/in.h
        with _running() as running, udp_socket("127.0.0.1") as balancer:
            sock = running.application.transport.socket
            sock.setsockopt(socket.IPPROTO_IP, ip_recverr, 1)
            for _ in range(15):
                with udp_socket("127.0.0.1") as gone:
                    send_claim(gone, running.address, BOB, _query(), "ppv2")
            send_claim(balancer, running.address, ALICE, _query(), "ppv2")
            assert _text(balancer.recv(1000)) == _says(ALICE)

    @pytest.mark.netns("192.0.2.1", "192.0.2.9")
    def test_answers_that_cannot_be_sent_do_not_stop_it(self) -> None:
        """A query from port 0, which nobody can answer, costs its own answer only."""
        need("raw")
        with (
            _running(host="192.0.2.1", trust=[]) as running,
            udp_socket("192.0.2.9") as client,
            socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP) as raw,
        ):
            raw.bind(("192.0.2.9", 0))
            query = _query()
            for _ in range(15):
                head = (0, running.address[1], 8 + len(query), 0)
                datagram = b"".join(part.to_bytes(2) for part in head) + query
                raw.sendto(datagram, ("192.0.2.1", 0))
            client.sendto(_query(), running.address)
            assert _text(client.recv(1000)) == _says(client.getsockname(), "direct")


class TestLife:
    """Construction, and the end."""

    def test_they_are_nservers(self) -> None:
        """Everything is of nserver's own classes, with its options."""
        transport = _transport(start_timeout=7)
        assert isinstance(transport, nserver.transport.UDPv4Transport)
        assert issubclass(uoa.nserver.UDPv6Transport, nserver.transport.UDPv6Transport)
        assert (transport.start_timeout, transport.receive_timeout) == (7, _QUICK)
        for kind, base in zip(
            _APPLICATIONS,
            (nserver.application.DirectApplication, nserver.application.ThreadsApplication),
            strict=True,
        ):
            application = kind(_whoami(), transport)
            assert isinstance(application, base)
            assert repr(application).startswith(
                f"{base.__name__}(server=<nserver.server.RawNameServer"
            )
        transport.stop_server()

    def test_wrong_arguments_open_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """No trust, a bad one, a wrong view: the constructor says so."""
        monkeypatch.delenv("UOA_TRUST", raising=False)
        for arguments in ({}, {"trust": "nonsense"}, {"trust": [], "view": "both"}):
            with pytest.raises(uoa.ConfigurationError):
                uoa.nserver.UDPv4Transport("127.0.0.1", 0, **arguments)

    @pytest.mark.parametrize("kind", _APPLICATIONS)
    def test_transports_without_clients_are_refused(self, kind: Any) -> None:
        """TCP, and nserver's own UDP transport: the error names what to use."""
        for other in (nserver.transport.UDPv4Transport, nserver.transport.TCPv4Transport):
            transport = other("127.0.0.1", 0)
            with pytest.raises(uoa.ConfigurationError, match=r"uoa\.nserver\.UDPv4Transport"):
                kind(_whoami(), transport)
            transport.socket.close()
            if isinstance(transport, nserver.transport.TCPv4Transport):
                transport.selector.close()

    @pytest.mark.parametrize("kind", ["DirectApplication", "ThreadsApplication"])
    def test_an_interrupt_ends_it(self, kind: str) -> None:
        """A whole program, as nserver's documentation writes one, and the end of it."""
        with udp_socket("127.0.0.1") as free:
            port = free.getsockname()[1]
        script = f"""
import logging, signal, sys
import nserver, uoa, uoa.nserver

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored, where tests run behind `&`
logging.basicConfig(level=logging.INFO, stream=sys.stdout)
server = nserver.NameServer("whoami")

@server.rule(nserver.ZoneRule, "", ["TXT"])
@uoa.real_client
def whoami(query, client):
    return nserver.TXT(query.name, client.host)

resolver = uoa.Resolver("127.0.0.1", dialects="ppv2")
transport = uoa.nserver.UDPv4Transport("127.0.0.1", {port}, resolver=resolver)
raise SystemExit(uoa.nserver.{kind}(server, transport).run())
"""
        command = [sys.executable, "-W", "error", "-c", script]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                assert any(line.endswith(" started.\n") for line in process.stdout)
                with uoa.testing.Balancer(("127.0.0.1", port)) as balancer:
                    assert _text(balancer.ask(_query(), ALICE)) == ALICE[0]
                os.kill(process.pid, signal.SIGINT)
                # Where nserver itself is not ready for it, it is the interpreter's matter.
                assert process.wait(30) in (0, -signal.SIGINT)
            finally:
                process.kill()

    def test_an_interrupt_during_the_start_ends_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """No thread of nserver's stays behind when the main one was interrupted early."""
        application = uoa.nserver.ThreadsApplication(_whoami(), _transport(), workers=2)

        def interrupt(text: str) -> None:
            if text == "Application started.":
                raise KeyboardInterrupt

        monkeypatch.setattr(application, "info", interrupt)
        with pytest.raises(KeyboardInterrupt):
            application.run()
        threads = [application.receive_thread, application.send_thread]
        for thread in [*threads, *application.worker_threads]:
            thread.join(30)
            assert not thread.is_alive()
        application.transport.stop_server()

    def test_without_nserver_the_module_says_what_to_install(self) -> None:
        """Importing it names the extra."""
        script = "import sys; sys.modules['nserver'] = None; import uoa.nserver"
        result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        assert 'pip install "uoa[nserver]"' in result.stderr
