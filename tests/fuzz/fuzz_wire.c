/* SPDX-License-Identifier: MIT */
/*
 * libFuzzer target: uoa_decode(), the walk with a read that fails, and the
 * getsockopt() layouts of uapi.h, under sanitizers. Every packet and buffer is a
 * heap block of its own size. The input is three octets of settings and a packet:
 *
 *	0	dialects, the bits of enum uoa_switch
 *	1	trust: below 0xc0 everybody, else some prefixes or nobody
 *	2	which read fails, 0 for none; also the getsockopt() request
 *
 * A mutant is repaired most of the time, so that it dies in the parser and not
 * at the first length. At the end, executions per outcome go to stdout.
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <uoa/uapi.h>
#include <uoa/uoa.h>

#include "reader.h"

enum {
	SETTINGS_LEN = 3,
	/* Outcomes: the dialects found, then the reasons of finding none. */
	OUTCOMES = UOA_DIALECT_COUNT + UOA_REASON_COUNT,
	SEEDS = 64,
};

static struct outcome {
	unsigned long executions;
	size_t seed_count;
	struct {
		uint8_t *data;
		size_t size;
	} seeds[SEEDS];
} outcomes[OUTCOMES];
static int seeds_are_complete;
static struct uoa_trust *some, *nobody;

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size,
			       unsigned int seed);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);

static const char *outcome_name(uint32_t n)
{
	return n < UOA_DIALECT_COUNT ? uoa_dialect_name(n) :
				       uoa_reason_name(n - UOA_DIALECT_COUNT);
}

static void finish(void)
{
	for (uint32_t n = 0; n < OUTCOMES; n++) {
		if (n != UOA_DIALECT_NONE &&
		    n != UOA_DIALECT_COUNT + UOA_REASON_FOUND)
			printf("outcome %s %lu\n", outcome_name(n),
			       outcomes[n].executions);
		while (outcomes[n].seed_count)
			free(outcomes[n].seeds[--outcomes[n].seed_count].data);
	}
	uoa_trust_free(some);
	uoa_trust_free(nobody);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	static const char *const prefixes[] = { "10.10.0.0/16", "127.0.0.0/8",
						"2001:db8:a::/48", "::1" };

	(void)argc;
	(void)argv;
	if (uoa_trust_new(&some) || uoa_trust_new(&nobody))
		abort();
	for (size_t i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++)
		if (uoa_trust_add(some, prefixes[i]))
			abort();
	atexit(finish);
	return 0;
}

static void *copy_of(const void *bytes, size_t len)
{
	void *copy = malloc(len);

	assert(copy);
	memcpy(copy, bytes, len);
	return copy;
}

/* What must be true of every outcome, whatever the packet. */
static void check(const struct uoa_decoded *d, uint8_t switches, uint32_t len)
{
	static const uint8_t needs[] = {
		0,
#define X(id, name, enable) enable,
		UOA_DIALECTS(X)
#undef X
	};

	assert(d->stripped_len < len || (!d->stripped_len && !len));
	assert(d->strip <= d->payload_len);
	assert(d->payload_off + d->payload_len <= len);
	if (d->rule == UOA_RULE_FOUND)
		assert(d->client_port && needs[d->dialect] & switches);
	else
		assert(!d->dialect && !d->client_port);
}

/* The same packet again, by a walk one of whose reads fails. */
static void walk_again(const uint8_t *packet, uint32_t len, uint8_t switches,
		       uint8_t fail_at, const struct uoa_decoded *decoded)
{
	struct reader reader = { .packet = packet, .len = len, .fail_at = fail_at };
	uint16_t rule = reader_walk(&reader, switches);
	uint8_t reason = uoa_rule_reason(rule);

	assert(!reader.went_outside);
	if (fail_at && reader.count >= fail_at)
		assert(reason == UOA_REASON_TRUNCATED ||
		       reason == UOA_REASON_MALFORMED);
	else if (decoded)
		assert(rule == decoded->rule);
}

/* The packet as a getsockopt() buffer, the claim as what the table knows. */
static void ask(const uint8_t *bytes, uint32_t len, uint8_t selector,
		const struct uoa_decoded *d)
{
	static const uint8_t prefix[12] = { 0, 0x64, 0xff, 0x9b };
	struct uoa_answer answer = { .age_ms = len, .several = selector >> 7 };
	union uoa_sockopt_buffer copy;
	struct uoa_query query;
	uint8_t layout, *buffer;

	memcpy(answer.claim.client, d->client, 16);
	memcpy(answer.claim.vip, d->vip, 16);
	answer.claim.client_port = d->client_port;
	answer.claim.vip_port = d->vip_port;
	answer.claim.vni = d->vni;
	answer.claim.dialect = d->dialect;
	if (uoa_sockopt_layout(0, UOA_REQUEST_DPVS + (selector & 3), len, &layout))
		return;
	buffer = copy_of(bytes, len);
	memcpy(&copy, buffer, uoa_sockopt_len(layout));
	if (!uoa_sockopt_query(layout, &copy, &query) &&
	    !uoa_sockopt_reply(layout, &query, &answer,
			       selector & 4 ? prefix : NULL, &copy))
		memcpy(buffer, &copy, uoa_sockopt_len(layout));
	free(buffer);
}

