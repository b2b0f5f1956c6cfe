# SPDX-License-Identifier: MIT
"""`uoa.socketserver`: the standard library's UDP servers, whose handlers see the client."""

from __future__ import annotations

import copy
import errno
import functools
import os
import pickle
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest

import uoa
import uoa.socketserver
import uoa.testing
from tests.capability import need
from tests.senders import send_claim, udp_socket
from tests.unit.endpoints import ALICE, BOB, HOSTS, TRUST
from uoa import wire
from uoa.socketserver import DatagramHandler, ForkingUDPServer, ThreadingUDPServer, UDPServer

SERVERS: Final = (UDPServer, ThreadingUDPServer, ForkingUDPServer)

# The server of the documentation of `socketserver`, as it stands there, with the port
# replaced.
ECHO_OF_SOCKETSERVER: Final = '''
import socketserver

class MyUDPHandler(socketserver.BaseRequestHandler):
    """
    This class works similar to the TCP handler class, except that
    self.request consists of a pair of data and client socket, and since
    there is no connection the client address must be given explicitly
    when sending data back via sendto().
    """

    def handle(self):
        data = self.request[0].strip()
        socket = self.request[1]
        print(f"{self.client_address[0]} wrote:")
        print(data)
        socket.sendto(data.upper(), self.client_address)

if __name__ == "__main__":
    HOST, PORT = "localhost", 9999
    with socketserver.UDPServer((HOST, PORT), MyUDPHandler) as server:
        server.serve_forever()
'''


def headers(**arguments: Any) -> uoa.Resolver:
    """Return a resolver for PROXY headers."""
    return uoa.Resolver(TRUST, dialects="ppv2", **arguments)


@contextmanager
def serving(
    handler: Any, kind: type[UDPServer] = UDPServer, host: str = "127.0.0.1", **arguments: Any
) -> Iterator[Any]:
    """Run a server on a thread; give it."""
    if ":" in host:
        need("ipv6")
    if "trust" not in arguments:
        arguments.setdefault("resolver", headers())
    with kind((host, 0), handler, **arguments) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class Whoami(DatagramHandler):
    """Answers who asked, in four ways that have to agree, and through whom."""

    def handle(self) -> None:
        """Answer."""
        data, sock = self.request
        client = uoa.current()
        assert client is self.client is self.client_address.client
        assert (client.host, client.port) == self.client_address
        line = f"{client.host} {client.port} {client.peer[1]} ".encode()
        sock.sendto(line + data, self.client_address)


