/* SPDX-License-Identifier: MIT */
/*
 * A table of flows in a plain array, newest last, and the answer to getsockopt()
 * over it: what the kernel parts do with tables of their own.
 */
#ifndef UOA_TESTS_TABLE_H
#define UOA_TESTS_TABLE_H

#include <string.h>

#include <uoa/uapi.h>

enum { TABLE_ROOM = 64 };

struct flow {
	uoa_u8 peer[16]; /* as everywhere: IPv4 as mapped */
	uoa_u8 local[16];
	uoa_u16 peer_port;
	uoa_u16 local_port;
	struct uoa_claim claim;
	unsigned long long age_ms;
};

struct table {
	struct flow flows[TABLE_ROOM];
	uoa_u32 count;
};

/* Enter a flow; one with the same key leaves. */
static inline void table_put(struct table *t, const struct flow *flow)
{
	uoa_u32 kept = 0;

	for (uoa_u32 i = 0; i < t->count; i++) {
		const struct flow *old = &t->flows[i];

		if (old->peer_port != flow->peer_port ||
		    old->local_port != flow->local_port ||
		    !uoa_address_equal(old->peer, flow->peer) ||
		    !uoa_address_equal(old->local, flow->local))
			t->flows[kept++] = *old;
	}
	t->flows[kept] = *flow;
	t->count = kept + 1;
}

/* The newest flow that matches. `several`: with another client than an older
 * one has, which only a question without a local address can meet. */
static inline int table_lookup(const struct table *t, const struct uoa_query *q,
			       struct uoa_answer *answer)
{
	const struct flow *newest = NULL;

	memset(answer, 0, sizeof(*answer));
	for (uoa_u32 i = 0; i < t->count; i++) {
		const struct flow *f = &t->flows[i];

		if (f->peer_port != q->peer_port ||
		    f->local_port != q->local_port ||
		    !uoa_address_equal(f->peer, q->peer) ||
		    (!q->any_local && !uoa_address_equal(f->local, q->local)))
			continue;
		if (newest &&
		    (newest->claim.client_port != f->claim.client_port ||
		     !uoa_address_equal(newest->claim.client, f->claim.client)))
			answer->several = 1;
		newest = f;
	}
	if (!newest)
		return UOA_SOCKOPT_MISS;
	answer->claim = newest->claim;
	answer->age_ms = newest->age_ms < 0xffffffff ? (uoa_u32)newest->age_ms :
						       0xffffffff;
	return UOA_SOCKOPT_OK;
}

/* getsockopt(fd, level, request, buffer, &len) over a table. Any status but OK
 * leaves `buffer` and `len` alone. */
static inline int table_getsockopt(const struct table *t, int level, int request,
				   const uoa_u8 *nat64_prefix, uoa_u8 *buffer,
				   uoa_u32 *len)
{
	union uoa_sockopt_buffer copy;
	struct uoa_answer answer;
	struct uoa_query query;
	uoa_u8 layout;
	int status;

	status = uoa_sockopt_layout(level, request, *len, &layout);
	if (status)
		return status;
	memcpy(&copy, buffer, uoa_sockopt_len(layout));
	status = uoa_sockopt_query(layout, &copy, &query);
	if (!status)
		status = table_lookup(t, &query, &answer);
	if (!status)
		status = uoa_sockopt_reply(layout, &query, &answer, nat64_prefix,
					   &copy);
	if (status)
		return status;
	*len = uoa_sockopt_len(layout);
	memcpy(buffer, &copy, *len);
	return UOA_SOCKOPT_OK;
}

#endif
