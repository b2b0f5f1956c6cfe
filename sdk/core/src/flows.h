/* SPDX-License-Identifier: MIT */
/*
 * The flow table: which client a balancer named for a flow, kept for the later
 * datagrams that carry no claim. Bounded, least recently used out first. It
 * does no I/O, takes no lock and reads no clock.
 */
#ifndef UOA_SRC_FLOWS_H
#define UOA_SRC_FLOWS_H

#include <uoa/uoa.h>

#include "table.h"

struct uoa_flow_key {
	uint8_t peer[16];
	uint8_t local[16];
	uint32_t peer_scope;
	uint16_t peer_port;
	uint16_t local_port;
};

struct uoa_flow {
	struct uoa_entry entry;
	struct uoa_flow_key key;
	struct uoa_claim claim;
	uint64_t learned;
	uint64_t asked; /* when the kernel was asked for it, 0: never */
	uint32_t is_known; /* 0: the kernel has no claim either */
	uint32_t is_several; /* the kernel's answer: clients that differ */
};

struct uoa_flows;

int uoa_flows_new(struct uoa_flows **flows, const struct uoa_config *config,
		  uint64_t *counters);
void uoa_flows_free(struct uoa_flows *flows);
uint32_t uoa_flows_count(const struct uoa_flows *flows);

/* The live flow of this key, or NULL. */
struct uoa_flow *uoa_flows_peek(struct uoa_flows *flows,
				const struct uoa_flow_key *key, uint64_t now);

/* The same, marked as used. */
struct uoa_flow *uoa_flows_use(struct uoa_flows *flows,
			       const struct uoa_flow_key *key, uint64_t now);

/* Enter a claim that came with a datagram. Returns the flow as it is afterwards:
 * under UOA_POLICY_PIN that may be another client than the claim's. */
struct uoa_flow *uoa_flows_learn(struct uoa_flows *flows,
				 const struct uoa_flow_key *key,
				 const struct uoa_claim *claim, uint64_t now);

/* Enter what the kernel answered: a claim, or NULL when it has none, which takes
 * no known client away. `learned` 0: it did not tell when, so that it was when
 * this client was first told of. A claim older than max_age is none. */
struct uoa_flow *uoa_flows_answer(struct uoa_flows *flows,
				  const struct uoa_flow_key *key,
				  const struct uoa_claim *claim,
				  uint64_t learned, uint64_t now);

/* Take a flow out, if it is there. */
void uoa_flows_forget(struct uoa_flows *flows, const struct uoa_flow_key *key);

/* The newest live flow that matches, with any local address if that of `key` is
 * all zero. Marks nothing as used. `several`: flows of different clients match. */
const struct uoa_flow *uoa_flows_find(struct uoa_flows *flows,
				      const struct uoa_flow_key *key, uint64_t now,
				      int *several);

#endif
