# SPDX-License-Identifier: MIT
"""`uoa.Socket`: a UDP socket that tells the client, and is a socket otherwise."""

from __future__ import annotations

import asyncio
import copy
import errno
import itertools
import pickle
import queue
import select
import signal
import socket
import threading
import time
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

import pytest

import uoa
from tests.capability import need
from tests.senders import asks_for_options, send_claim, udp_socket
from tests.unit.endpoints import ALICE, BOB, HOSTS, TRUST, UDP_GRO, Loop, Recorder
from uoa import wire

PORT_CHANGES: Final = 3


def headers(**arguments: Any) -> uoa.Resolver:
    """Return a resolver for PROXY headers."""
    return uoa.Resolver(TRUST, dialects="ppv2", **arguments)


@contextmanager
def server(
    host: str = "127.0.0.1", resolver: uoa.Resolver | None = None, view: Any = "client"
) -> Iterator[uoa.Socket]:
    """Give a bound Socket that gives up after seconds."""
    if ":" in host:
        need("ipv6")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with uoa.Socket(family, resolver=resolver or headers(), view=view) as sock:
        sock.bind((host, 0))
        sock.settimeout(10)
        yield sock


def send(sock: socket.socket, to: Any, data: bytes, client: Any = ALICE) -> None:
    """Send a datagram with a PROXY header."""
    sock.sendto(wire.build("ppv2", client) + data, to)


