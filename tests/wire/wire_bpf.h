/* SPDX-License-Identifier: MIT */
/*
 * The walk of wire_walk.h as BPF runs it: what two small programs share that
 * differ only in where a packet comes from. An includer defines uoa_wire_read()
 * and calls wire_answer_case().
 */
#ifndef UOA_TESTS_WIRE_BPF_H
#define UOA_TESTS_WIRE_BPF_H

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "wire_case.h"

#define NOINLINE __attribute__((noinline))

/* A plain loop is correct as well, but then the verifier walks through each of
 * its rounds: five to ten times the work. */
#define UOA_WIRE_LOOP(rounds, step, state) bpf_loop(rounds, step, state, 0)

/* Global functions, which the verifier judges by themselves, once. Their
 * pointers may be NULL as far as it knows. */
NOINLINE int wire_judge(uoa_u32 area, uoa_u32 switches, uoa_u32 type, uoa_u32 len)
{
	return uoa_option_judge((uoa_u8)area, (uoa_u8)switches, (uoa_u8)type,
				(uoa_u8)len);
}

NOINLINE int wire_add(struct uoa_claims *all, const struct uoa_option *option,
		      uoa_u32 area, uoa_u32 type, uoa_u32 form)
{
	if (all && option)
		uoa_option_add(all, option, (uoa_u8)area, (uoa_u8)type,
			       (uoa_u8)form);
	return 0;
}

#define UOA_WIRE_JUDGE wire_judge
#define UOA_WIRE_ADD wire_add

static inline int uoa_wire_read(const void *ctx, uoa_u32 off, void *to, uoa_u32 n);

#include <uoa/wire_walk.h>

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, uoa_u32);
	__type(value, struct wire_case);
} cases SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, uoa_u32);
	__type(value, struct wire_answer);
} answers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 64);
	__type(key, struct wire_prefix);
	__type(value, uoa_u8);
} trust SEC(".maps");

static const uoa_u32 only = 0; /* the key of an array of one */

static inline int wire_trusts(const struct uoa_packet *p)
{
	struct wire_prefix key = { .bits = 160, .version = p->version };

	__builtin_memcpy(key.address, p->src, 16);
	return bpf_map_lookup_elem(&trust, &key) != 0;
}

/* The two walks have frames of their own: together with wire_add(), the longest
 * chain of frames takes 416 of 512 bytes. */
static NOINLINE uoa_u16 wire_outer(const void *ctx, uoa_u32 len, uoa_u8 switches,
				   struct uoa_packet *p)
{
	return uoa_wire_outer(ctx, len, switches, p);
}

static NOINLINE uoa_u16 wire_options(const void *ctx, const struct uoa_packet *p,
				     uoa_u8 switches, struct uoa_claim *claim)
{
	struct uoa_option_walk walk;
	uoa_u16 rule = uoa_wire_options(ctx, p, switches, &walk);

	if (!rule)
		rule = uoa_claims_verdict(&walk.claims, UOA_RULE_NO_CLAIM);
	if (rule == UOA_RULE_FOUND)
		*claim = walk.claims.first;
	return rule;
}

/* Rows 1 to 26 of rules 4.2, without the payload dialects. */
static inline void wire_answer_case(const void *ctx, uoa_u32 len, uoa_u8 switches)
{
	struct wire_answer *answer = bpf_map_lookup_elem(&answers, &only);
	struct uoa_packet p;
	uoa_u16 rule;

	if (!answer)
		return;
	__builtin_memset(answer, 0, sizeof(*answer));
	rule = wire_outer(ctx, len, switches, &p);
	if (!rule)
		rule = wire_trusts(&p) ?
			       wire_options(ctx, &p, switches, &answer->claim) :
			       UOA_RULE_SENDER;
	__builtin_memcpy(answer->src, p.src, 16);
	__builtin_memcpy(answer->dst, p.dst, 16);
	answer->opp_off = p.opp_off;
	answer->opp_len = p.opp_len;
	answer->sport = p.sport;
	answer->dport = p.dport;
	answer->rule = rule;
	answer->version = p.version;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";

#endif
