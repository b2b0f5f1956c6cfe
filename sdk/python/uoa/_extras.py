# SPDX-License-Identifier: MIT
"""What `uoa.FRAMEWORK` says when the framework is not there."""

from __future__ import annotations


def not_installed(framework: str, extra: str) -> ImportError:
    """Return the error that a module raises which serves a framework: it names the extra."""
    return ImportError(
        f'uoa.{framework}: {framework} is not installed: pip install "uoa[{extra}]"',
        name=framework,
    )
