/* SPDX-License-Identifier: MIT */
/* What the BPF programs of this folder and their runner, bpf.c, share: the
 * contents of three maps. */
#ifndef UOA_TESTS_WIRE_CASE_H
#define UOA_TESTS_WIRE_CASE_H

#include <uoa/wire.h>

/* The offsets that UOA_WIRE_BOUND() lets through, and what is read there. */
enum { WIRE_OFFSET_MASK = 0x1ffff, WIRE_PACKET_ROOM = 0x20000 + 64 };

/* Map `cases`, one entry. */
struct wire_case {
	uoa_u32 len;
	uoa_u32 switches;
	uoa_u32 off; /* of the program */
	uoa_u8 packet[WIRE_PACKET_ROOM];
};

/* Map `answers`, one entry. */
struct wire_answer {
	struct uoa_claim claim; /* all zero unless found */
	uoa_u8 src[16];
	uoa_u8 dst[16];
	uoa_u32 opp_off; /* as in struct uoa_packet */
	uoa_u32 opp_len;
	uoa_u16 sport;
	uoa_u16 dport;
	uoa_u16 rule;
	uoa_u16 version;
};

/* Key of the map `trust`, a longest-prefix-match trie: who is in it is trusted.
 * The version keeps IPv4 and IPv6 apart; IPv4 addresses are mapped. */
struct wire_prefix {
	uoa_u32 bits; /* of what follows */
	uoa_u32 version;
	uoa_u8 address[16];
};

#endif
