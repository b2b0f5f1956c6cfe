# SPDX-License-Identifier: MIT
"""A clock that tests set, in place of the one that resolvers read."""

from __future__ import annotations

import pytest

from uoa import _client, _resolver


class Clock:
    """The module `time` of a machine on which nothing happens by itself."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        """Return the time in seconds."""
        return self.now

    def monotonic_ns(self) -> int:
        """Return the time in nanoseconds."""
        return round(self.now * 1e9)

    def patch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Put this clock where uoa looks for one."""
        for module in (_resolver, _client):
            monkeypatch.setattr(module, "time", self)
