# SPDX-License-Identifier: MIT
"""`python -m tests.bench`: all variants in turn, and the ratios of their medians."""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path
from statistics import median

from tests.bench import receive
from tests.bench.variants import DATAGRAMS, MODES, PAYLOAD, VARIANTS, run_apart

# Row: (this, against that, budget of drain, budget of echo)
ROWS = (
    ("uoa on asyncio", "asyncio", 10.0, 5.0),
    ("uoa on asyncio", "asyncio, warm heap", 2.2, 1.8),
    ("uoa on asyncio", "uvloop", 0.9, 1.0),
    ("uoa on uvloop", "uvloop", 0.9, 1.0),
)


def _measure(rounds: int) -> dict[str, dict[str, list[float]]]:
    rates: dict[str, dict[str, list[float]]] = {
        mode: {name: [] for name in VARIANTS} for mode in MODES
    }
    total = rounds * len(MODES) * len(VARIANTS)
    done = 0
    for _ in range(rounds):
        for mode in MODES:
            for name in VARIANTS:
                rates[mode][name].append(run_apart(name, mode))
                done += 1
                print(f"\r{done} of {total} runs", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return rates


def _measure_receiving(rounds: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in receive.VARIANTS}
    for _ in range(rounds):
        for name in receive.VARIANTS:
            times[name].append(receive.run_apart(name))
    return times


def _report_receiving(times: dict[str, list[float]]) -> list[dict[str, object]]:
    """Print the rows of the C library; return their ratios."""
    middle = {name: median(values) for name, values in times.items()}
    print(f"\n{'nanoseconds a datagram':53}{'drain':>9}")
    for name in receive.VARIANTS:
        print(f"{name:53}{middle[name]:9.0f}")
    print(f"\n{'ratio':53}{'drain':>9}{'budget':>8}")
    ratios: list[dict[str, object]] = []
    for name, against, budget in receive.ROWS:
        ratio = middle[name] / middle[against]
        ratios.append({"variant": name, "against": against, "drain": ratio})
        print(f"{name + ' / ' + against:53}{ratio:9.2f}{budget:8.2f}")
    return ratios


def main() -> int:
    """Measure, print the tables, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    rates = _measure(args.rounds)
    times = _measure_receiving(args.rounds)
    middle = {
        mode: {name: median(values) for name, values in by_name.items()}
        for mode, by_name in rates.items()
    }
    print(f"{'thousand datagrams a second':30}{'drain':>9}{'echo':>9}")
    for name in VARIANTS:
        print(f"{name:30}{middle['drain'][name] / 1e3:9.0f}{middle['echo'][name] / 1e3:9.0f}")
    print(f"\n{'ratio':44}{'drain':>9}{'budget':>8}{'echo':>9}{'budget':>8}")
    ratios = []
    for name, against, *budgets in ROWS:
        row = {mode: middle[mode][name] / middle[mode][against] for mode in MODES}
        ratios.append({"variant": name, "against": against, **row})
        print(
            f"{name + ' / ' + against:44}{row['drain']:9.2f}{budgets[0]:8.1f}"
            f"{row['echo']:9.2f}{budgets[1]:8.1f}"
        )
    receiving = _report_receiving(times)
    if args.output:
        document = {
            "schema": 1,
            "date": time.strftime("%Y-%m-%d"),
            "machine": f"{platform.machine()}, {platform.system()} {platform.release()}",
            "python": platform.python_version(),
            "versions": {name: version(name) for name in ("uoa", "cffi", "uvloop")},
            "datagrams": DATAGRAMS,
            "payload": len(PAYLOAD),
            "rounds": args.rounds,
            "ratios": ratios,
            "rates": rates,
            "c": {"ratios": receiving, "nanoseconds": times},
        }
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        print(f"\nwritten to {args.output}")
    return 0


sys.exit(main())