class TestReceiving:
    """Who datagrams are from."""

    @pytest.mark.parametrize("host", HOSTS)
    @pytest.mark.parametrize("client", [ALICE, BOB])
    def test_headers_name_the_client(self, host: str, client: Any) -> None:
        """recvfrom() gives the payload and the client; the answer reaches the balancer."""
        with server(host) as sock, udp_socket(host) as balancer:
            send(balancer, sock.getsockname(), b"data", client)
            data, addr = sock.recvfrom(100)

            assert (data, addr) == (b"data", client)
            assert addr.peer == balancer.getsockname()[:2]
            assert sock.sendto(b"answer", addr) == 6
            assert balancer.recv(100) == b"answer"

    @pytest.mark.parametrize("host", HOSTS)
    def test_options_name_the_client(self, host: str) -> None:
        """The IP option is read from ancillary data, and kept for the flow's later datagrams."""
        need("raw")
        with server(host, uoa.Resolver(TRUST)) as sock, udp_socket(host) as balancer:
            send_claim(balancer, sock.getsockname(), ALICE, b"first")
            balancer.sendto(b"second", sock.getsockname())

            for data in (b"first", b"second"):
                received = sock.recvfrom(100)
                assert received == (data, ALICE)
                assert received[1].client.source == "cmsg"

    def test_an_option_that_waits_already_is_read(self) -> None:
        """What arrived before a bound socket was taken over still tells its client."""
        need("raw")
        with udp_socket("127.0.0.1") as plain, udp_socket("127.0.0.1") as balancer:
            send_claim(balancer, plain.getsockname(), ALICE, b"early")
            with uoa.Socket.from_socket(plain, trust=TRUST) as sock:
                assert sock.recvfrom(100) == (b"early", ALICE)

    def test_a_dual_stack_socket_serves_both(self) -> None:
        """On "::" an IPv4 balancer is an IPv4 peer, and is answered."""
        with server("::") as sock, udp_socket("127.0.0.1") as balancer:
            send(balancer, ("127.0.0.1", sock.getsockname()[1]), b"data")
            _, addr = sock.recvfrom(100)
            sock.sendto(b"answer", addr)

            assert (addr, addr.peer) == (ALICE, balancer.getsockname())
            assert balancer.recv(100) == b"answer"

    def test_the_peer_view_reads_as_the_socket_saw_it(self) -> None:
        """With view="peer" addresses have the form of the plain socket's."""
        for bound, host, form in (
            ("127.0.0.1", "127.0.0.1", lambda port: ("127.0.0.1", port)),
            ("::1", "::1", lambda port: ("::1", port, 0, 0)),
            ("::", "127.0.0.1", lambda port: ("::ffff:127.0.0.1", port, 0, 0)),
        ):
            with server(bound, view="peer") as sock, udp_socket(host) as balancer:
                send(balancer, (host, sock.getsockname()[1]), b"data")
                _, addr = sock.recvfrom(100)
                facts = addr.client

                assert addr == form(balancer.getsockname()[1])
                assert (facts.host, facts.port) == ALICE
                for to in (addr, tuple(addr)):
                    sock.sendto(b"answer", to)
                    assert balancer.recv(100) == b"answer"

    def test_strangers_are_themselves(self) -> None:
        """An untrusted sender's header is payload; it is counted, and fills no table."""
        resolver = uoa.Resolver([], dialects="ppv2")
        with server(resolver=resolver) as sock, udp_socket("127.0.0.1") as stranger:
            send(stranger, sock.getsockname(), b"data")
            data, addr = sock.recvfrom(100)

            assert addr == stranger.getsockname()
            assert addr.client.direct
            assert data.startswith(b"\r\n\r\n\x00\r\nQUIT\n")
            assert data.endswith(b"data")
            assert resolver.stats()["untrusted"] == 1
            assert resolver.stats()["flows"] == 0

    def test_a_header_takes_no_room_of_the_payload(self) -> None:
        """A buffer of 512 bytes takes 512 bytes of payload behind any header, and cuts there."""
        with server() as sock, udp_socket("127.0.0.1") as balancer:
            for size in (511, 512, 513):
                send(balancer, sock.getsockname(), bytes(size))
                assert len(sock.recvfrom(512)[0]) == min(size, 512)

    def test_odd_datagrams_are_datagrams(self) -> None:
        """Empty, header-only, cut and largest datagrams are delivered, one a call."""
        header = wire.build("ppv2", ALICE)
        with server() as sock, udp_socket("127.0.0.1") as balancer:
            for sent, received in (
                (b"", b""),
                (header, b""),
                (header[:-1], header[:-1]),
                (header + bytes(65000), bytes(65000)),
            ):
                balancer.sendto(sent, sock.getsockname())
                assert sock.recvfrom(65535)[0] == received
            assert sock.resolver.stats()["malformed"] == 1

    @pytest.mark.parametrize("host", HOSTS)
    def test_a_standalone_option_is_of_its_flow(self, host: str) -> None:
        """An option that comes alone is an empty datagram, and names those that follow."""
        need("raw")
        with server(host, uoa.Resolver(TRUST)) as sock, udp_socket(host) as balancer:
            send_claim(balancer, sock.getsockname(), ALICE)
            balancer.sendto(b"data", sock.getsockname())

            assert [sock.recvfrom(100) for _ in range(2)] == [(b"", ALICE), (b"data", ALICE)]

    def test_every_way_to_receive(self) -> None:
        """recv(), recv_into() and recvfrom_into() strip headers as recvfrom() does."""
        with server() as sock, udp_socket("127.0.0.1") as balancer:
            for _ in range(4):
                send(balancer, sock.getsockname(), b"12345")
            room = bytearray(b"........")

            assert sock.recv(3) == b"123"
            assert sock.recv_into(room) == 5
            assert room == b"12345..."
            assert sock.recvfrom_into(memoryview(room)[5:]) == (3, ALICE)
            assert room == b"12345123"
            assert sock.recv_into(room, 1) == 1

    def test_a_file_reads_payloads(self) -> None:
        """makefile() goes through the same methods, and outlives close()."""
        with server() as sock, udp_socket("127.0.0.1") as balancer:
            address = sock.getsockname()
            with sock.makefile("rb", buffering=0) as file:
                sock.close()
                send(balancer, address, b"line")
                assert file.read(100) == b"line"
            assert sock.fileno() == -1

    @pytest.mark.parametrize(
        ("call", "error"),
        [
            (lambda s: s.recvfrom(-1), ValueError),
            (lambda s: s.recv(-1), ValueError),
            (lambda s: s.recv_into(bytearray(5), -1), ValueError),
            (lambda s: s.recv_into(bytearray(5), 6), ValueError),
            (lambda s: s.recvfrom(1, socket.MSG_PEEK), uoa.ConfigurationError),
            (lambda s: s.recv(1, socket.MSG_TRUNC), uoa.ConfigurationError),
            (lambda s: s.recv(1, socket.MSG_ERRQUEUE), uoa.ConfigurationError),
            (lambda s: s.recvmsg(1), NotImplementedError),
            (lambda s: s.recvmsg_into([bytearray(1)]), NotImplementedError),
            (lambda s: s.sendto(b""), TypeError),
            (lambda s: s.sendto(b"", 0, ("127.0.0.1", 1), 0), TypeError),
            (lambda s: pickle.dumps(s), TypeError),
        ],
    )
    def test_what_cannot_be_right_is_refused(
        self, call: Callable[[uoa.Socket], object], error: type[Exception]
    ) -> None:
        """Flags and methods that would bypass the resolver raise, and take no datagram."""
        with server() as sock, udp_socket("127.0.0.1") as balancer:
            send(balancer, sock.getsockname(), b"data")
            with pytest.raises(error):
                call(sock)
            assert sock.recvfrom(100) == (b"data", ALICE)


