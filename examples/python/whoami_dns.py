# SPDX-License-Identifier: MIT
"""A DNS server that answers TXT queries with the client that asks: UDP, and TCP behind PROXY v2.

python whoami_dns.py --listen 0.0.0.0:53 --trust 10.0.0.0/24
"""

import argparse
import sys

from dnslib import QTYPE, RR, TXT
from dnslib.server import DNSLogger

import uoa
import uoa.dnslib


class WhoAmI:
    """Answers with one line: the client, the peer it came through, and how that is known."""

    @uoa.real_client
    def resolve(self, request, handler, client):
        at, peer = show(client.host, client.port), show(*client.peer)
        line = f"client {at} via {peer} source={client.source}"
        print(line + "\n", end="", flush=True)  # whole, whatever other threads print
        reply = request.reply()
        if request.q.qtype == QTYPE.TXT:
            reply.add_answer(RR(request.q.qname, QTYPE.TXT, rdata=TXT(line), ttl=0))
        return reply


def show(host, port):
    """HOST:PORT, an IPv6 host in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--listen", default="127.0.0.1:5353", metavar="HOST:PORT")
parser.add_argument("--trust", metavar="CIDR[,CIDR…]", help="the balancers; or set UOA_TRUST")
parser.add_argument("--backend", default="auto")
parser.add_argument("--dialect", help="what the balancer sends: ipo, bd, ppv2 or spp")
args = parser.parse_args()

host, _, port = args.listen.rpartition(":")
logger = DNSLogger("-request,-reply", logf=lambda line: print(line, file=sys.stderr))
where = {"address": host.strip("[]"), "port": int(port), "logger": logger}
where["client_resolver"] = resolver = uoa.Resolver(args.trust, args.backend, args.dialect)
server = uoa.dnslib.DNSServer(WhoAmI(), **where)
if "ppv2" in resolver.dialects:
    uoa.dnslib.DNSServer(WhoAmI(), tcp=True, **where).start_thread()
print("ready", flush=True)
server.start()
