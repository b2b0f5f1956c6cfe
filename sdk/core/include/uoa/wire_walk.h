/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * FREESTANDING: the walk over a packet, from its first byte to its claims.
 *
 * It never sees memory. Whoever includes this file says how bytes are fetched,
 * and defines before including it
 *
 *	static inline int uoa_wire_read(const void *ctx, uoa_u32 off, void *to,
 *					uoa_u32 n);
 *
 * which copies `n` bytes (always a constant) at offset `off` of the packet to
 * `to` and returns 0, or something else when they are not there: memcpy() in
 * user space, skb_header_pointer() in the module, bpf_skb_load_bytes() in BPF.
 * The walk asks only for bytes that the lengths it was given allow.
 *
 * The includer may also define
 *
 *	UOA_WIRE_LOOP(rounds, step, state)
 *		for instance as bpf_loop(rounds, step, state, 0); a plain loop is
 *		the default. A step returns 1 when the walk is over.
 *	UOA_WIRE_JUDGE, UOA_WIRE_ADD
 *		functions to call in place of uoa_option_judge(), uoa_option_add().
 *		In BPF, give them global linkage: the verifier then looks into each
 *		once, and not on every path through every round that calls it.
 *
 * The order of the calls is that of rules 4.2:
 *
 *	rule = uoa_wire_outer(ctx, len, switches, &packet);   rows 1 to 20
 *	... is packet.src trusted?                            row 21
 *	rule = uoa_wire_options(ctx, &packet, switches, &walk);
 *	... payload dialects, in user space                   row 22
 *	rule = uoa_claims_verdict(&walk.claims, absent);      rows 23 to 26
 */
#ifndef UOA_WIRE_WALK_H
#define UOA_WIRE_WALK_H

#include "wire.h"

#ifndef UOA_WIRE_LOOP
#define UOA_WIRE_LOOP(rounds, step, state)                                     \
	do {                                                                   \
		for (uoa_u32 round_ = 0; round_ < (rounds); round_++)          \
			if (step(round_, state))                               \
				break;                                         \
	} while (0)
#endif

#ifndef UOA_WIRE_JUDGE
#define UOA_WIRE_JUDGE uoa_option_judge
#endif
#ifndef UOA_WIRE_ADD
#define UOA_WIRE_ADD uoa_option_add
#endif

/*
 * Make the compiler forget what it knows about an offset, then bound it. The
 * verifier needs both at the start of a round: it proves the bound from the
 * mask, and without the barrier it follows each path of earlier rounds.
 * 40 + 65535 bytes is the longest packet.
 */
#define UOA_WIRE_BOUND(off)                                                    \
	do {                                                                   \
		__asm__ volatile("" : "+r"(off));                              \
		(off) &= 0x1ffff;                                              \
	} while (0)

#define UOA_STEP static __attribute__((unused)) long

/* What rows 1 to 20 learn. Offsets count from the first byte of the packet. */
struct uoa_packet {
	uoa_u8 src[16];
	uoa_u8 dst[16];
	uoa_u32 end; /* where the IP header says that the packet ends */
	uoa_u32 options_off; /* IPv4 options, or those in front of UDP */
	uoa_u32 options_end; /* 0: none */
	uoa_u32 transport_byte; /* the octet that said 17 or 248 */
	uoa_u32 opp_off; /* 0: the packet has no opp header */
	uoa_u32 opp_len; /* 0: it has one that must be left alone */
	uoa_u32 payload_off;
	uoa_u32 payload_end;
	uoa_u16 sport;
	uoa_u16 dport;
	uoa_u8 version;
	uoa_u8 is_fragment; /* the first one of several */
};

/* ---- IPv6 extension headers ------------------------------------------------ */

struct uoa_ext_walk {
	const void *ctx;
	uoa_u32 off;
	uoa_u32 end;
	uoa_u32 transport_byte;
	uoa_u32 options_off;
	uoa_u32 options_end;
	uoa_u16 rule;
	uoa_u8 next;
	uoa_u8 is_fragment;
};

