/* SPDX-License-Identifier: MIT */
/* Who sent a datagram: trust, then the parser or the kernel, then the flow table;
 * and where a reply to it goes. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "ask.h"
#include "evidence.h"
#include "flows.h"
#include "resolver.h"
#include "reverse.h"
#include "walk.h"
#include <uoa/wire_build.h>
#include <uoa/wire_payload.h>

enum {
	COUNTER_FOUND_DIALECT = UOA_COUNTER_REASONS + UOA_REASON_COUNT - 1,
	COUNTER_COUNT = COUNTER_FOUND_DIALECT + UOA_DIALECT_COUNT,
	SWITCHES_OPTIONS = UOA_ENABLE_IPO | UOA_ENABLE_BD,
	SWITCHES_ALL = SWITCHES_OPTIONS | UOA_ENABLE_OPP | UOA_SWITCHES_PAYLOAD,
	FLOWS_MAX = 1 << 28,
	METERS = 64,
};

/* How long an answer of the kernel is good, in nanoseconds: a client's, and that
 * there is none, which may only be a datagram that overtook its claim. */
static const uint64_t ask_again_known = 1000000000;
static const uint64_t ask_again_miss = 50000000;

/* What has been counted of a socket's drops, which several receivers may read. */
struct meter {
	uint64_t socket;
	uint32_t drops;
};

struct uoa_resolver {
	pthread_mutex_t lock; /* protects all below */
	struct uoa_trust *trust;
	struct uoa_flows *flows;
	struct uoa_reverse *reverse;
	uint8_t switches;
	uint8_t once;
	struct meter meters[METERS]; /* by socket; a newer one takes the place */
	uint64_t told; /* counters that were not 0 when news were last asked for */
	uint64_t counters[COUNTER_COUNT];
};

_Static_assert(COUNTER_COUNT <= 64, "news have a bit for each counter");

int uoa_resolver_new(struct uoa_resolver **resolver,
		     const struct uoa_config *config)
{
	struct uoa_resolver *r;
	int error;

	if (config->switches & ~(uint32_t)SWITCHES_ALL ||
	    config->policy > UOA_POLICY_PIN || config->once > 1 ||
	    config->max_flows < 1 || config->max_flows > FLOWS_MAX)
		return -EINVAL;
	r = calloc(1, sizeof(*r));
	if (!r)
		return -ENOMEM;
	r->switches = (uint8_t)config->switches;
	r->once = (uint8_t)config->once;
	pthread_mutex_init(&r->lock, NULL);
	error = uoa_trust_new(&r->trust);
	if (!error)
		error = uoa_flows_new(&r->flows, config, r->counters);
	if (!error)
		error = uoa_reverse_new(&r->reverse, config);
	if (error) {
		uoa_resolver_free(r);
		return error;
	}
	*resolver = r;
	return 0;
}

void uoa_resolver_free(struct uoa_resolver *r)
{
	if (!r)
		return;
	pthread_mutex_destroy(&r->lock);
	uoa_trust_free(r->trust);
	uoa_flows_free(r->flows);
	uoa_reverse_free(r->reverse);
	free(r);
}

void uoa_resolver_hold(struct uoa_resolver *r)
{
	pthread_mutex_lock(&r->lock);
}

void uoa_resolver_release(struct uoa_resolver *r)
{
	pthread_mutex_unlock(&r->lock);
}

void uoa_resolver_count(struct uoa_resolver *r, uint32_t counter, uint64_t count)
{
	r->counters[counter] += count;
}

void uoa_resolver_count_drops(struct uoa_resolver *r, uint64_t socket,
			      uint32_t before, uint32_t drops)
{
	struct meter *meter = &r->meters[socket % METERS];

	/* Both run on modulo 2^32. */
	if (socket && meter->socket == socket &&
	    (int32_t)(meter->drops - before) > 0)
		before = meter->drops;
	if ((int32_t)(drops - before) <= 0)
		return;
	r->counters[UOA_COUNTER_RECEIVE_DROPS] += drops - before;
	meter->socket = socket;
	meter->drops = drops;
}