class TestWaiting:
    """Blocking, timeouts, select() and signals."""

    def test_timeouts_end(self) -> None:
        """A timeout raises TimeoutError, at its time and not before."""
        with server() as sock:
            sock.settimeout(0.05)
            start = time.monotonic()
            with pytest.raises(TimeoutError, match="timed out"):
                sock.recvfrom(100)
            assert time.monotonic() - start >= 0.05

    def test_a_datagram_ends_a_timeout(self) -> None:
        """A thread that waits with a timeout, or without, gets the datagram that comes."""
        for timeout in (10, None):
            with server() as sock, udp_socket("127.0.0.1") as balancer:
                sock.settimeout(timeout)
                got: queue.Queue[Any] = queue.Queue()
                thread = threading.Thread(target=lambda s=sock, g=got: g.put(s.recvfrom(100)))
                thread.start()
                send(balancer, sock.getsockname(), b"data")

                assert got.get(timeout=10) == (b"data", ALICE)
                thread.join()

    def test_no_datagram_no_waiting(self) -> None:
        """A non-blocking socket raises BlockingIOError, and MSG_DONTWAIT does so on any."""
        with server() as sock:
            with pytest.raises(BlockingIOError):
                sock.recvfrom(100, socket.MSG_DONTWAIT)
            sock.setblocking(True)
            with pytest.raises(BlockingIOError):
                sock.recvfrom(100, socket.MSG_DONTWAIT)
            sock.setblocking(False)
            with pytest.raises(BlockingIOError):
                sock.recvfrom(100)

    def test_select_sees_the_truth(self) -> None:
        """A datagram not taken yet is seen by select(), one at a time: nothing is prefetched."""
        with server() as sock, udp_socket("127.0.0.1") as balancer:
            for number in range(5):
                send(balancer, sock.getsockname(), b"%d" % number)
            for number in range(5):
                assert select.select([sock], [], [], 0)[0] == [sock]
                assert sock.recv(100) == b"%d" % number
            assert select.select([sock], [], [], 0)[0] == []

    @pytest.mark.parametrize("timeout", [None, 10])
    def test_signals_do_not_end_waiting(self, timeout: float | None) -> None:
        """A signal whose handler returns is no end; one whose handler raises is."""
        with server() as sock, udp_socket("127.0.0.1") as balancer:
            sock.settimeout(timeout)
            address = sock.getsockname()
            calls = []

            def handle(_number: int, _frame: types.FrameType | None) -> None:
                calls.append(1)
                if len(calls) == 1:
                    send(balancer, address, b"data")
                else:
                    raise KeyboardInterrupt

            before = signal.signal(signal.SIGALRM, handle)
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.05)
                assert sock.recvfrom(100) == (b"data", ALICE)
                signal.setitimer(signal.ITIMER_REAL, 0.05)
                with pytest.raises(KeyboardInterrupt):
                    sock.recvfrom(100)
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
                signal.signal(signal.SIGALRM, before)
            assert len(calls) == 2

    def test_errors_of_the_network_are_those_of_a_socket(self) -> None:
        """A refused connection is a ConnectionRefusedError, with a timeout too."""
        with udp_socket("127.0.0.1") as gone:
            address = gone.getsockname()
        with server() as sock:
            sock.connect(address)
            sock.send(b"anybody?")
            with pytest.raises(ConnectionRefusedError):
                sock.recv(100)

    def test_what_is_lost_is_counted_once(self) -> None:
        """A socket and its duplicate, as threads that share one, count each loss once."""
        with server() as sock, sock.dup() as twin, udp_socket("127.0.0.1") as sender:
            address = sock.getsockname()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            readers = itertools.cycle((sock, twin))
            sent = received = 0
            for _ in range(5):
                for _ in range(200):
                    sent += sender.sendto(b"x", address)
                for reader in itertools.islice(readers, 2):
                    received += len(reader.recv(100))
            with suppress(BlockingIOError):
                for reader in readers:
                    received += len(reader.recv(100, socket.MSG_DONTWAIT))
            sender.sendto(b"end", address)
            while (late := sock.recv(100)) != b"end":
                received += len(late)
            for reader in (sock, twin):
                sender.sendto(b"", address)
                reader.recv(100)

            assert received < sent
            assert received + sock.resolver.stats()["receive_drops"] == sent

    def test_threads_share_a_socket(self) -> None:
        """Eight threads receive and answer on one socket; each datagram is taken once."""
        total = 400
        with server() as sock, udp_socket("127.0.0.1") as balancer:
            sock.settimeout(None)
            left = threading.Semaphore(0)

            def serve() -> None:
                while (received := sock.recvfrom(100))[0] != b"stop":
                    sock.sendto(received[0] + b" " + received[1][0].encode(), received[1])
                    left.release()

            threads = [threading.Thread(target=serve) for _ in range(8)]
            for thread in threads:
                thread.start()
            answers = []
            for number in range(total):
                client = (f"203.0.113.{number % 200}", 1000 + number)
                send(balancer, sock.getsockname(), b"%d" % number, client)
                answers.append(balancer.recv(100))
            for _ in threads:
                send(balancer, sock.getsockname(), b"stop")
            for thread in threads:
                thread.join()

            assert answers == [b"%d 203.0.113.%d" % (n, n % 200) for n in range(total)]


