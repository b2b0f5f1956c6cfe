# SPDX-License-Identifier: MIT
"""Count executions per outcome, and refuse a run that reached some outcome too seldom."""

from __future__ import annotations

from collections import Counter
from typing import Final

from tests.wire.harness import DIALECTS, REASONS

LEAST_SHARE: Final = 0.001

OUTCOMES: Final = (*DIALECTS, *REASONS)


def table(counts: Counter[str]) -> str:
    """Return the table of executions per dialect found and per reason of not finding one."""
    total = counts.total()
    lines = [f"{'outcome':<14}{'executions':>12}{'share':>10}"]
    for name in OUTCOMES:
        label = f"found {name}" if name in DIALECTS else name
        lines.append(f"{label:<14}{counts[name]:>12}{counts[name] / max(total, 1):>10.3%}")
    lines.append(f"{'total':<14}{total:>12}")
    return "\n".join(lines)


def too_rare(counts: Counter[str]) -> list[str]:
    """Return the outcomes that less than one execution in a thousand reached."""
    least = counts.total() * LEAST_SHARE
    return [name for name in OUTCOMES if counts[name] < max(least, 1)]