UOA_STEP uoa_ext_step(uoa_u32 round, void *state)
{
	struct uoa_ext_walk *w = state;
	uoa_u32 off = w->off, left;
	uoa_u8 head[8];

	UOA_WIRE_BOUND(off);
	if (!uoa_ext_is_header(w->next))
		return 1;
	left = w->end - off;
	w->rule = UOA_RULE_V6_CHAIN;
	if (round >= UOA_EXT_MAX || left < sizeof(head))
		return 1;
	if (uoa_wire_read(w->ctx, off, head, sizeof(head)))
		return 1;
	w->rule = uoa_ext_judge(w->next, head, left, round == 0);
	if (w->rule)
		return 1;
	if (w->next == UOA_EXT_FRAGMENT && head[3] & 1)
		w->is_fragment = 1;
	w->off = off + uoa_ext_len(w->next, head);
	if (w->next == UOA_EXT_DST_OPTS && head[0] == UOA_PROTO_UDP) {
		w->options_off = off + 2;
		w->options_end = w->off;
	}
	w->transport_byte = off;
	w->next = head[0];
	return 0;
}

/* ---- Rows 1 to 20 ---------------------------------------------------------- */

/* Rows 18 to 20: what the IP header said is UDP or opp, at `off`. */
UOA_INLINE uoa_u16 uoa_wire_transport(const void *ctx, uoa_u32 off,
				      uoa_u8 protocol, struct uoa_packet *p)
{
	uoa_u8 head[8];
	uoa_u16 rule, udp_len;
	uoa_u32 left;

	UOA_WIRE_BOUND(off);
	left = p->end - off;
	if (protocol == UOA_PROTO_OPP) {
		p->opp_off = off;
		if (left < UOA_OPP_HEADER_LEN ||
		    uoa_wire_read(ctx, off, head, UOA_OPP_HEADER_LEN))
			return UOA_RULE_OPP_SHORT;
		rule = uoa_opp_judge(head, left);
		if (rule)
			return rule;
		p->opp_len = uoa_load16(head + 2);
		off += p->opp_len;
		left -= p->opp_len;
	}
	UOA_WIRE_BOUND(off);
	if (left < sizeof(head) || uoa_wire_read(ctx, off, head, sizeof(head)))
		return UOA_RULE_UDP_HEADER;
	udp_len = uoa_load16(head + 4);
	if (udp_len < UOA_UDP_HEADER_LEN || (udp_len > left && !p->is_fragment))
		return UOA_RULE_UDP_HEADER;
	p->sport = uoa_load16(head);
	p->dport = uoa_load16(head + 2);
	p->payload_off = off + UOA_UDP_HEADER_LEN;
	p->payload_end = off + (udp_len < left ? udp_len : left);
	return 0;
}

UOA_INLINE int uoa_wire_is_transport(uoa_u8 protocol, uoa_u8 switches)
{
	return protocol == UOA_PROTO_UDP ||
	       (protocol == UOA_PROTO_OPP && switches & UOA_ENABLE_OPP);
}

UOA_INLINE uoa_u16 uoa_wire_outer4(const void *ctx, uoa_u32 len,
				   uoa_u8 switches, struct uoa_packet *p)
{
	uoa_u8 head[UOA_IPV4_HEADER_LEN];
	uoa_u32 header_len;

	if (len < sizeof(head) || uoa_wire_read(ctx, 0, head, sizeof(head)))
		return UOA_RULE_SHORT;
	header_len = (head[0] & 0x0fu) * 4;
	p->end = uoa_load16(head + 2);
	if (header_len < UOA_IPV4_HEADER_LEN || p->end < header_len)
		return UOA_RULE_V4_HEADER;
	if (len < p->end)
		return UOA_RULE_V4_CUT;
	if (uoa_load16(head + 6) & 0x1fff)
		return UOA_RULE_V4_FRAGMENT;
	if (!uoa_wire_is_transport(head[9], switches))
		return UOA_RULE_V4_PROTOCOL;
	p->is_fragment = head[6] >> 5 & 1;
	uoa_address_map(p->src, head + 12);
	uoa_address_map(p->dst, head + 16);
	p->options_off = UOA_IPV4_HEADER_LEN;
	p->options_end = header_len;
	p->transport_byte = 9;
	return uoa_wire_transport(ctx, header_len, head[9], p);
}

