# SPDX-License-Identifier: MIT
"""aioquic's own example programs, from the source distribution of the release that is installed."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path
from typing import Final

_CACHE: Final = Path(__file__).parents[2] / "build/tests/aioquic"


def folder() -> Path:
    """Return where the examples are, or would be."""
    return _CACHE / f"aioquic-{version('aioquic')}" / "examples"


def fetch() -> str | None:
    """Fetch and unpack them unless they are there; return why not, if that fails."""
    if folder().exists():
        return None
    release = version("aioquic")
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
        "--retries", "1",
        "--no-deps", "--no-binary", "aioquic", "--dest", str(_CACHE), f"aioquic=={release}",
    ]  # fmt: skip
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        return f"the source of aioquic {release}: {result.stderr.strip().splitlines()[-1]}"
    with tarfile.open(_CACHE / f"aioquic-{release}.tar.gz") as archive:
        archive.extractall(_CACHE, filter="data")
    return None
