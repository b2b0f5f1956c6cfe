# SPDX-License-Identifier: MIT
"""What a user should have to write for each framework is enough, as it stands here.

Only ports change, and whom a server trusts; in front of each text is what it leaves out.
The balancer writes an IP option on each datagram, which is what servers read unless told
otherwise.
"""

from __future__ import annotations

import asyncio
import re
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest
from dnslib import DNSRecord

from tests.capability import need
from tests.docs import ask
from tests.frameworks import quic
from tests.frameworks.asking import get_page
from tests.frameworks.relay import Relay
from tests.interop.programs import PYTHON, Program, running
from tests.senders import udp_socket
from tests.unit.endpoints import ALICE, BOB, PATIENCE

# A dependency of syslog_rfc5424_parser.
_LARK: Final = ("-W", "ignore:module 'sre_:DeprecationWarning")

_ASYNCIO: Final = """
import asyncio, uoa

class Echo(asyncio.DatagramProtocol):
    def connection_made(self, transport): self.transport = transport
    @uoa.real_client
    def datagram_received(self, data, addr, client):
        print("from", client.host, "via", client.peer)
        self.transport.sendto(data, addr)

asyncio.run(uoa.asyncio.serve(Echo, "0.0.0.0", 9999, trust=["10.0.0.0/24"]))
"""

_SOCKETSERVER: Final = """
import uoa.socketserver

class Handler(uoa.socketserver.DatagramHandler):
    def handle(self):
        data, sock = self.request
        print("client", self.client_address[0])
        sock.sendto(data, self.client_address)

with uoa.socketserver.ThreadingUDPServer(("", 9999), Handler, trust=["10.0.0.0/24"]) as s:
    s.serve_forever()
"""

_DNS: Final = """
import uoa.dnslib
from dnslib import RR, A, QTYPE

class WhoAmI:
    @uoa.real_client
    def resolve(self, request, handler, client):
        reply = request.reply()
        reply.add_answer(RR(request.q.qname, QTYPE.A, rdata=A(client.host)))
        return reply

uoa.dnslib.DNSServer(WhoAmI(), port=53, trust=["10.0.0.0/24"]).start()
"""

_QUIC_LEFT_OUT: Final = """
import asyncio
from aioquic.quic.configuration import QuicConfiguration

cfg = QuicConfiguration(is_client=False, alpn_protocols=["echo"])
cfg.load_cert_chain("certificate.pem", "key.pem")

def allowed(client):
    return client.host == "203.0.113.7"

def handle(event, client):
    print(type(event).__name__, client and client.host)
"""

_QUIC: Final = """
import uoa.aioquic
from aioquic.asyncio import QuicConnectionProtocol

class App(uoa.aioquic.RealClientMixin, QuicConnectionProtocol):
    def client_changed(self, old, new):
        if not allowed(new): self.close(error_code=1, reason_phrase="moved")
    def quic_event_received(self, event):
        handle(event, self.client)

await uoa.aioquic.serve("::", 4433, configuration=cfg, create_protocol=App, trust=["10.0.0.0/24"])
"""

_HTTP3_LEFT_OUT: Final = """
import asyncio
from hypercorn.config import Config
from starlette.responses import PlainTextResponse
from starlette.routing import Route

config = Config.from_mapping(
    quic_bind=["0.0.0.0:443"], bind=[], certfile="certificate.pem", keyfile="key.pem"
)
"""

_HTTP3: Final = """
import uoa, uoa.hypercorn
from starlette.applications import Starlette
from starlette.middleware import Middleware

@uoa.real_client
async def home(request, client):
    return PlainTextResponse(f"hello {client.host}")        # request.client says the same

app = Starlette(routes=[Route("/", home)], middleware=[Middleware(uoa.middleware.QuicAdapter)])
asyncio.run(uoa.hypercorn.serve(app, config, trust=["10.0.0.0/24"]))
"""

_SYSLOG: Final = """
import asyncio, uoa.syslog
from syslog_rfc5424_parser import SyslogMessage

@uoa.syslog.handler
async def on_message(data, *, client):
    msg = SyslogMessage.parse(data.decode())
    print(client.host, msg.severity, msg.msg)

asyncio.run(uoa.syslog.serve(on_message, "0.0.0.0", 514, trust=["10.0.0.0/24"]))
"""

_ANYWHERE_LEFT_OUT: Final = """
import asyncio, logging, sys
log = logging.getLogger()
logging.basicConfig(level="INFO", format="%(message)s", stream=sys.stdout)
"""

