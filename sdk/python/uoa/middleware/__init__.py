# SPDX-License-Identifier: MIT
"""ASGI middleware that puts the client where applications look for it.

    app = Starlette(routes=routes, middleware=[Middleware(uoa.middleware.QuicAdapter)])

    async def whoami(request):
        return PlainTextResponse(
            f"{request.client.host} via {request.scope['extensions']['uoa']['peer']}"
        )

It imports no framework: Starlette, FastAPI, Quart and bare ASGI take it alike.
"""

from __future__ import annotations

from uoa.middleware._quic import QuicAdapter

__all__ = ["QuicAdapter"]
