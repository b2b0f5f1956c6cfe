# SPDX-License-Identifier: MIT
"""A syslog collector that knows who sent each message, whatever the message says.

python syslog_collector.py --listen 0.0.0.0:514 --trust 10.0.0.0/24
"""

import argparse
import asyncio
import sys

import uoa.syslog


@uoa.syslog.handler
async def on_message(data, *, client):
    """Print the client; and its message as it came, which uoa.syslog.parse() takes apart."""
    who, peer = show(client.host, client.port), show(*client.peer)
    print(f"client {who} via {peer} source={client.source}", flush=True)
    print(repr(data), file=sys.stderr)  # escaped: a message forges no line


async def collect(host, port, resolver):
    """Print `ready` once bound, and serve until interrupted."""
    address, protocol = (host, port), uoa.syslog.SyslogProtocol(on_message)
    await uoa.asyncio.create_datagram_endpoint(lambda: protocol, address, resolver=resolver)
    print("ready", flush=True)
    await protocol.wait_closed()


def show(host, port):
    """HOST:PORT, an IPv6 host in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--listen", default="127.0.0.1:5514", metavar="HOST:PORT")
parser.add_argument("--trust", metavar="CIDR[,CIDR…]", help="the balancers; or set UOA_TRUST")
parser.add_argument("--backend", default="auto")
parser.add_argument("--dialect", help="what the balancer sends: ipo, bd, ppv2 or spp")
args = parser.parse_args()

host, _, port = args.listen.rpartition(":")
resolver = uoa.Resolver(args.trust, args.backend, args.dialect)
asyncio.run(collect(host.strip("[]"), int(port), resolver))