class TestHandlers:
    """What handlers see, and where they answer."""

    @pytest.mark.parametrize("kind", SERVERS)
    @pytest.mark.parametrize("host", HOSTS)
    def test_the_client_is_read_and_the_balancer_answered(
        self, kind: type[UDPServer], host: str
    ) -> None:
        """Handlers see the client in the thread or process they run in; the answer finds back."""
        with (
            serving(Whoami, kind, host) as server,
            uoa.testing.Balancer(server.server_address) as balancer,
        ):
            for client in (ALICE, BOB):
                expected = f"{client[0]} {client[1]} {balancer.peer(client)[1]} data"
                assert balancer.ask(b"data", client) == expected.encode()

    def test_options_name_the_client(self) -> None:
        """The IP option is read too, and `trust` alone is enough."""
        need("raw")
        with serving(Whoami, trust=TRUST) as server, udp_socket("127.0.0.1") as balancer:
            send_claim(balancer, server.server_address, ALICE, b"data")
            port = balancer.getsockname()[1]
            assert balancer.recv(100) == f"{ALICE[0]} {ALICE[1]} {port} data".encode()

    def test_a_dual_stack_server_serves_both(self) -> None:
        """A server on "::" answers an IPv4 balancer."""
        with serving(Whoami, host="::") as server:
            port = server.server_address[1]
            with uoa.testing.Balancer(("127.0.0.1", port)) as balancer:
                assert balancer.ask(b"data", ALICE).startswith(b"203.0.113.7 5000 ")

    @pytest.mark.parametrize("kind", [UDPServer, ThreadingUDPServer])
    def test_interleaved_clients_are_told_apart(self, kind: type[UDPServer]) -> None:
        """Two clients in turn, 1,000 datagrams: each answer is about its own client."""
        with (
            serving(Whoami, kind) as server,
            uoa.testing.Balancer(server.server_address) as balancer,
        ):
            for number in range(500):
                for client in (ALICE, BOB):
                    balancer.send(b"%d" % number, client)
                for client in (ALICE, BOB):
                    answer = balancer.receive(client).decode().split()
                    assert answer == [
                        *map(str, client),
                        str(balancer.peer(client)[1]),
                        str(number),
                    ]

    def test_threads_run_at_once(self) -> None:
        """Handlers of two clients run side by side, each with its own current client."""
        barrier = threading.Barrier(2, timeout=10)

        class Slow(DatagramHandler):
            def handle(self) -> None:
                barrier.wait()
                self.request[1].sendto(str(uoa.current()).encode(), self.client_address)
                barrier.wait()

        with (
            serving(Slow, ThreadingUDPServer) as server,
            uoa.testing.Balancer(server.server_address) as balancer,
        ):
            for client in (ALICE, BOB):
                balancer.send(b"", client)
            for client in (ALICE, BOB):
                assert f"host='{client[0]}'" in balancer.receive(client).decode()

    def test_a_balancer_that_moves_gets_the_answers(self) -> None:
        """An answer to an address from before follows the client to the balancer's new port."""
        kept: list[uoa.Addr] = []

        class Keep(DatagramHandler):
            def handle(self) -> None:
                kept.append(self.client_address)
                for addr in kept:
                    self.request[1].sendto(b"answer", addr)

        with serving(Keep) as server:
            for count in range(1, 4):
                with uoa.testing.Balancer(server.server_address) as balancer:
                    balancer.send(b"")
                    for _ in range(count):
                        assert balancer.receive() == b"answer"

    def test_rebuilt_addresses_find_the_way(self) -> None:
        """Plain, sliced, copied and pickled addresses are answered as the original."""

        class Rebuild(DatagramHandler):
            def handle(self) -> None:
                addr = self.client_address
                for twin in (
                    (addr[0], addr[1]),
                    addr[:2],
                    copy.deepcopy([addr])[0],
                    pickle.loads(pickle.dumps(addr)),
                ):
                    self.request[1].sendto(b"answer", twin)

        with serving(Rebuild) as server, uoa.testing.Balancer(server.server_address) as balancer:
            assert balancer.ask(b"") == b"answer"
            for _ in range(3):
                assert balancer.receive() == b"answer"

    def test_the_standard_librarys_handlers_work(self) -> None:
        """A StreamRequestHandler of datagrams reads payloads and answers clients."""

        class Lines(socketserver.DatagramRequestHandler):
            def handle(self) -> None:
                self.wfile.write(self.client_address[0].encode() + b" " + self.rfile.read())

        with (
            serving(Lines, ThreadingUDPServer) as server,
            uoa.testing.Balancer(server.server_address) as balancer,
        ):
            assert balancer.ask(b"data", ALICE) == b"203.0.113.7 data"

    def test_the_decorator_fits(self) -> None:
        """handle() may take the client as a parameter."""

        class Handler(socketserver.BaseRequestHandler):
            @uoa.real_client
            def handle(self, client: uoa.Client) -> None:
                self.request[1].sendto(client.host.encode(), self.client_address)

        with serving(Handler) as server, uoa.testing.Balancer(server.server_address) as balancer:
            assert balancer.ask(b"", ALICE) == b"203.0.113.7"

    def test_strangers_are_themselves(self) -> None:
        """An untrusted sender's header stays payload; it is counted, and fills no table."""
        resolver = uoa.Resolver([], dialects="ppv2")
        with serving(Whoami, resolver=resolver) as server, udp_socket("127.0.0.1") as stranger:
            sent = wire.build("ppv2", ALICE) + b"data"
            stranger.sendto(sent, server.server_address)
            port = stranger.getsockname()[1]

            assert stranger.recv(200) == f"127.0.0.1 {port} {port} ".encode() + sent
            assert resolver.stats()["untrusted"] == 1
            assert resolver.stats()["flows"] == 0

    def test_odd_datagrams_are_handled(self) -> None:
        """Empty, header-only, cut and large datagrams reach the handler, uncut."""

        class Length(DatagramHandler):
            def handle(self) -> None:
                self.request[1].sendto(b"%d" % len(self.request[0]), self.client_address)

        header = wire.build("ppv2", ALICE)
        with serving(Length) as server, udp_socket("127.0.0.1") as balancer:
            for sent, length in (
                (b"", 0),
                (header, 0),
                (header[:-1], len(header) - 1),
                (header + bytes(60000), 60000),
            ):
                balancer.sendto(sent, server.server_address)
                assert int(balancer.recv(100)) == length


