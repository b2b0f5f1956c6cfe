# SPDX-License-Identifier: MIT
"""`python -m uoa`: the same as `uoa`."""

from uoa.cli import main

raise SystemExit(main())
