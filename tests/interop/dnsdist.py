# SPDX-License-Identifier: MIT
"""dnsdist, as the balancer: PROXY v2 in front of each query, all from one socket."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.capability import need
from tests.interop.programs import Program, running
from tests.senders import Address
from uoa.cli._hostport import text_of

FRONT: Final = (("127.0.0.1", 5300), ("::1", 5300))
"""Where it listens."""

# A health check is an A query of its own, and comes with a PROXY LOCAL header. Its
# timeouts are long, because the machine may be busy; a refusal needs no timeout.
_CONFIGURATION: Final = """
setLocal("127.0.0.1:5300")
addLocal("[::1]:5300")
setACL({{"0.0.0.0/0", "::/0"}})
setSecurityPollSuffix("")
setUDPTimeout(30)
newServer({{
  address="{backend}", useProxyProtocol=true,
  checkName="check.", checkType="A", checkInterval=1, checkTimeout=20000, maxCheckFailures=1
}})
addAction(QNameRule("tagged."), SetProxyProtocolValuesAction({{["42"]="tenant-7"}}))
"""


@contextmanager
def dnsdist(backend: Address, folder: Path) -> Iterator[Program]:
    """Run dnsdist in front of a server, from when it has seen the server alive."""
    need("dnsdist")
    need("dig")
    config = folder / "dnsdist.conf"
    config.write_text(_CONFIGURATION.format(backend=text_of(backend)))
    with running(
        "dnsdist", "-C", str(config), "--supervised", "--disable-syslog",
        ready="Marking downstream .* as 'up'",
    ) as program:  # fmt: skip
        yield program