static void count(struct uoa_resolver *r, uint32_t counter)
{
	r->counters[counter]++;
}

uint32_t uoa_resolver_backend(const struct uoa_resolver *r)
{
	if (r->switches & UOA_SWITCHES_PAYLOAD)
		return UOA_BACKEND_PROXY;
	return r->switches & ~SWITCHES_OPTIONS ? UOA_BACKEND_SOCKOPT :
						 UOA_BACKEND_CMSG;
}

void uoa_resolver_set_trust(struct uoa_resolver *r, struct uoa_trust *trust)
{
	struct uoa_trust *old;

	uoa_resolver_hold(r);
	old = r->trust;
	r->trust = trust;
	uoa_resolver_release(r);
	uoa_trust_free(old);
}

int uoa_resolver_trusts(struct uoa_resolver *r, const uint8_t address[16])
{
	int is_trusted;

	uoa_resolver_hold(r);
	is_trusted = uoa_trust_contains(r->trust, address);
	uoa_resolver_release(r);
	return is_trusted;
}

uint32_t uoa_resolver_counters(struct uoa_resolver *r, uint64_t *counters)
{
	uint32_t flows;

	uoa_resolver_hold(r);
	memcpy(counters, r->counters, sizeof(r->counters));
	flows = uoa_flows_count(r->flows);
	uoa_resolver_release(r);
	return flows;
}

uint64_t uoa_resolver_news(struct uoa_resolver *r)
{
	uint64_t counted = 0, news;

	uoa_resolver_hold(r);
	for (uint32_t i = 0; i < COUNTER_COUNT; i++)
		counted |= (uint64_t)(r->counters[i] != 0) << i;
	news = counted & ~r->told;
	r->told = counted;
	uoa_resolver_release(r);
	return news;
}

/* ---- Outcomes -------------------------------------------------------------- */

static void set_client(struct uoa_client *client, const struct uoa_claim *claim,
		       uint64_t learned, uint8_t source)
{
	memcpy(client->client.host, claim->client, 16);
	client->client.port = claim->client_port;
	client->client.scope = 0;
	memcpy(client->vip.host, claim->vip, 16);
	client->vip.port = claim->vip_port;
	client->vni = claim->vni;
	client->dialect = claim->dialect;
	client->learned = learned;
	client->source = source;
}

static void set_unclaimed(struct uoa_client *client, const struct uoa_addr *peer,
			  const struct uoa_addr *local, uint8_t source)
{
	memset(client, 0, sizeof(*client));
	client->peer = client->client = *peer;
	client->local = *local;
	client->source = source;
}

static void set_key(struct uoa_flow_key *key, const struct uoa_addr *peer,
		    const struct uoa_addr *local)
{
	memset(key, 0, sizeof(*key));
	memcpy(key->peer, peer->host, 16);
	memcpy(key->local, local->host, 16);
	key->peer_scope = peer->scope;
	key->peer_port = peer->port;
	key->local_port = local->port;
}

static void count_claim(struct uoa_resolver *r, const struct uoa_claim *claim)
{
	if (uoa_trust_contains(r->trust, claim->client))
		count(r, UOA_COUNTER_CLAIMS_TRUSTED);
}

/* A good claim: into the table, unless every datagram speaks for itself. SPP is
 * on every datagram by definition. */
static void take_claim(struct uoa_resolver *r, const struct uoa_claim *claim,
		       const struct uoa_flow_key *key, uint64_t now,
		       struct uoa_client *client)
{
	int is_payload = (r->switches & UOA_SWITCHES_PAYLOAD) != 0;
	uint8_t source = is_payload ? UOA_SOURCE_PROXY : UOA_SOURCE_CMSG;
	const struct uoa_flow *flow;

	count(r, (uint32_t)COUNTER_FOUND_DIALECT + claim->dialect);
	count_claim(r, claim);
	if (is_payload && !(r->once && claim->dialect == UOA_DIALECT_PPV2)) {
		set_client(client, claim, 0, source);
		return;
	}
	flow = uoa_flows_learn(r->flows, key, claim, now);
	set_client(client, &flow->claim, flow->learned, source);
}

