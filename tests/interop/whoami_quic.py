# SPDX-License-Identifier: MIT
"""An HTTP/3 server on aioquic whose pages say who asked, in a process of its own.

Each page is the line that it prints for each request as well:

    client HOST:PORT via HOST:PORT source=NAME
"""

from __future__ import annotations

import argparse
import asyncio
from typing import Any

from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import QuicEvent

import uoa
import uoa.aioquic
from uoa.cli import _hostport


class _WhoAmI(uoa.aioquic.RealClientMixin, QuicConnectionProtocol):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._http = H3Connection(self._quic)

    def quic_event_received(self, event: QuicEvent) -> None:
        for http_event in self._http.handle_event(event):
            if isinstance(http_event, HeadersReceived):
                self._answer(http_event.stream_id)

    @uoa.real_client
    def _answer(self, stream: int, client: uoa.Client) -> None:
        name = _hostport.text_of((client.host, client.port))
        line = f"client {name} via {_hostport.text_of(client.peer)} source={client.source}"
        print(line, flush=True)
        self._http.send_headers(stream, [(b":status", b"200"), (b"content-type", b"text/plain")])
        self._http.send_data(stream, line.encode(), end_stream=True)


async def _serve(args: argparse.Namespace) -> None:
    configuration = QuicConfiguration(is_client=False, alpn_protocols=H3_ALPN)
    configuration.load_cert_chain(args.certificate, args.key)
    await uoa.aioquic.serve(
        *args.listen,
        configuration=configuration,
        create_protocol=_WhoAmI,
        resolver=uoa.Resolver(args.trust, dialects=args.dialect),
    )
    print("ready", flush=True)
    await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--listen", type=_hostport.parse, required=True)
    for name in ("trust", "dialect", "certificate", "key"):
        parser.add_argument(f"--{name}", required=True)
    asyncio.run(_serve(parser.parse_args()))