UOA_INLINE uoa_u16 uoa_wire_outer6(const void *ctx, uoa_u32 len,
				   uoa_u8 switches, struct uoa_packet *p)
{
	struct uoa_ext_walk walk;
	uoa_u8 head[UOA_IPV6_HEADER_LEN];

	if (len < sizeof(head) || uoa_wire_read(ctx, 0, head, sizeof(head)))
		return UOA_RULE_V6_SHORT;
	p->end = UOA_IPV6_HEADER_LEN + uoa_load16(head + 4);
	if (p->end == UOA_IPV6_HEADER_LEN && head[6] == UOA_EXT_HOP_BY_HOP)
		return UOA_RULE_V6_JUMBO;
	if (len < p->end)
		return UOA_RULE_V6_CUT;
	__builtin_memcpy(p->src, head + 8, 16);
	__builtin_memcpy(p->dst, head + 24, 16);

	__builtin_memset(&walk, 0, sizeof(walk));
	walk.ctx = ctx;
	walk.off = UOA_IPV6_HEADER_LEN;
	walk.end = p->end;
	walk.transport_byte = 6;
	walk.next = head[6];
	UOA_WIRE_LOOP(UOA_EXT_MAX + 1, uoa_ext_step, &walk);
	if (walk.rule)
		return walk.rule;
	if (!uoa_wire_is_transport(walk.next, switches))
		return UOA_RULE_V6_PROTOCOL;
	p->options_off = walk.options_off;
	p->options_end = walk.options_end;
	p->transport_byte = walk.transport_byte;
	p->is_fragment = walk.is_fragment;
	return uoa_wire_transport(ctx, walk.off, walk.next, p);
}

/* Rows 1 to 20, over the `len` bytes that there are. 0: the packet is UDP, and
 * all of `p` is filled; else the rule, and `p` tells of the opp header. */
UOA_INLINE uoa_u16 uoa_wire_outer(const void *ctx, uoa_u32 len, uoa_u8 switches,
				  struct uoa_packet *p)
{
	uoa_u8 first;

	__builtin_memset(p, 0, sizeof(*p));
	if (len < 1 || uoa_wire_read(ctx, 0, &first, 1))
		return UOA_RULE_SHORT;
	p->version = first >> 4;
	if (p->version == 4)
		return uoa_wire_outer4(ctx, len, switches, p);
	if (p->version == 6)
		return uoa_wire_outer6(ctx, len, switches, p);
	return UOA_RULE_VERSION;
}

/* ---- Row 22: options ------------------------------------------------------- */

/* One walk over option areas; `claims` grows from area to area. */
struct uoa_option_walk {
	const void *ctx;
	uoa_u32 off;
	uoa_u32 end;
	uoa_u16 rule; /* 0 as long as everything is well-formed */
	uoa_u8 area;
	uoa_u8 switches;
	struct uoa_option option;
	struct uoa_claims claims;
};

/* An IPv6 option area is as long as its header at most; the others fit 40. */
enum { UOA_OPTION_ROUNDS = 40, UOA_OPTION_ROUNDS_IPV6 = 2046 };

UOA_INLINE void uoa_option_walk_init(struct uoa_option_walk *w, const void *ctx,
				     uoa_u8 switches, const uoa_u8 sender[16])
{
	__builtin_memset(w, 0, sizeof(*w));
	w->ctx = ctx;
	w->switches = switches;
	__builtin_memcpy(w->option.sender, sender, 16);
}

/* Fetch what is behind an item's leading octets: a constant size a form. */
UOA_INLINE int uoa_option_read(const void *ctx, uoa_u32 off, uoa_u8 form,
			       uoa_u8 window[UOA_FORM_MAX_LEN])
{
	switch (form) {
	case UOA_FORM_ADDRESS4:
		return uoa_wire_read(ctx, off, window, UOA_FORM_ADDRESS4_LEN);
	case UOA_FORM_ADDRESS6:
		return uoa_wire_read(ctx, off, window, UOA_FORM_ADDRESS6_LEN);
	case UOA_FORM_BOTH6:
		return uoa_wire_read(ctx, off, window, UOA_FORM_BOTH6_LEN);
	case UOA_FORM_VNI6:
		return uoa_wire_read(ctx, off, window, UOA_FORM_VNI6_LEN);
	default: /* two forms of the same length */
		return uoa_wire_read(ctx, off, window, UOA_FORM_BOTH4_LEN);
	}
}