/* A datagram of a trusted peer: its own claim, or what is known of its flow. */
static uint32_t resolve_claim(struct uoa_resolver *r, const struct uoa_evidence *e,
			      const struct uoa_flow_key *key, uint64_t now,
			      struct uoa_client *client)
{
	int is_payload = (r->switches & UOA_SWITCHES_PAYLOAD) != 0;
	uint16_t rule = UOA_RULE_NO_CLAIM;
	const struct uoa_flow *flow;
	struct uoa_claims claims;
	uint32_t strip = 0;

	if (e->options_len || e->dst_opts_len || is_payload) {
		rule = uoa_evidence_judge(e, r->switches, &claims, &strip);
		count(r, UOA_COUNTER_REASONS + uoa_rule_reason(rule));
	}
	if (rule == UOA_RULE_FOUND) {
		take_claim(r, &claims.first, key, now, client);
		return strip;
	}
	if (rule == UOA_RULE_PPV2_LOCAL) {
		client->source = UOA_SOURCE_DIRECT;
		return strip;
	}
	/* A claim that cannot be used touches nothing in the table: it neither
	 * changes the flow's client nor keeps it alive. */
	flow = rule == UOA_RULE_NO_CLAIM ? uoa_flows_use(r->flows, key, now) :
					   uoa_flows_peek(r->flows, key, now);
	if (flow)
		set_client(client, &flow->claim, flow->learned,
			   is_payload ? UOA_SOURCE_PROXY : UOA_SOURCE_CMSG);
	return strip;
}

/* Ask the kernel for a flow, and enter its answer. */
static struct uoa_flow *ask(struct uoa_resolver *r, const struct uoa_asker *asker,
			    const struct uoa_addr *peer, const struct uoa_addr *local,
			    const struct uoa_flow_key *key, uint64_t now)
{
	struct uoa_claim claim;
	struct uoa_flow *flow;
	uint64_t age, learned = 0;
	int error = uoa_ask(asker, peer, local, &claim, &age);
	uint32_t several = error == -ENOTUNIQ;

	count(r, UOA_COUNTER_ASKED);
	if (several) {
		/* Whose datagrams these are is not to be told any more. */
		count(r, UOA_COUNTER_AMBIGUOUS);
		uoa_flows_forget(r->flows, key);
	} else if (!error && !uoa_client_is_valid(claim.client, claim.client_port,
						  peer->host)) {
		count(r, UOA_COUNTER_REASONS + UOA_REASON_INVALID_ADDR);
		error = -ENOENT;
	} else if (!error) {
		count_claim(r, &claim);
	}
	if (!error && age != UOA_AGE_UNKNOWN)
		learned = now > age ? now - age : 1;
	flow = uoa_flows_answer(r->flows, key, error ? NULL : &claim, learned, now);
	flow->is_several = several;
	return flow;
}

/* The flow of a trusted peer as the kernel's table has it, asked if it is due;
 * never NULL, but perhaps not known. */
static const struct uoa_flow *flow_of_kernel(struct uoa_resolver *r,
					     const struct uoa_asker *asker,
					     const struct uoa_addr *peer,
					     const struct uoa_addr *local,
					     const struct uoa_flow_key *key,
					     int is_due, uint64_t now)
{
	struct uoa_flow *flow = uoa_flows_use(r->flows, key, now);

	if (!flow || is_due ||
	    uoa_elapsed(flow->asked, now) >=
		    (flow->is_known ? ask_again_known : ask_again_miss))
		flow = ask(r, asker, peer, local, key, now);
	return flow;
}

static uint32_t resolve_trusted(struct uoa_resolver *r,
				const struct uoa_evidence *e, uint64_t now,
				struct uoa_client *client)
{
	const struct uoa_flow *flow;
	struct uoa_flow_key key;
	uint32_t strip = 0;