static void keep_seed(struct outcome *o, const uint8_t *data, size_t size)
{
	if (seeds_are_complete || o->seed_count == SEEDS)
		return;
	o->seeds[o->seed_count].data = copy_of(data, size);
	o->seeds[o->seed_count++].size = size;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct uoa_trust *trust = NULL;
	struct uoa_decoded decoded;
	struct outcome *outcome;
	uint8_t *packet, *stripped, switches;
	uint32_t len;

	if (size < SETTINGS_LEN)
		return 0;
	len = (uint32_t)size - SETTINGS_LEN;
	packet = copy_of(data + SETTINGS_LEN, len);
	stripped = malloc(len);
	switches = data[0] & 31;
	if (data[1] >= 0xc0)
		trust = data[1] & 1 ? some : nobody;

	uoa_decode(packet, len, switches, trust, &decoded, stripped);
	outcome = &outcomes[decoded.dialect];
	if (decoded.rule != UOA_RULE_FOUND)
		outcome = &outcomes[UOA_DIALECT_COUNT +
				    uoa_rule_reason((uint16_t)decoded.rule)];
	outcome->executions++;
	keep_seed(outcome, data, size);
	check(&decoded, switches, len);
	walk_again(packet, len, switches, data[2],
		   trust || switches & (UOA_ENABLE_PPV2 | UOA_ENABLE_SPP) ?
			   NULL :
			   &decoded);
	ask(packet, len, data[2], &decoded);
	free(packet);
	free(stripped);
	return 0;
}

static void put16(uint8_t *p, size_t value)
{
	p[0] = (uint8_t)(value >> 8);
	p[1] = (uint8_t)value;
}

/* Make UDP or opp out of what is at `p`, in front of `left` bytes. */
static void repair_transport(uint8_t *p, size_t left, uint8_t *protocol)
{
	if (*protocol == UOA_PROTO_OPP && left >= 4) {
		size_t opp_len = p[3] & ~3u;

		if (opp_len < 4 || opp_len > 44 || opp_len > left)
			opp_len = 4;
		p[0] = p[0] & 0x20 ? 0x20 : 0x10;
		p[1] = UOA_PROTO_UDP;
		put16(p + 2, opp_len);
		p += opp_len;
		left -= opp_len;
	} else {
		*protocol = UOA_PROTO_UDP;
	}
	if (left >= 8)
		put16(p + 4, left);
}

static void repair4(uint8_t *p, size_t len)
{
	size_t header_len = (p[0] & 15) * 4u;

	if (header_len < 20 || header_len > len)
		header_len = 20;
	p[0] = (uint8_t)(0x40 | header_len / 4);
	put16(p + 2, len);
	put16(p + 6, 0);
	repair_transport(p + header_len, len - header_len, p + 9);
}

static void repair6(uint8_t *p, size_t len)
{
	uint8_t *protocol = p + 6;
	size_t at = 40, next;

	put16(p + 4, len - at);
	for (int i = 0; i < UOA_EXT_MAX && len - at >= 8; i++) {
		if (!uoa_ext_is_header(*protocol) ||
		    uoa_ext_judge(*protocol, p + at, (uoa_u32)(len - at), i == 0))
			break;
		next = at + uoa_ext_len(*protocol, p + at);
		protocol = p + at;
		at = next;
	}
	repair_transport(p + at, len - at, protocol);
}

/* One of the inputs that the run began with, each outcome as often as any other:
 * what libFuzzer keeps, by coverage, drifts away from the rarer ones. */
static size_t put_seed(uint8_t *data, size_t size, size_t max_size, unsigned int seed)
{
	const struct outcome *o = &outcomes[seed % OUTCOMES];
	size_t at;

	if (!o->seed_count)
		return size;
	at = seed / OUTCOMES % o->seed_count;
	size = o->seeds[at].size < max_size ? o->seeds[at].size : max_size;
	memcpy(data, o->seeds[at].data, size);
	return size;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size,
			       unsigned int seed)
{
	uint8_t *packet = data + SETTINGS_LEN;
	size_t len;

	seeds_are_complete = 1;
	if (seed % 4 == 1)
		size = put_seed(data, size, max_size, seed / 4);
	if (size < SETTINGS_LEN || seed % 16 == 0)
		return LLVMFuzzerMutate(data, size, max_size);
	len = LLVMFuzzerMutate(packet, size - SETTINGS_LEN,
			       max_size - SETTINGS_LEN);
	if (seed % 4 != 2 && len >= UOA_IPV6_HEADER_LEN) {
		if (packet[0] >> 4 == 4)
			repair4(packet, len);
		if (packet[0] >> 4 == 6)
			repair6(packet, len);
	}
	return SETTINGS_LEN + len;
}
