# SPDX-License-Identifier: MIT
"""Programs nobody here wrote, against uoa: balancers before it, servers behind it, and clients.

    dig ──► dnsdist ──PROXY v2──► whoami_dns.py        dnsdist, kdig: what we read
    dig ──► uoa lb ──PROXY v2──► unbound, Knot         unbound, Knot: what we write
    socat ──option──► echo.py                          the option of IPv4, sent by socat
    uoa send, uoa lb ──option──► socat                 and read by it

Each test has a network namespace of its own, so that ports are what their
configurations say. `sudo make test-deps` installs the programs.
"""
