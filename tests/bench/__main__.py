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

from tests.bench import adapters, receive
from tests.bench.variants import DATAGRAMS, MODES, PAYLOAD, VARIANTS, run_apart

# Row: (this, against that, budget of drain, budget of echo)
ROWS = (
    ("uoa on asyncio", "asyncio", 10.0, 5.0),
    ("uoa on asyncio", "asyncio, warm heap", 2.2, 1.8),
    ("uoa on asyncio", "uvloop", 0.9, 1.0),
    ("uoa on uvloop", "uvloop", 0.9, 1.0),
)


_VERSIONS = ("uoa", "cffi", "uvloop", "aioquic", "dnslib", "hypercorn", "nserver")


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


def _measure_adapters(rounds: int) -> dict[str, dict[str, list[float]]]:
    rates: dict[str, dict[str, list[float]]] = {
        name: {"alone": [], "uoa": []} for name in adapters.CASES
    }
    total = rounds * len(rates)
    done = 0
    for _ in range(rounds):
        for name, by_side in rates.items():
            by_side["alone"].append(adapters.run_apart(name, is_uoa=False))
            by_side["uoa"].append(adapters.run_apart(name, is_uoa=True))
            done += 1
            print(f"\r{done} of {total} pairs of adapters", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return rates


def _report_adapters(rates: dict[str, dict[str, list[float]]]) -> list[dict[str, object]]:
    """Print each adapter beside its framework; return their ratios."""
    title = "requests a second of processor time"
    print(f"\n{title:37}{'alone':>9}{'with uoa':>10}{'ratio':>8}{'budget':>8}")
    ratios: list[dict[str, object]] = []
    for name, by_side in rates.items():
        alone, ours = median(by_side["alone"]), median(by_side["uoa"])
        budget = adapters.CASES[name].budget
        ratios.append({"adapter": name, "ratio": ours / alone})
        print(f"{name:37}{alone:9.0f}{ours:10.0f}{ours / alone:8.2f}{budget:8.2f}")
    return ratios


def main() -> int:
    """Measure, print the tables, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    rates = _measure(args.rounds)
    times = _measure_receiving(args.rounds)
    beside = _measure_adapters(args.rounds)
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
    adapting = _report_adapters(beside)
    if args.output:
        document = {
            "schema": 1,
            "date": time.strftime("%Y-%m-%d"),
            "machine": f"{platform.machine()}, {platform.system()} {platform.release()}",
            "python": platform.python_version(),
            "versions": {name: version(name) for name in _VERSIONS},
            "datagrams": DATAGRAMS,
            "payload": len(PAYLOAD),
            "rounds": args.rounds,
            "ratios": ratios,
            "rates": rates,
            "c": {"ratios": receiving, "nanoseconds": times},
            "adapters": {"ratios": adapting, "rates": beside},
        }
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        print(f"\nwritten to {args.output}")
    return 0


sys.exit(main())
