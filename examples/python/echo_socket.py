# SPDX-License-Identifier: MIT
"""An echo server on one blocking socket, for programs that call recvfrom() themselves.

python echo_socket.py --listen 0.0.0.0:9999 --trust 10.0.0.0/24
"""

import argparse
import socket

import uoa


def serve(sock):
    """Answer each datagram with the client, the peer it came through, and how that is known."""
    while True:
        _, addr = sock.recvfrom(65535)
        client, peer = addr.client, show(*addr.peer)
        line = f"client {show(client.host, client.port)} via {peer} source={client.source}"
        print(line, flush=True)
        sock.sendto(line.encode(), addr)


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
family = socket.AF_INET6 if ":" in host else socket.AF_INET
resolver = uoa.Resolver(args.trust, args.backend, args.dialect)
with uoa.Socket(family, resolver=resolver) as server:
    server.bind((host.strip("[]"), int(port)))
    print("ready", flush=True)
    serve(server)