class TestMissing:
    """Datagrams of unknown clients."""

    @pytest.mark.parametrize("missing", ["peer", "drop", "raise"])
    def test_missing_does_what_it_says(self, missing: Any) -> None:
        """They are handled, dropped, or go to handle_error(); serving goes on, and ends."""
        errors: list[Any] = []

        class Server(UDPServer):
            def handle_error(self, request: Any, client_address: Any) -> None:
                errors.append((sys.exc_info()[1], client_address))

        resolver = headers(missing=missing)
        with (
            serving(Whoami, Server, resolver=resolver) as server,
            udp_socket("127.0.0.1") as balancer,
        ):
            peer = balancer.getsockname()
            balancer.sendto(b"unknown", server.server_address)
            send_claim(balancer, server.server_address, ALICE, b"data", "ppv2")
            if missing == "peer":
                assert balancer.recv(100).endswith(b"unknown")
            assert balancer.recv(100).endswith(b"data")
            # Nothing follows this one: it must not keep shutdown() waiting.
            balancer.sendto(b"unknown", server.server_address)
            while missing != "peer" and resolver.stats()["dropped"] < 2:
                pass

        if missing == "raise":
            assert [type(error).__mro__[1] for error, _ in errors[:1]] == [uoa.UnknownClientError]
            assert errors[0][1] == peer
        else:
            assert errors == []
        assert resolver.stats()["dropped"] == (0 if missing == "peer" else 2)


