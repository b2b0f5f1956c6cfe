# SPDX-License-Identifier: MIT
"""A page over HTTP/3 that shows visitors their own address, and how the server knows it.

python whoami_h3.py --listen 0.0.0.0:443 --trust 10.0.0.0/24
"""

import argparse
import asyncio
import datetime
import html
import string
import sys
import tempfile
from pathlib import Path

import hypercorn.config
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import HTMLResponse
from starlette.routing import Route

import uoa
import uoa.hypercorn

PAGE = string.Template(Path(__file__).with_suffix(".html").read_text(encoding="utf-8"))


@uoa.real_client
async def whoami(request, client):
    """Answer with a page that has the same line, and says what it means."""
    address, peer = show(client.host, client.port), show(*client.peer)
    line = f"client {address} via {peer} source={client.source}"
    print(line, flush=True)
    version = request.scope["http_version"]
    print(f"GET {request.url.path} over HTTP/{version}", file=sys.stderr, flush=True)
    facts = {
        "client": address, "host": client.host, "port": client.port, "source": client.source,
        "peer": peer, "server": show(*(client.local or request.scope["server"])),
        "line": line, "version": version, "width": max(len(client.host), 9) + 3,
    }  # fmt: skip
    page = PAGE.substitute({name: html.escape(str(fact)) for name, fact in facts.items()})
    return HTMLResponse(page, headers={"cache-control": "no-store"})


def show(host, port):
    """HOST:PORT, an IPv6 host in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def sign_own(folder):
    """Put a certificate that signs itself into a folder; return its file, and that of its key."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "whoami")])
    until, number = now + datetime.timedelta(days=14), x509.random_serial_number()
    built = x509.CertificateBuilder(name, name, key.public_key(), number, now, until)
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    files = Path(folder, "certificate.pem"), Path(folder, "key.pem")
    files[0].write_bytes(built.sign(key, hashes.SHA256()).public_bytes(pem))
    files[1].write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    return map(str, files)


async def ready():
    """Say that all sockets are served, which is when hypercorn calls it; then serve on."""
    made.cleanup()  # The key has been read: however this ends, none is left behind.
    print("ready", flush=True)
    await asyncio.Event().wait()


parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--listen", default="127.0.0.1:4433", metavar="HOST:PORT")
parser.add_argument("--trust", metavar="CIDR[,CIDR…]", help="the balancers; or set UOA_TRUST")
parser.add_argument("--backend", default="auto")
parser.add_argument("--dialect", help="what the balancer sends: ipo, bd, ppv2 or spp")
parser.add_argument("--certificate", help="a PEM file; without it one is made, for the moment")
parser.add_argument("--key", help="its key, another")
args = parser.parse_args()

app = Starlette(routes=[Route("/", whoami)], middleware=[Middleware(uoa.middleware.QuicAdapter)])
resolver = uoa.Resolver(args.trust, args.backend, args.dialect)
config = hypercorn.config.Config()
config.bind, config.quic_bind = [], [args.listen]  # No TCP: see the guide for both.
made = tempfile.TemporaryDirectory()
with made as folder:
    files = (args.certificate, args.key) if args.certificate else sign_own(folder)
    config.certfile, config.keyfile = files
    asyncio.run(uoa.hypercorn.serve(app, config, resolver=resolver, shutdown_trigger=ready))
