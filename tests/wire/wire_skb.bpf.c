/* SPDX-License-Identifier: MIT */
/*
 * Proves the same as wire_map.bpf.c of packets that the kernel takes as input
 * of a test run, read the way a learner reads them: out of the skb.
 */
#include "wire_bpf.h"

static inline int uoa_wire_read(const void *ctx, uoa_u32 off, void *to, uoa_u32 n)
{
	return (int)bpf_skb_load_bytes(ctx, off, to, n);
}

SEC("cgroup_skb/ingress")
int wire_skb(struct __sk_buff *skb)
{
	struct wire_case *c = bpf_map_lookup_elem(&cases, &only);

	if (c)
		wire_answer_case(skb, skb->len, (uoa_u8)c->switches);
	return 1;
}
