/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>

#include "flows.h"

/* Flow 0 is the list's anchor: its `newer` is the oldest flow, its `older` the
 * newest. Flow numbers are 32 bits; 0 also ends a chain. */
enum { ANCHOR = 0 };

struct uoa_flows {
	struct uoa_flow *at; /* max + 1 of them */
	uint32_t *buckets;
	uint32_t bucket_mask;
	uint32_t max;
	uint32_t count;
	uint32_t fresh; /* flows from this one on were never used */
	uint32_t vacant; /* chain of flows that were given back */
	uint32_t policy;
	uint64_t ttl;
	uint64_t max_age;
	uint64_t hash_key[2];
	uint64_t *counters; /* the resolver's */
};

/* Both arrays are mapped at their full size: the kernel supplies pages as they
 * are first touched, so the table grows without ever moving a flow. */
static void *map_array(size_t count, size_t size)
{
	void *p = mmap(NULL, count * size, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

int uoa_flows_new(struct uoa_flows **flows, const struct uoa_config *config,
		  uint64_t *counters)
{
	struct uoa_flows *f = calloc(1, sizeof(*f));
	uint32_t buckets = 64;

	if (!f)
		return -ENOMEM;
	while (buckets < config->max_flows)
		buckets *= 2;
	f->bucket_mask = buckets - 1;
	f->max = config->max_flows;
	f->fresh = 1;
	f->policy = config->policy;
	f->ttl = config->ttl;
	f->max_age = config->max_age;
	f->counters = counters;
	f->at = map_array((size_t)f->max + 1, sizeof(*f->at));
	f->buckets = map_array(buckets, sizeof(*f->buckets));
	if (!f->at || !f->buckets ||
	    getrandom(f->hash_key, sizeof(f->hash_key), 0) != sizeof(f->hash_key)) {
		uoa_flows_free(f);
		return -ENOMEM;
	}
	*flows = f;
	return 0;
}

void uoa_flows_free(struct uoa_flows *f)
{
	if (!f)
		return;
	if (f->at)
		munmap(f->at, ((size_t)f->max + 1) * sizeof(*f->at));
	if (f->buckets)
		munmap(f->buckets,
		       ((size_t)f->bucket_mask + 1) * sizeof(*f->buckets));
	free(f);
}

uint32_t uoa_flows_count(const struct uoa_flows *f)
{
	return f->count;
}

/* ---- Hashing --------------------------------------------------------------- */

#define ROTATE(x, n) ((x) << (n) | (x) >> (64 - (n)))

static void sip_round(uint64_t v[4])
{
	v[0] += v[1];
	v[2] += v[3];
	v[1] = ROTATE(v[1], 13) ^ v[0];
	v[3] = ROTATE(v[3], 16) ^ v[2];
	v[0] = ROTATE(v[0], 32);
	v[2] += v[1];
	v[0] += v[3];
	v[1] = ROTATE(v[1], 17) ^ v[2];
	v[3] = ROTATE(v[3], 21) ^ v[0];
	v[2] = ROTATE(v[2], 32);
}

/*
 * SipHash-1-3 of the peer: behind a balancer one peer address and port is one
 * flow, so a chain also holds all that a search without a local address needs.
 * Keyed, because clients choose what a balancer's ports are used for.
 */
static uint32_t *bucket_of(const struct uoa_flows *f, const struct uoa_flow_key *key)
{
	uint64_t words[3], v[4] = {
		f->hash_key[0] ^ 0x736f6d6570736575,
		f->hash_key[1] ^ 0x646f72616e646f6d,
		f->hash_key[0] ^ 0x6c7967656e657261,
		f->hash_key[1] ^ 0x7465646279746573,
	};

	memcpy(words, key->peer, sizeof(key->peer));
	words[2] = (uint64_t)18 << 56 | key->peer_port;
	for (int i = 0; i < 3; i++) {
		v[3] ^= words[i];
		sip_round(v);
		v[0] ^= words[i];
	}
	v[2] ^= 0xff;
	for (int i = 0; i < 3; i++)
		sip_round(v);
	return &f->buckets[(v[0] ^ v[1] ^ v[2] ^ v[3]) & f->bucket_mask];
}

/* ---- The list in order of use ---------------------------------------------- */

static void list_remove(struct uoa_flows *f, struct uoa_flow *flow)
{
	f->at[flow->older].newer = flow->newer;
	f->at[flow->newer].older = flow->older;
}

static void list_append(struct uoa_flows *f, struct uoa_flow *flow)
{
	uint32_t number = (uint32_t)(flow - f->at);
	struct uoa_flow *anchor = &f->at[ANCHOR];

	flow->older = anchor->older;
	flow->newer = ANCHOR;
	f->at[anchor->older].newer = number;
	anchor->older = number;
}

static void use(struct uoa_flows *f, struct uoa_flow *flow, uint64_t now)
{
	flow->used = now;
	list_remove(f, flow);
	list_append(f, flow);
}

/* ---- Coming and going ------------------------------------------------------ */

/* Threads read the clock before they take the lock, so that one may come with
 * an earlier time than the one before it. */
static uint64_t elapsed(uint64_t since, uint64_t now)
{
	return now > since ? now - since : 0;
}

static int is_expired(const struct uoa_flows *f, const struct uoa_flow *flow,
		      uint64_t now)
{
	return elapsed(flow->used, now) > f->ttl ||
	       (f->max_age && elapsed(flow->learned, now) > f->max_age);
}

static void drop(struct uoa_flows *f, struct uoa_flow *flow, uint32_t counter)
{
	uint32_t number = (uint32_t)(flow - f->at);
	uint32_t *link = bucket_of(f, &flow->key);

	while (*link != number)
		link = &f->at[*link].chain;
	*link = flow->chain;
	list_remove(f, flow);
	flow->chain = f->vacant;
	f->vacant = number;
	f->count--;
	f->counters[counter]++;
}

static struct uoa_flow *take_vacant(struct uoa_flows *f, uint64_t now)
{
	struct uoa_flow *oldest = &f->at[f->at[ANCHOR].newer];

	/* An entry that comes in may take an expired one out, so that a burst
	 * of flows does not hold its memory for ever. */
	if (f->count && is_expired(f, oldest, now))
		drop(f, oldest, UOA_COUNTER_EXPIRED);
	else if (f->count == f->max)
		drop(f, oldest, UOA_COUNTER_EVICTED);
	if (f->vacant) {
		struct uoa_flow *flow = &f->at[f->vacant];

		f->vacant = flow->chain;
		return flow;
	}
	return &f->at[f->fresh++];
}

static struct uoa_flow *find_exact(struct uoa_flows *f,
				   const struct uoa_flow_key *key, uint64_t now)
{
	for (uint32_t n = *bucket_of(f, key); n; n = f->at[n].chain) {
		struct uoa_flow *flow = &f->at[n];

		if (memcmp(&flow->key, key, sizeof(*key)))
			continue;
		if (!is_expired(f, flow, now))
			return flow;
		drop(f, flow, UOA_COUNTER_EXPIRED);
		return NULL;
	}
	return NULL;
}

const struct uoa_flow *uoa_flows_peek(struct uoa_flows *f,
				      const struct uoa_flow_key *key, uint64_t now)
{
	return find_exact(f, key, now);
}

const struct uoa_flow *uoa_flows_use(struct uoa_flows *f,
				     const struct uoa_flow_key *key, uint64_t now)
{
	struct uoa_flow *flow = find_exact(f, key, now);

	if (flow)
		use(f, flow, now);
	return flow;
}

static int is_same_client(const struct uoa_claim *a, const struct uoa_claim *b)
{
	return a->client_port == b->client_port &&
	       uoa_address_equal(a->client, b->client);
}

const struct uoa_flow *uoa_flows_learn(struct uoa_flows *f,
				       const struct uoa_flow_key *key,
				       const struct uoa_claim *claim, uint64_t now)
{
	struct uoa_flow *flow = find_exact(f, key, now);

	if (flow && is_same_client(&flow->claim, claim)) {
		use(f, flow, now);
		return flow;
	}
	if (flow) {
		f->counters[UOA_COUNTER_CHANGED]++;
		/* A claim that differs does not keep the old one alive. */
		if (f->policy == UOA_POLICY_PIN)
			return flow;
		list_remove(f, flow);
	} else {
		uint32_t *bucket = bucket_of(f, key);

		flow = take_vacant(f, now);
		flow->key = *key;
		flow->chain = *bucket;
		*bucket = (uint32_t)(flow - f->at);
		f->count++;
		f->counters[UOA_COUNTER_LEARNED]++;
	}
	flow->claim = *claim;
	flow->learned = flow->used = now;
	list_append(f, flow);
	return flow;
}

const struct uoa_flow *uoa_flows_find(struct uoa_flows *f,
				      const struct uoa_flow_key *key, uint64_t now,
				      int *several)
{
	int any_local = uoa_address_is_unspecified(key->local);
	const struct uoa_flow *newest = NULL;

	*several = 0;
	for (uint32_t n = *bucket_of(f, key); n; n = f->at[n].chain) {
		const struct uoa_flow *flow = &f->at[n];

		if (memcmp(flow->key.peer, key->peer, 16) ||
		    flow->key.peer_port != key->peer_port ||
		    flow->key.peer_scope != key->peer_scope ||
		    (key->local_port && flow->key.local_port != key->local_port) ||
		    (!any_local && memcmp(flow->key.local, key->local, 16)) ||
		    is_expired(f, flow, now))
			continue;
		if (newest && !is_same_client(&newest->claim, &flow->claim))
			*several = 1;
		if (!newest || flow->learned > newest->learned)
			newest = flow;
	}
	return newest;
}
