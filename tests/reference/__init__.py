# SPDX-License-Identifier: MIT
"""A slow, obvious, second implementation that judges the fast ones.

The project parses packets in one C header and answers socket option requests from one more.  Code
that is compared with nothing but itself is wrong in the same way twice, so this package says the
same things again, in plain Python and in the order in which the rules are written.  The fuzzers
feed both and stop at the first difference.

It is written from the rules (docs/wire-format.md) and never from wire.h.  Keep it that way: when
the two disagree, read the rules, and change whichever side departs from them.

* `reference.decoder.decode()`: what a packet says, as the `expect` object of a packet vector
* `reference.sockopt.answer()`: what getsockopt() answers, as that of a sockopt vector
"""
