/* SPDX-License-Identifier: MIT */
#ifndef UOA_SRC_TRUST_H
#define UOA_SRC_TRUST_H

#include <uoa/uoa.h>

/* The same for the source of an IPv6 header, where a mapped address is no IPv4
 * sender. No socket ever sees such a packet: Linux drops it. */
int uoa_trust_contains_ipv6(const struct uoa_trust *trust,
			    const uint8_t address[16]);

#endif
