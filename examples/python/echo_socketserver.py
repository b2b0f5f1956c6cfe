# SPDX-License-Identifier: MIT
"""An echo server with a thread for each datagram, on the standard library's socketserver.

python echo_socketserver.py --listen 0.0.0.0:9999 --trust 10.0.0.0/24
"""

import argparse

import uoa
import uoa.socketserver


class Echo(uoa.socketserver.DatagramHandler):
    """Answers with one line: the client, the peer it came through, and how that is known."""

    def handle(self):
        _, sock = self.request
        client, peer = self.client, show(*self.client.peer)
        line = f"client {show(client.host, client.port)} via {peer} source={client.source}"
        print(line + "\n", end="", flush=True)  # whole, whatever other threads print
        sock.sendto(line.encode(), self.client_address)


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
address = (host.strip("[]"), int(port))
resolver = uoa.Resolver(args.trust, args.backend, args.dialect)
with uoa.socketserver.ThreadingUDPServer(address, Echo, resolver=resolver) as server:
    print("ready", flush=True)
    server.serve_forever()