class TestMissing:
    """What happens to datagrams of unknown clients."""

    def test_peer_delivers(self) -> None:
        """With missing="peer" an unknown client's datagram comes with the balancer's address."""
        with server() as sock, udp_socket("127.0.0.1") as balancer:
            balancer.sendto(b"data", sock.getsockname())
            data, addr = sock.recvfrom(100)

            assert (data, addr) == (b"data", balancer.getsockname())
            assert addr.client.source == "none"

    def test_drop_goes_on(self) -> None:
        """With missing="drop" the next known client's datagram is returned, if there is one."""
        with server(resolver=headers(missing="drop")) as sock, udp_socket("127.0.0.1") as balancer:
            balancer.sendto(b"unknown", sock.getsockname())
            send(balancer, sock.getsockname(), b"data")
            balancer.sendto(b"unknown", sock.getsockname())

            assert sock.recvfrom(100) == (b"data", ALICE)
            sock.settimeout(0.05)
            with pytest.raises(TimeoutError):
                sock.recvfrom(100)
            assert sock.resolver.stats()["dropped"] == 2

    def test_dropping_ends_with_the_timeout(self) -> None:
        """A stream of datagrams to drop does not keep recvfrom() beyond its time."""
        resolver = headers(missing="drop")
        with server(resolver=resolver) as sock, udp_socket("127.0.0.1") as balancer:
            for _ in range(200):
                balancer.sendto(b"", sock.getsockname())
            sock.settimeout(1e-6)
            with pytest.raises(TimeoutError):
                sock.recvfrom(100)
            assert 1 <= resolver.stats()["dropped"] < 200

    def test_raise_raises_and_goes_on(self) -> None:
        """With missing="raise" the datagram is taken; loops that catch OSError survive."""
        resolver = headers(missing="raise")
        with server(resolver=resolver) as sock, udp_socket("127.0.0.1") as balancer:
            balancer.sendto(b"unknown", sock.getsockname())
            send(balancer, sock.getsockname(), b"data")
            with pytest.raises(uoa.UnknownClientError, match="is not known") as caught:
                sock.recvfrom(100)

            assert isinstance(caught.value, OSError)
            assert caught.value.peer == balancer.getsockname()
            assert sock.recvfrom(100) == (b"data", ALICE)
            assert resolver.stats()["dropped"] == 1