	set_key(&key, &e->peer, &e->local);
	if (e->asker) {
		/* An option may be news, which the kernel has read already. */
		flow = flow_of_kernel(r, e->asker, &e->peer, &e->local, &key,
				      e->options_len || e->dst_opts_len, now);
		if (flow->is_known)
			set_client(client, &flow->claim, flow->learned,
				   UOA_SOURCE_SOCKOPT);
	} else {
		strip = resolve_claim(r, e, &key, now, client);
	}
	return strip;
}

uint32_t uoa_resolve_locked(struct uoa_resolver *r, const struct uoa_evidence *e,
			    uint64_t now, struct uoa_client *client)
{
	uint32_t strip = 0;

	count(r, UOA_COUNTER_DATAGRAMS);
	set_unclaimed(client, &e->peer, &e->local, UOA_SOURCE_NONE);
	if (!uoa_trust_contains(r->trust, e->peer.host)) {
		client->source = UOA_SOURCE_DIRECT;
		if (uoa_evidence_claims(e, r->switches))
			count(r, UOA_COUNTER_REASONS + UOA_REASON_UNTRUSTED);
	} else {
		if (e->control_truncated)
			count(r, UOA_COUNTER_CONTROL_TRUNCATED);
		/* Part of what the balancer said is lost: it may have been
		 * another client, so the flow's own is no answer either. What
		 * stands in the payload is all there. */
		if (!e->control_truncated || r->switches & UOA_SWITCHES_PAYLOAD)
			strip = resolve_trusted(r, e, now, client);
	}
	if (e->payload && e->payload_len == strip)
		count(r, UOA_COUNTER_EMPTY);
	switch (client->source) {
	case UOA_SOURCE_DIRECT:
		count(r, UOA_COUNTER_DIRECT);
		uoa_reverse_forget(r->reverse, &client->peer, client->local.port);
		break;
	case UOA_SOURCE_NONE:
		count(r, UOA_COUNTER_UNKNOWN);
		break;
	default:
		count(r, UOA_COUNTER_RESOLVED);
		uoa_reverse_learn(r->reverse, client, now);
		break;
	}
	return strip;
}

uint32_t uoa_resolve(struct uoa_resolver *r, const struct uoa_evidence *e,
		     uint64_t now, struct uoa_client *client)
{
	uint32_t strip;

	uoa_resolver_hold(r);
	strip = uoa_resolve_locked(r, e, now, client);
	uoa_resolver_release(r);
	return strip;
}

int uoa_resolve_stream(struct uoa_resolver *r, const struct uoa_addr *peer,
		       const struct uoa_addr *local, const uint8_t *data, uint32_t n,
		       struct uoa_client *client)
{
	uint32_t wanted, strip = 0;
	uint8_t reason = UOA_REASON_FOUND;
	struct uoa_claim claim;
	uint16_t rule;

	set_unclaimed(client, peer, local, UOA_SOURCE_DIRECT);
	if (!(r->switches & UOA_ENABLE_PPV2))
		return -EOPNOTSUPP;
	uoa_resolver_hold(r);
	if (uoa_trust_contains(r->trust, peer->host)) {
		wanted = uoa_ppv2_wanted(data, n);
		if (wanted > n) {
			uoa_resolver_release(r);
			return (int)wanted;
		}
		rule = uoa_wire_stream(data, n, peer->host, &claim, &strip);
		reason = (uint8_t)uoa_rule_reason(rule);
		count(r, UOA_COUNTER_REASONS + reason);
		if (rule == UOA_RULE_FOUND) {
			count(r, (uint32_t)COUNTER_FOUND_DIALECT + claim.dialect);
			count_claim(r, &claim);
			set_client(client, &claim, 0, UOA_SOURCE_PROXY);
		} else if (rule != UOA_RULE_PPV2_LOCAL) {
			client->source = UOA_SOURCE_NONE;
		}
	}
	count(r, UOA_COUNTER_CONNECTIONS);
	count(r, client->source == UOA_SOURCE_DIRECT ? UOA_COUNTER_DIRECT :
		 client->source == UOA_SOURCE_NONE   ? UOA_COUNTER_UNKNOWN :
						       UOA_COUNTER_RESOLVED);
	uoa_resolver_release(r);
	return reason == UOA_REASON_MALFORMED || reason == UOA_REASON_CHECKSUM ?
		       -EBADMSG :
		       (int)strip;
}

