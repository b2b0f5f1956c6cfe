# SPDX-License-Identifier: MIT
"""An echo server that answers each datagram with the client it came from.

python echo.py --listen 0.0.0.0:9999 --trust 10.0.0.0/24
"""

import argparse
import asyncio

import uoa


class Echo(asyncio.DatagramProtocol):
    """Answers with one line: the client, the peer it came through, and how that is known."""

    def connection_made(self, transport):
        self.transport = transport
        print("ready", flush=True)

    def datagram_received(self, data, addr):
        client, peer = addr.client, show(*addr.peer)
        line = f"client {show(client.host, client.port)} via {peer} source={client.source}"
        print(line, flush=True)
        self.transport.sendto(line.encode(), addr)


def show(host, port):
    """HOST:PORT, an IPv6 host in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--listen", default="127.0.0.1:9999", metavar="HOST:PORT")
parser.add_argument("--trust", metavar="CIDR[,CIDR…]", help="the balancers; or set UOA_TRUST")
parser.add_argument("--backend", default="auto")
parser.add_argument("--dialect", help="what the balancer sends: ipo, bd, ppv2 or spp")
args = parser.parse_args()

host, _, port = args.listen.rpartition(":")
resolver = uoa.Resolver(args.trust, args.backend, args.dialect)
asyncio.run(uoa.asyncio.serve(Echo, host.strip("[]"), int(port), resolver=resolver))