class TestSending:
    """Where datagrams go."""

    def test_every_way_to_answer(self) -> None:
        """sendto() with and without flags and sendmsg() answer through the balancer."""
        with server() as sock, udp_socket("127.0.0.1") as balancer:
            send(balancer, sock.getsockname(), b"data")
            _, addr = sock.recvfrom(100)
            assert sock.sendto(b"12345", addr) == 5
            assert sock.sendto(memoryview(b"12345"), 0, addr) == 5
            assert sock.sendmsg([b"12", bytearray(b"345")], [], 0, addr) == 5
            assert [balancer.recv(100) for _ in range(3)] == [b"12345"] * 3

    def test_rebuilt_addresses_find_the_way(self) -> None:
        """Plain, sliced, copied and pickled addresses are answered as the original."""
        with server() as sock, udp_socket("127.0.0.1") as balancer:
            send(balancer, sock.getsockname(), b"data")
            _, addr = sock.recvfrom(100)
            for twin in (
                (addr[0], addr[1]),
                addr[:2],
                copy.copy(addr),
                copy.deepcopy([addr])[0],
                pickle.loads(pickle.dumps(addr)),
                addr.client,
            ):
                sock.sendto(b"answer", twin)
                assert balancer.recv(100) == b"answer"

    def test_replies_follow_a_balancer_that_moves(self) -> None:
        """When a client comes from another port of the balancer, old addresses go there too."""
        with server() as sock:
            kept: list[Any] = []
            for _ in range(PORT_CHANGES):
                with udp_socket("127.0.0.1") as balancer:
                    send(balancer, sock.getsockname(), b"data")
                    kept.append(sock.recvfrom(100)[1])
                    for addr in kept:
                        sock.sendto(b"answer", addr)
                        assert balancer.recv(100) == b"answer"
            assert len({addr.peer for addr in kept}) == PORT_CHANGES

    def test_others_are_sent_to_as_ever(self) -> None:
        """Plain addresses that are nobody's client, and names, go where they say."""
        with server() as sock, udp_socket("127.0.0.1") as other:
            for to in (other.getsockname(), ("localhost", other.getsockname()[1])):
                sock.sendto(b"hello", to)
                assert other.recvfrom(100) == (b"hello", sock.getsockname())
        with server() as sock, pytest.raises(OverflowError):
            sock.sendto(b"", ("127.0.0.1", 65536))

    def test_an_unbound_socket_is_a_client(self) -> None:
        """A socket that the first sendto() binds receives answers."""
        with uoa.Socket(trust=[]) as sock, udp_socket("127.0.0.1") as other:
            sock.settimeout(10)
            sock.sendto(b"hello", other.getsockname())
            data, addr = other.recvfrom(100)
            other.sendto(data, addr)

            assert sock.recvfrom(100) == (b"hello", other.getsockname())

    @pytest.mark.parametrize(
        ("bound", "asked"),
        [("0.0.0.0", "127.0.0.2"), ("::", "127.0.0.2"), ("::", "::1")],
    )
    def test_answers_leave_from_where_the_question_came_to(self, bound: str, asked: str) -> None:
        """A socket bound to all addresses answers from the one that was asked."""
        with server(bound) as sock, udp_socket("::1" if asked == "::1" else "127.0.0.1") as client:
            client.connect((asked, sock.getsockname()[1]))  # takes answers from there only
            client.send(wire.build("ppv2", ALICE) + b"data")
            _, addr = sock.recvfrom(100)
            for to in (addr, tuple(addr)):
                sock.sendto(b"answer", to)
                assert client.recv(100) == b"answer"

            assert addr.client.local == (asked, sock.getsockname()[1])

    def test_spp_answers_carry_the_header(self) -> None:
        """A balancer that speaks SPP gets its header on the replies, connected or not."""
        resolver = uoa.Resolver(TRUST, dialects="spp")
        header = wire.build("spp", ALICE, vip=("198.51.100.1", 53))
        with server(resolver=resolver) as sock, udp_socket("127.0.0.1") as balancer:
            balancer.sendto(header + b"data", sock.getsockname())
            _, addr = sock.recvfrom(100)
            assert addr == ALICE
            assert sock.sendto(b"answer", addr) == 6
            answer = balancer.recv(100)
            assert answer == header + b"answer"
            sock.connect(addr)
            assert sock.getpeername() == balancer.getsockname()
            sock.sendall(b"answer")
            assert balancer.recv(100) == answer

    def test_connecting_to_a_client_reaches_its_balancer(self) -> None:
        """connect() and connect_ex() take an address from recvfrom() for its peer."""
        with server() as sock, udp_socket("127.0.0.1") as balancer:
            send(balancer, sock.getsockname(), b"data")
            _, addr = sock.recvfrom(100)
            with uoa.Socket(resolver=sock.resolver) as transfer:
                transfer.settimeout(10)
                transfer.connect(addr)
                assert transfer.send(b"block") == 5
                data, port = balancer.recvfrom(100)
                send(balancer, port, b"ack")

                assert (data, transfer.recvfrom(100)) == (b"block", (b"ack", ALICE))
            with uoa.Socket(resolver=sock.resolver) as transfer:
                assert transfer.connect_ex(addr) == 0
                assert transfer.getpeername() == balancer.getsockname()


