/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "flows.h"

struct uoa_flows {
	struct uoa_table table;
	uint32_t policy;
	uint64_t ttl;
	uint64_t max_age;
	uint64_t *counters; /* the resolver's */
};

int uoa_flows_new(struct uoa_flows **flows, const struct uoa_config *config,
		  uint64_t *counters)
{
	struct uoa_flows *f = calloc(1, sizeof(*f));
	int error;

	if (!f)
		return -ENOMEM;
	f->policy = config->policy;
	f->ttl = config->ttl;
	f->max_age = config->max_age;
	f->counters = counters;
	error = uoa_table_init(&f->table, config->max_flows,
			       sizeof(struct uoa_flow));
	if (error) {
		free(f);
		return error;
	}
	*flows = f;
	return 0;
}

void uoa_flows_free(struct uoa_flows *f)
{
	if (!f)
		return;
	uoa_table_destroy(&f->table);
	free(f);
}

uint32_t uoa_flows_count(const struct uoa_flows *f)
{
	return f->table.count;
}

/* Of the peer only: behind a balancer one peer address and port is one flow, so
 * a chain also holds all that a search without a local address needs. */
static uint32_t hash_of(const struct uoa_flows *f, const struct uoa_flow_key *key)
{
	return uoa_table_hash(&f->table, key->peer, key->peer_port);
}

static int is_too_old(const struct uoa_flows *f, uint64_t learned, uint64_t now)
{
	return f->max_age && uoa_elapsed(learned, now) > f->max_age;
}

static int is_expired(const struct uoa_flows *f, const struct uoa_flow *flow,
		      uint64_t now)
{
	return uoa_elapsed(flow->entry.used, now) > f->ttl ||
	       (flow->is_known && is_too_old(f, flow->learned, now));
}

static void drop(struct uoa_flows *f, struct uoa_flow *flow, uint32_t counter)
{
	uoa_table_remove(&f->table, flow);
	f->counters[counter]++;
}

/* An entry that comes in may take an expired one out, so that a burst of flows
 * does not hold its memory for ever. */
static void make_room(struct uoa_flows *f, uint64_t now)
{
	struct uoa_flow *oldest = uoa_table_oldest(&f->table);

	if (oldest && is_expired(f, oldest, now))
		drop(f, oldest, UOA_COUNTER_EXPIRED);
	else if (f->table.count == f->table.max)
		drop(f, oldest, UOA_COUNTER_EVICTED);
}

static struct uoa_flow *find_exact(struct uoa_flows *f,
				   const struct uoa_flow_key *key, uint32_t hash,
				   uint64_t now)
{
	struct uoa_flow *flow = uoa_table_first(&f->table, hash);

	while (flow && memcmp(&flow->key, key, sizeof(*key)))
		flow = uoa_table_next(&f->table, flow);
	if (flow && is_expired(f, flow, now)) {
		drop(f, flow, UOA_COUNTER_EXPIRED);
		return NULL;
	}
	return flow;
}

struct uoa_flow *uoa_flows_peek(struct uoa_flows *f, const struct uoa_flow_key *key,
				uint64_t now)
{
	return find_exact(f, key, hash_of(f, key), now);
}

struct uoa_flow *uoa_flows_use(struct uoa_flows *f, const struct uoa_flow_key *key,
			       uint64_t now)
{
	struct uoa_flow *flow = uoa_flows_peek(f, key, now);

	if (flow)
		uoa_table_use(&f->table, flow, now);
	return flow;
}

void uoa_flows_forget(struct uoa_flows *f, const struct uoa_flow_key *key)
{
	struct uoa_flow *flow = find_exact(f, key, hash_of(f, key), 0);

	if (flow)
		uoa_table_remove(&f->table, flow);
}

/* Virtual networks use the same private addresses, each for hosts of its own. */
static int is_same_client(const struct uoa_claim *a, const struct uoa_claim *b)
{
	return a->client_port == b->client_port && a->vni == b->vni &&
	       uoa_address_equal(a->client, b->client);
}

static struct uoa_flow *add(struct uoa_flows *f, const struct uoa_flow_key *key,
			    uint32_t hash, uint64_t now)
{
	struct uoa_flow *flow;

	make_room(f, now);
	flow = uoa_table_add(&f->table, hash, now);
	flow->key = *key;
	return flow;
}

static void set_claim(struct uoa_flows *f, struct uoa_flow *flow,
		      const struct uoa_claim *claim, uint64_t learned)
{
	if (!flow->is_known)
		f->counters[UOA_COUNTER_LEARNED]++;
	flow->is_known = 1;
	flow->claim = *claim;
	flow->learned = learned;
}

struct uoa_flow *uoa_flows_learn(struct uoa_flows *f, const struct uoa_flow_key *key,
				 const struct uoa_claim *claim, uint64_t now)
{
	uint32_t hash = hash_of(f, key);
	struct uoa_flow *flow = find_exact(f, key, hash, now);

	if (!flow) {
		flow = add(f, key, hash, now);
	} else if (is_same_client(&flow->claim, claim)) {
		/* It may have sent this one to another address. */
		if (f->policy == UOA_POLICY_REPLACE)
			flow->claim = *claim;
		uoa_table_use(&f->table, flow, now);
		return flow;
	} else {
		f->counters[UOA_COUNTER_CHANGED]++;
		/* A claim that differs does not keep the old one alive. */
		if (f->policy == UOA_POLICY_PIN)
			return flow;
		uoa_table_use(&f->table, flow, now);
	}
	set_claim(f, flow, claim, now);
	return flow;
}

struct uoa_flow *uoa_flows_answer(struct uoa_flows *f, const struct uoa_flow_key *key,
				  const struct uoa_claim *claim, uint64_t learned,
				  uint64_t now)
{
	uint32_t hash = hash_of(f, key);
	struct uoa_flow *flow = find_exact(f, key, hash, now);
	int is_same;

	if (claim && learned && is_too_old(f, learned, now))
		claim = NULL;
	if (!flow)
		flow = add(f, key, hash, now);
	flow->asked = now;
	if (!claim)
		return flow;
	is_same = flow->is_known && is_same_client(&flow->claim, claim);
	if (flow->is_known && !is_same)
		f->counters[UOA_COUNTER_CHANGED]++;
	if (!learned)
		learned = is_same ? flow->learned : now;
	set_claim(f, flow, claim, learned);
	return flow;
}

static int matches(const struct uoa_flow *flow, const struct uoa_flow_key *key,
		   int any_local)
{
	return !memcmp(flow->key.peer, key->peer, 16) &&
	       flow->key.peer_port == key->peer_port &&
	       flow->key.peer_scope == key->peer_scope &&
	       (!key->local_port || flow->key.local_port == key->local_port) &&
	       (any_local || !memcmp(flow->key.local, key->local, 16));
}

const struct uoa_flow *uoa_flows_find(struct uoa_flows *f,
				      const struct uoa_flow_key *key, uint64_t now,
				      int *several)
{
	int any_local = uoa_address_is_unspecified(key->local);
	const struct uoa_flow *flow, *newest = NULL;

	*several = 0;
	for (flow = uoa_table_first(&f->table, hash_of(f, key)); flow;
	     flow = uoa_table_next(&f->table, flow)) {
		if (!flow->is_known || !matches(flow, key, any_local) ||
		    is_expired(f, flow, now))
			continue;
		if (newest && !is_same_client(&newest->claim, &flow->claim))
			*several = 1;
		if (!newest || flow->learned > newest->learned)
			newest = flow;
	}
	return newest;
}
