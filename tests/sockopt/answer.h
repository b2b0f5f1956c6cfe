/* SPDX-License-Identifier: MIT */
/* What answer.bpf.c and its loader, table.c, share: the contents of three maps. */
#ifndef UOA_TESTS_ANSWER_H
#define UOA_TESTS_ANSWER_H

#include <uoa/uapi.h>

/* The requests, by their index in the maps `answered` and `asked`. */
enum { ANSWER_DPVS, ANSWER_FLOW, ANSWER_COUNT };

/* Key of the map `flows`. `local` is all zero in the entry for wildcards. */
struct flow_key {
	uoa_u8 peer[16];
	uoa_u8 local[16];
	uoa_u16 peer_port;
	uoa_u16 local_port;
};

/* Value of the map `flows`. */
struct flow {
	struct uoa_claim claim; /* without its families */
	uoa_u32 several;	/* as in struct uoa_answer */
	long long learned;	/* ns of CLOCK_MONOTONIC; before the boot, below 0 */
};

#endif