UOA_STEP uoa_option_step(uoa_u32 round, void *state)
{
	struct uoa_option_walk *w = state;
	uoa_u32 off = w->off, left, total;
	uoa_u8 head[2], type, form;
	int is_ipv6 = w->area == UOA_AREA_IPV6;

	(void)round;
	UOA_WIRE_BOUND(off);
	if (off >= w->end)
		return 1;
	left = w->end - off;
	w->rule = UOA_RULE_OPTION_LAST_BYTE;
	if (uoa_wire_read(w->ctx, off, head, 1))
		return 1;
	if (!is_ipv6 && head[0] == UOA_OPT_END) {
		w->rule = 0;
		return 1;
	}
	if (head[0] == (is_ipv6 ? UOA_OPT_PAD1 : UOA_OPT_NOP)) {
		w->rule = 0;
		w->off = off + 1;
		return 0;
	}
	if (left < sizeof(head) ||
	    uoa_wire_read(w->ctx, off, head, sizeof(head)))
		return 1;
	total = is_ipv6 ? head[1] + 2u : head[1];
	w->rule = UOA_RULE_OPTION_LENGTH;
	if (total < sizeof(head))
		return 1;
	w->rule = UOA_RULE_OPTION_PAST_END;
	if (total > left)
		return 1;
	w->off = off + total;

	type = head[0];
	form = (uoa_u8)UOA_WIRE_JUDGE(w->area, w->switches, type, head[1]);
	w->rule = form == UOA_FORM_BAD ? UOA_RULE_OPTION_SIZE : 0;
	if (form <= UOA_FORM_BAD)
		return w->rule != 0;

	/* From here on the option is one of ours and complete. */
	off += sizeof(head);
	if (w->area == UOA_AREA_IPV4 && !uoa_form_is_ipo(form)) {
		w->rule = UOA_RULE_OPTION_FAMILY;
		if (uoa_wire_read(w->ctx, off, head, sizeof(head)) ||
		    head[0] != uoa_form_is_ipv6(form))
			return 1;
		off += sizeof(head);
	}
	w->rule = UOA_RULE_OPTION_PAST_END;
	if (uoa_option_read(w->ctx, off, form, w->option.window))
		return 1;
	w->rule = 0;
	UOA_WIRE_ADD(&w->claims, &w->option, w->area, type, form);
	return 0;
}

/* Walk one area, [off, end). 0, or the rule that makes the packet yield
 * nothing. Rounds suffice for the longest area there can be, so the loop only
 * ends where a step says so. */
UOA_INLINE uoa_u16 uoa_option_area(struct uoa_option_walk *w, uoa_u8 area,
				   uoa_u32 off, uoa_u32 end)
{
	w->area = area;
	w->off = off;
	w->end = end;
	if (area == UOA_AREA_IPV6)
		UOA_WIRE_LOOP(UOA_OPTION_ROUNDS_IPV6, uoa_option_step, w);
	else
		UOA_WIRE_LOOP(UOA_OPTION_ROUNDS, uoa_option_step, w);
	return w->rule;
}

/* Row 22 as far as the IP headers and the opp header go, for a packet that
 * uoa_wire_outer() took. `w` is initialised here. */
UOA_INLINE uoa_u16 uoa_wire_options(const void *ctx, const struct uoa_packet *p,
				    uoa_u8 switches, struct uoa_option_walk *w)
{
	uoa_u16 rule = 0;

	uoa_option_walk_init(w, ctx, switches, p->src);
	if (p->options_end > p->options_off)
		rule = uoa_option_area(w,
				       p->version == 4 ? UOA_AREA_IPV4 :
							 UOA_AREA_IPV6,
				       p->options_off, p->options_end);
	if (!rule && p->opp_len)
		rule = uoa_option_area(w, UOA_AREA_OPP,
				       p->opp_off + UOA_OPP_HEADER_LEN,
				       p->opp_off + p->opp_len);
	return rule;
}

#endif /* UOA_WIRE_WALK_H */
