# SPDX-License-Identifier: MIT
"""An ASGI application for servers of others: it answers with the client of uoa.current()."""

from __future__ import annotations

from typing import Any

import uoa
from uoa.cli._hostport import text_of


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answer."""
    client = uoa.current()
    told = client and f"{text_of((client.host, client.port))} source={client.source}"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(told).encode()})