class TestServers:
    """Construction, and the end."""

    def test_they_are_the_standard_librarys(self) -> None:
        """Every server is one of `socketserver`, with its parameters and its mix-ins."""
        for kind, base in (
            (UDPServer, socketserver.UDPServer),
            (ThreadingUDPServer, socketserver.ThreadingMixIn),
            (ForkingUDPServer, socketserver.ForkingMixIn),
        ):
            assert issubclass(kind, base)
            with kind(("127.0.0.1", 0), Whoami, False, trust=[]) as server:
                assert server.socket.getsockname()[1] == 0
                assert isinstance(server.socket, uoa.Socket)
                server.server_bind()
                assert server.server_address[1] != 0

    @pytest.mark.parametrize(
        "arguments", [{}, {"trust": "nonsense"}, {"trust": [], "view": "both"}]
    )
    def test_wrong_arguments_open_nothing(
        self, arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """No trust, a bad one, a wrong view: the constructor says so."""
        monkeypatch.delenv("UOA_TRUST", raising=False)
        with pytest.raises(uoa.ConfigurationError):
            UDPServer(("127.0.0.1", 0), Whoami, **arguments)

    def test_an_address_in_use_is_said(self) -> None:
        """What bind() refuses is raised, and nothing stays open."""
        with (
            udp_socket("127.0.0.1") as other,
            pytest.raises(OSError, match=f"Errno {errno.EADDRINUSE}"),
        ):
            UDPServer(other.getsockname(), Whoami, trust=[])

    def test_the_peer_view(self) -> None:
        """With view="peer" client_address reads as the balancer; answers arrive."""

        class Peer(DatagramHandler):
            def handle(self) -> None:
                line = f"{self.client_address[1]} {self.client.host}"
                self.request[1].sendto(line.encode(), self.client_address)

        with (
            serving(Peer, view="peer") as server,
            uoa.testing.Balancer(server.server_address) as balancer,
        ):
            expected = f"{balancer.peer(ALICE)[1]} {ALICE[0]}"
            assert balancer.ask(b"", ALICE) == expected.encode()

    def test_closing_closes_the_socket(self) -> None:
        """After server_close() the port is free."""
        with UDPServer(("127.0.0.1", 0), Whoami, trust=[]) as server:
            address: Any = server.server_address
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(address)

    def test_the_documentations_echo_server_works(self) -> None:
        """The library's own example, with one line changed, prints clients and answers them."""
        with udp_socket("127.0.0.1") as free:
            port = free.getsockname()[1]
        source = ECHO_OF_SOCKETSERVER.replace("9999", str(port)).replace(
            "    with socketserver.UDPServer((HOST, PORT), MyUDPHandler) as server:",
            "    import uoa; lb = uoa.Resolver(dialects='ppv2')\n"
            "    with uoa.socketserver.UDPServer((HOST, PORT), MyUDPHandler, resolver=lb)"
            " as server:",
        )
        with subprocess.Popen(
            [sys.executable, "-uc", source],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "UOA_TRUST": "127.0.0.1"},
        ) as process:
            try:
                assert process.stdout is not None
                with uoa.testing.Balancer(("127.0.0.1", port)) as balancer:
                    answer = None
                    while answer is None and process.poll() is None:
                        try:
                            answer = balancer.ask(b"hello", ALICE)
                        except ConnectionRefusedError:
                            continue
                assert answer == b"HELLO"
                assert process.stdout.readline() == "203.0.113.7 wrote:\n"
            finally:
                process.terminate()


class TestThreads:
    """ThreadingUDPServer: how many handlers run at once."""

    class Server(ThreadingUDPServer):
        """A server with little room."""

        max_threads = 3

    class Handler(DatagramHandler):
        """Waits until it may go on, and answers."""

        def __init__(self, gate: threading.Event, begun: threading.Semaphore, *rest: Any) -> None:
            self._gate = gate
            self._begun = begun
            super().__init__(*rest)

        def handle(self) -> None:
            """Answer."""
            self._begun.release()
            self._gate.wait()
            data, sock = self.request
            sock.sendto(data, self.client_address)

    @contextmanager
    def flooded(self) -> Iterator[tuple[Any, threading.Event, threading.Semaphore, socket.socket]]:
        """Run a server that has ten requests, and room for three."""
        gate, begun = threading.Event(), threading.Semaphore(0)
        handler = functools.partial(self.Handler, gate, begun)
        server = self.Server(("127.0.0.1", 0), handler, trust=[])
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        with server, udp_socket("127.0.0.1") as sock:
            sock.connect(server.server_address)
            for number in range(10):
                sock.send(b"%d" % number)
            thread.start()
            try:
                for _ in range(self.Server.max_threads):
                    assert begun.acquire(timeout=20)
                yield server, gate, begun, sock
            finally:
                gate.set()
                server.shutdown()
                thread.join()

    def test_no_more_than_the_ceiling(self) -> None:
        """While three handlers wait the other requests do, and all are answered in the end."""
        with self.flooded() as (_, gate, begun, sock):
            assert not begun.acquire(timeout=0.3)
            gate.set()
            assert {sock.recv(100) for _ in range(10)} == {b"%d" % number for number in range(10)}

    def test_shutdown_does_not_wait_for_room(self) -> None:
        """A server whose handlers are all stuck can be told to stop."""
        with self.flooded() as (server, gate, begun, _):
            server.shutdown()
            assert not begun.acquire(blocking=False)
            gate.set()