class TestLife:
    """Opening, taking over, closing."""

    def test_it_is_a_udp_socket_by_default(self) -> None:
        """Without arguments it is an IPv4 UDP socket."""
        with uoa.Socket(trust=[]) as sock:
            assert isinstance(sock, socket.socket)
            assert (sock.family, sock.type) == (socket.AF_INET, socket.SOCK_DGRAM)

    @pytest.mark.parametrize("host", HOSTS)
    @pytest.mark.parametrize(("dialect", "asks"), [("ipo", True), ("ppv2", False), ("spp", False)])
    def test_options_are_asked_for_where_they_are_read(
        self, host: str, dialect: str, asks: bool
    ) -> None:
        """The kernel hands over options to cmsg; headers in the payload do without."""
        with server(host, uoa.Resolver(TRUST, dialects=dialect)) as sock:
            assert asks_for_options(sock) == (asks, asks and ":" in host)

    def test_from_socket_takes_over(self) -> None:
        """The file, its options and its timeout are the new socket's; the old one is empty."""
        plain = udp_socket("127.0.0.1")
        plain.settimeout(3.5)
        fd, address = plain.fileno(), plain.getsockname()
        with uoa.Socket.from_socket(plain, resolver=headers()) as sock:
            assert (sock.fileno(), sock.getsockname(), sock.gettimeout()) == (fd, address, 3.5)
            assert plain.fileno() == -1

    def test_from_socket_takes_an_unbound_one(self) -> None:
        """A socket that is not bound yet is prepared when it is."""
        need("raw")
        plain = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with uoa.Socket.from_socket(plain, trust=TRUST) as sock:
            sock.bind(("127.0.0.1", 0))
            with udp_socket("127.0.0.1") as balancer:
                send_claim(balancer, sock.getsockname(), ALICE, b"data")
                assert sock.recvfrom(100) == (b"data", ALICE)

    @pytest.mark.parametrize(
        "arguments",
        [
            {},
            {"trust": "nonsense"},
            {"trust": TRUST, "view": "both"},
            {"trust": TRUST, "resolver": headers()},
        ],
    )
    def test_wrong_arguments_leave_the_socket(
        self, arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What is refused is refused before anything is taken over."""
        monkeypatch.delenv("UOA_TRUST", raising=False)
        with udp_socket("127.0.0.1") as plain:
            with pytest.raises(uoa.ConfigurationError):
                uoa.Socket.from_socket(plain, **arguments)
            assert plain.getsockname()

    def test_other_sockets_are_refused(self) -> None:
        """Streams and unix sockets have no such clients; they stay their owner's."""
        for family, kind in (
            (socket.AF_INET, socket.SOCK_STREAM),
            (socket.AF_UNIX, socket.SOCK_DGRAM),
        ):
            with pytest.raises(uoa.ConfigurationError, match="only UDP"):
                uoa.Socket(family, kind, trust=[])
            with socket.socket(family, kind) as plain:
                with pytest.raises(uoa.ConfigurationError, match="only UDP"):
                    uoa.Socket.from_socket(plain, trust=[])
                assert plain.fileno() >= 0
                plain.getsockname()

    def test_bind_says_what_cannot_work(self) -> None:
        """A socket that cannot be served is refused by bind(), before traffic comes."""
        with uoa.Socket(trust=TRUST) as sock:
            sock.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
            with pytest.raises(uoa.BackendError, match="UDP_GRO"):
                sock.bind(("127.0.0.1", 0))

    def test_taking_over_says_so_too(self) -> None:
        """A bound socket that cannot be served is refused, and stays its owner's."""
        with udp_socket("127.0.0.1") as plain:
            plain.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
            with pytest.raises(uoa.BackendError, match="UDP_GRO"):
                uoa.Socket.from_socket(plain, trust=TRUST)
            assert plain.getsockname()

    def test_closing_frees(self) -> None:
        """A closed socket is no socket; a resolver of its own is closed, another's is not."""
        given = headers()
        with uoa.Socket(resolver=given) as sock:
            sock.bind(("127.0.0.1", 0))
        own = uoa.Socket(trust=[])
        own.close()

        for closed in (sock, own):
            with pytest.raises(OSError, match=f"Errno {errno.EBADF}"):
                closed.recvfrom(100)
            with pytest.raises(OSError, match=f"Errno {errno.EBADF}"):
                closed.sendto(b"", ("127.0.0.1", 9))
        assert given.stats()["flows"] == 0
        with pytest.raises(uoa.ClosedError):
            own.resolver.stats()

    def test_detaching_gives_a_plain_socket_back(self) -> None:
        """detach() returns the file descriptor, for whoever wants to read headers."""
        with uoa.Socket(trust=TRUST) as sock, udp_socket("127.0.0.1") as balancer:
            sock.bind(("127.0.0.1", 0))
            with socket.socket(fileno=sock.detach()) as plain:
                send(balancer, plain.getsockname(), b"data")
                assert plain.recv(100).startswith(b"\r\n\r\n")

    def test_a_duplicate_resolves_too(self) -> None:
        """dup() gives a Socket with the same resolver, which outlives the first."""
        with uoa.Socket(trust=TRUST) as sock, udp_socket("127.0.0.1") as balancer:
            sock.bind(("127.0.0.1", 0))
            with sock.dup() as twin:
                address = sock.getsockname()
                sock.close()
                balancer.sendto(b"data", address)
                data, addr = twin.recvfrom(100)

                assert type(twin) is uoa.Socket
                assert (data, addr.client.source) == (b"data", "none")

    def test_a_closed_resolver_is_said(self) -> None:
        """Using a socket whose resolver was closed raises ClosedError."""
        resolver = headers()
        with server(resolver=resolver) as sock, udp_socket("127.0.0.1") as balancer:
            resolver.close()
            send(balancer, sock.getsockname(), b"data")
            with pytest.raises(uoa.ClosedError):
                sock.recvfrom(100)


class PlainRecorder(Recorder):
    """A recorder for asyncio's own transport, which is no DatagramTransport before 3.12."""

    def connection_made(self, transport: Any) -> None:
        """Remember the transport."""
        self.transport = transport


class TestAsyncio:
    """Under asyncio's own transport."""

    def test_its_transport_speaks_to_clients(self) -> None:
        """With sock=uoa.Socket a plain endpoint shows clients, and survives unknown ones."""

        async def main() -> None:
            protocol = PlainRecorder(answer=True)
            loop = asyncio.get_running_loop()
            with server(resolver=headers(missing="raise")) as sock:
                transport, _ = await loop.create_datagram_endpoint(lambda: protocol, sock=sock)
                with udp_socket("127.0.0.1") as balancer:
                    balancer.sendto(b"unknown", transport.get_extra_info("sockname"))
                    send(balancer, transport.get_extra_info("sockname"), b"data")

                    assert await protocol.datagrams(1) == [(b"data", ALICE)]
                    assert isinstance(protocol.errors[0], uoa.UnknownClientError)
                    assert await asyncio.to_thread(balancer.recv, 100) == b"data"
                transport.close()
                await protocol.until(lambda: "lost" in protocol.events)

        Loop(None).run(main)

    def test_interleaved_clients_are_told_apart(self) -> None:
        """Two clients behind one balancer, 1,000 times in turn: none is mixed up."""
        with server() as sock, udp_socket("127.0.0.1") as one, udp_socket("127.0.0.1") as other:
            for number in range(500):
                for balancer, client in ((one, ALICE), (other, BOB)):
                    send(balancer, sock.getsockname(), b"%d" % number, client)
                    data, addr = sock.recvfrom(100)
                    assert (data, addr, addr.peer) == (
                        b"%d" % number,
                        client,
                        balancer.getsockname(),
                    )
                    sock.sendto(data, addr)
                    assert balancer.recv(100) == data