int uoa_lookup(struct uoa_resolver *r, const struct uoa_asker *asker,
	       const struct uoa_addr *peer, const struct uoa_addr *local,
	       uint64_t now, struct uoa_client *client)
{
	uint8_t source = asker			       ? UOA_SOURCE_SOCKOPT :
			 r->switches & UOA_SWITCHES_PAYLOAD ? UOA_SOURCE_PROXY :
							  UOA_SOURCE_CMSG;
	const struct uoa_flow *flow = NULL;
	struct uoa_flow_key key;
	int several = 0, error = -ENOENT;
	uint32_t told = 0;

	set_unclaimed(client, peer, local, UOA_SOURCE_NONE);
	set_key(&key, peer, local);
	uoa_resolver_hold(r);
	/* Flows of peers that have left `trust` are not used. */
	if (uoa_trust_contains(r->trust, peer->host)) {
		/* The kernel may know of clients that have not been heard here. */
		if (asker)
			told = flow_of_kernel(r, asker, peer, local, &key, 0,
					      now)->is_several;
		flow = uoa_flows_find(r->flows, &key, now, &several);
	}
	if (several || told) {
		if (!told)
			count(r, UOA_COUNTER_AMBIGUOUS);
		error = -ENOTUNIQ;
	} else if (flow) {
		set_client(client, &flow->claim, flow->learned, source);
		error = 0;
	}
	uoa_resolver_release(r);
	return error;
}

/* ---- Replies --------------------------------------------------------------- */

static void set_header(struct uoa_route *route, const struct uoa_addr *client,
		       const struct uoa_addr *vip)
{
	struct uoa_claim claim = { .client_port = client->port,
				   .vip_port = vip->port };

	memcpy(claim.client, client->host, sizeof(claim.client));
	memcpy(claim.vip, vip->host, sizeof(claim.vip));
	route->header_len = uoa_build_spp(route->header, &claim);
}

static void take_way(struct uoa_route *route, const struct uoa_addr *client,
		     const struct uoa_way *way)
{
	route->to = way->peer;
	route->from = way->local;
	if (way->is_spp)
		set_header(route, client, &way->vip);
}

static void route_own(const struct uoa_client *client, struct uoa_route *route)
{
	route->to = client->peer;
	route->from = client->local;
	route->header_len = 0;
	if (client->dialect == UOA_DIALECT_SPP)
		set_header(route, &client->client, &client->vip);
}

/* The own peer of a direct or unknown client is all there is: a claim that names
 * its address must not steer its replies. */
static const struct uoa_way *way_to(struct uoa_resolver *r,
				    const struct uoa_client *client, uint64_t now)
{
	if (client->source == UOA_SOURCE_DIRECT || client->source == UOA_SOURCE_NONE)
		return NULL;
	return uoa_reverse_find(r->reverse, r->trust, &client->client,
				client->local.port, client, now);
}

void uoa_route(struct uoa_resolver *r, const struct uoa_client *client, uint64_t now,
	       struct uoa_route *route)
{
	const struct uoa_way *way;

	route_own(client, route);
	if (!r)
		return;
	uoa_resolver_hold(r);
	way = way_to(r, client, now);
	if (way)
		take_way(route, &client->client, way);
	uoa_resolver_release(r);
}

void uoa_route_plain(struct uoa_resolver *r, const struct uoa_addr *address,
		     uint16_t local_port, uint64_t now, struct uoa_route *route)
{
	const struct uoa_way *way;

	memset(route, 0, offsetof(struct uoa_route, header));
	route->to = *address;
	uoa_resolver_hold(r);
	way = uoa_reverse_find(r->reverse, r->trust, address, local_port, NULL, now);
	if (way)
		take_way(route, address, way);
	uoa_resolver_release(r);
}