_ANYWHERE: Final = """
import uoa
def audit(action):
    c = uoa.current()                 # None outside a request
    log.info("%s by %s (known through %s)", action, c.host, c.source)
"""

_ANYWHERE_ABOVE: Final = """
class Login(asyncio.DatagramProtocol):
    def connection_made(self, transport):
        self.transport = transport
        assert uoa.current() is None
    def datagram_received(self, data, addr):
        asyncio.create_task(self.login(data, addr))
    async def login(self, data, addr):
        await asyncio.to_thread(audit, "login")
        self.transport.sendto(data, addr)

asyncio.run(uoa.asyncio.serve(Login, "0.0.0.0", 9999, trust=["10.0.0.0/24"]))
"""


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let servers find a certificate where they run."""
    quic.write_certificate(tmp_path)
    monkeypatch.chdir(tmp_path)


@contextmanager
def _serving(text: str, port: int) -> Iterator[tuple[Program, Relay]]:
    """Run a server, with ALICE behind a balancer in front of it."""
    need("raw")
    with udp_socket("127.0.0.1") as free:
        at = free.getsockname()
    for shown, here in ((port, at[1]), ("10.0.0.0/24", "127.0.0.1")):
        text, count = re.subn(rf"\b{shown}\b", str(here), text)
        assert count == 1
    with running(*PYTHON, *_LARK, "-u", "-c", text) as server, Relay(at, "ipo") as relay:
        relay.claim = ALICE
        yield server, relay


def test_asyncio() -> None:
    """Ten lines echo, and print the client and the balancer."""
    with _serving(_ASYNCIO, 9999) as (server, relay):
        assert ask(relay.address, b"hello") == b"hello"
        server.wait_for(r"^from 203\.0\.113\.7 via \('127\.0\.0\.1', \d+\)$")


def test_socketserver() -> None:
    """A handler's client_address is the client."""
    with _serving(_SOCKETSERVER, 9999) as (server, relay):
        assert ask(relay.address, b"hello") == b"hello"
        server.wait_for(r"^client 203\.0\.113\.7$")


def test_dns() -> None:
    """A resolver answers with the client's address."""
    with _serving(_DNS, 53) as (_, relay):
        answer = DNSRecord.parse(ask(relay.address, DNSRecord.question("who.am.i.").pack()))
        assert str(answer.rr[0].rdata) == ALICE[0]


def test_quic() -> None:
    """A connection's events have their client; one that moves elsewhere is closed."""
    body = textwrap.indent(f"{_QUIC}\nawait asyncio.Future()\n", "    ")
    text = f"{_QUIC_LEFT_OUT}\nasync def main():\n{body}\nasyncio.run(main())\n"

    async def main(server: Program, relay: Relay) -> None:
        async with (
            asyncio.timeout(PATIENCE),
            quic.client(relay.address, alpn="echo") as connection,
        ):
            await connection.ping()
            server.wait_for(r"^HandshakeCompleted 203\.0\.113\.7$")
            relay.claim = BOB
            # The datagram of this ping is the first that names somebody else.
            connection._quic.send_ping(1)
            connection.transmit()
            await connection.wait_closed()

    with _serving(text, 4433) as (server, relay):
        asyncio.run(main(server, relay))
        server.wait_for(r"^ConnectionTerminated ")


def test_http3() -> None:
    """An endpoint greets the client by its address."""
    with _serving(_HTTP3_LEFT_OUT + _HTTP3, 443) as (_, relay):
        assert get_page(relay.address).body == b"hello 203.0.113.7"


def test_syslog() -> None:
    """A handler notes the client, whatever the message says of its origin."""
    with _serving(_SYSLOG, 514) as (server, relay):
        message = b"<13>1 - elsewhere app - - - hello"
        ask(relay.address, message, until=lambda: server.lines("hello"))
        server.wait_for(r"^203\.0\.113\.7 \S+ hello$")


def test_anywhere_below_a_handler() -> None:
    """A function that was handed nothing knows the client, in a task and in a thread."""
    with _serving(_ANYWHERE_LEFT_OUT + _ANYWHERE + _ANYWHERE_ABOVE, 9999) as (server, relay):
        assert ask(relay.address, b"hello") == b"hello"
        server.wait_for(r"^login by 203\.0\.113\.7 \(known through cmsg\)$")
