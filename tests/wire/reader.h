/* SPDX-License-Identifier: MIT */
/* The walk of wire_walk.h over a packet whose reads are counted, and one of
 * which may fail, as reads of a kernel may. */
#ifndef UOA_TESTS_READER_H
#define UOA_TESTS_READER_H

#include <string.h>

#include <uoa/wire.h>

struct reader {
	const uoa_u8 *packet;
	uoa_u32 len;
	uoa_u32 fail_at; /* the first read is 1; 0: none fails */
	uoa_u32 count;
	int went_outside;
};

static inline int uoa_wire_read(const void *ctx, uoa_u32 off, void *to, uoa_u32 n)
{
	struct reader *r = (struct reader *)ctx;

	r->count++;
	r->went_outside |= off > r->len || n > r->len - off;
	if (r->count == r->fail_at || r->went_outside)
		return -1;
	memcpy(to, r->packet + off, n);
	return 0;
}

#include <uoa/wire_walk.h>

/* Rows 1 to 26 of rules 4.2 but 21 and the payload: everybody is trusted. */
static inline uoa_u16 reader_walk(struct reader *r, uoa_u8 switches)
{
	struct uoa_option_walk walk;
	struct uoa_packet p;
	uoa_u16 rule;

	rule = uoa_wire_outer(r, r->len, switches, &p);
	if (!rule)
		rule = uoa_wire_options(r, &p, switches, &walk);
	return rule ? rule : uoa_claims_verdict(&walk.claims, UOA_RULE_NO_CLAIM);
}

#endif
