/* SPDX-License-Identifier: MIT */
/*
 * Proves that the verifier takes the walk of wire_walk.h, and that it says of
 * every packet in BPF what it says in user space: the packet comes from a map,
 * so no kernel refuses it as input, however short or broken.
 */
#include "wire_bpf.h"

static inline int uoa_wire_read(const void *ctx, uoa_u32 off, void *to, uoa_u32 n)
{
	struct wire_case *c = (struct wire_case *)ctx;

	if (off + n > c->len)
		return -1;
	/* Out of the map and in again: the verifier forgets where earlier rounds
	 * left the offset, and so takes all rounds for one. */
	*(volatile uoa_u32 *)&c->off = off;
	off = *(volatile uoa_u32 *)&c->off & WIRE_OFFSET_MASK;
	__builtin_memcpy(to, c->packet + off, n);
	return 0;
}

SEC("cgroup_skb/ingress")
int wire_map(struct __sk_buff *skb)
{
	struct wire_case *c = bpf_map_lookup_elem(&cases, &only);

	(void)skb;
	if (c)
		wire_answer_case(c, c->len, (uoa_u8)c->switches);
	return 1;
}
