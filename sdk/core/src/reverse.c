/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "reverse.h"
#include "table.h"

/* More balancers than this at once for one client, address and port, are not
 * told apart: a reply then takes the way of the one last heard from. */
enum { WAYS = 4 };

struct entry {
	struct uoa_entry entry;
	struct uoa_addr client;
	uint16_t local_port;
	uint16_t latest; /* the way last heard from */
	struct uoa_way ways[WAYS]; /* `heard` 0: not used */
};

struct uoa_reverse {
	struct uoa_table table;
	uint64_t ttl;
};

int uoa_reverse_new(struct uoa_reverse **reverse, const struct uoa_config *config)
{
	struct uoa_reverse *r = calloc(1, sizeof(*r));
	int error;

	if (!r)
		return -ENOMEM;
	r->ttl = config->ttl;
	error = uoa_table_init(&r->table, config->max_flows, sizeof(struct entry));
	if (error) {
		free(r);
		return error;
	}
	*reverse = r;
	return 0;
}

void uoa_reverse_free(struct uoa_reverse *r)
{
	if (!r)
		return;
	uoa_table_destroy(&r->table);
	free(r);
}

static int is_same(const struct uoa_addr *a, const struct uoa_addr *b)
{
	return a->port == b->port && a->scope == b->scope &&
	       !memcmp(a->host, b->host, sizeof(a->host));
}

static uint32_t hash_of(const struct uoa_reverse *r, const struct uoa_addr *client,
			uint16_t local_port)
{
	return uoa_table_hash(&r->table, client->host,
			      (uint32_t)client->port << 16 | local_port);
}

static struct entry *find(const struct uoa_reverse *r, uint32_t hash,
			  const struct uoa_addr *client, uint16_t local_port)
{
	struct entry *e = uoa_table_first(&r->table, hash);

	while (e && (e->local_port != local_port || !is_same(&e->client, client)))
		e = uoa_table_next(&r->table, e);
	return e;
}

static int is_expired(const struct uoa_reverse *r, uint64_t heard, uint64_t now)
{
	return !heard || uoa_elapsed(heard, now) > r->ttl;
}

static struct entry *add(struct uoa_reverse *r, uint32_t hash,
			 const struct uoa_client *client, uint64_t now)
{
	struct entry *oldest = uoa_table_oldest(&r->table);
	struct entry *e;

	if (oldest && (is_expired(r, oldest->entry.used, now) ||
		       r->table.count == r->table.max))
		uoa_table_remove(&r->table, oldest);
	e = uoa_table_add(&r->table, hash, now);
	e->client = client->client;
	e->local_port = client->local.port;
	return e;
}

/* The way through this peer; else the one that was heard from the longest ago,
 * which it replaces. */
static struct uoa_way *way_for(const struct uoa_reverse *r, struct entry *e,
			       const struct uoa_addr *peer, uint64_t now)
{
	struct uoa_way *oldest = &e->ways[0];

	for (uint32_t i = 0; i < WAYS; i++) {
		struct uoa_way *way = &e->ways[i];

		if (way->heard && is_same(&way->peer, peer) &&
		    !is_expired(r, way->heard, now))
			return way;
		if (way->heard < oldest->heard)
			oldest = way;
	}
	oldest->heard = 0;
	return oldest;
}

void uoa_reverse_learn(struct uoa_reverse *r, const struct uoa_client *client,
		       uint64_t now)
{
	uint32_t hash = hash_of(r, &client->client, client->local.port);
	struct entry *e = find(r, hash, &client->client, client->local.port);
	struct uoa_way *way;

	if (!client->peer.port)
		return; /* nothing can be sent there: no way for anybody's replies */
	if (e)
		uoa_table_use(&r->table, e, now);
	else
		e = add(r, hash, client, now);
	way = way_for(r, e, &client->peer, now);
	if (!way->heard) {
		way->peer = client->peer;
		way->first = now;
	}
	way->heard = now;
	way->local = client->local;
	way->vip = client->vip;
	way->is_spp = client->dialect == UOA_DIALECT_SPP;
	way->vni = client->vni;
	e->latest = (uint16_t)(way - e->ways);
}

void uoa_reverse_forget(struct uoa_reverse *r, const struct uoa_addr *direct,
			uint16_t local_port)
{
	struct entry *e;

	if (!r->table.count)
		return;
	e = find(r, hash_of(r, direct, local_port), direct, local_port);
	if (e)
		uoa_table_remove(&r->table, e);
}

const struct uoa_way *uoa_reverse_find(struct uoa_reverse *r,
				       const struct uoa_trust *trust,
				       const struct uoa_addr *client,
				       uint16_t local_port,
				       const struct uoa_client *own, uint64_t now)
{
	struct entry *e = find(r, hash_of(r, client, local_port), client, local_port);
	const struct uoa_way *latest = NULL, *kept = NULL;
	uint64_t newest = 0;

	for (uint32_t i = 0; e && i < WAYS; i++) {
		const struct uoa_way *way = &e->ways[i];

		if (is_expired(r, way->heard, now) ||
		    !uoa_trust_contains(trust, way->peer.host) ||
		    (own && way->vni != own->vni))
			continue;
		if (way->first > newest)
			newest = way->first;
		if (!latest || way->heard > latest->heard || i == e->latest)
			latest = way;
		if (own && is_same(&way->peer, &own->peer))
			kept = way;
	}
	/* Datagrams of one batch are of one time. Two peers that are new then are
	 * both in use; one that was known before has been moved, unless it is
	 * heard from again. */
	return kept && (kept->heard > newest || kept->first == newest) ? kept : latest;
}
