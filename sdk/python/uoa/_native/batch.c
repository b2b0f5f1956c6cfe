/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "batch.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

struct name {
	struct uoa_client client;
	uint64_t seen_in; /* batch */
};

struct uoa_names {
	uint64_t batch;
	struct name all[UOA_BATCH_ALL_NAMES];
};

struct uoa_batch {
	struct uoa_receiver *receiver;
	uint8_t *data;
	uint32_t slot_count;
	struct uoa_slot slots[UOA_BATCH];
	int32_t results[UOA_BATCH_RESULTS];
	struct uoa_names names;
};

/* Pages of the slots that no datagram is long enough to reach are never
 * touched, so that the room costs address space only. */
static uint8_t *map_slots(uint32_t slots)
{
	void *p = mmap(NULL, (size_t)slots * UOA_BATCH_ROOM,
		       PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

int uoa_batch_new(struct uoa_batch **batch, int fd, struct uoa_resolver *resolver,
		  uint32_t backend, uint32_t slots)
{
	struct uoa_batch *b = calloc(1, sizeof(*b));
	int error;

	if (!b)
		return -ENOMEM;
	b->slot_count = slots;
	b->data = map_slots(slots);
	error = b->data ? uoa_receiver_new(&b->receiver, fd, resolver, backend) :
			  -ENOMEM;
	if (error) {
		uoa_batch_free(b);
		return error;
	}
	for (uint32_t i = 0; i < slots; i++) {
		b->slots[i].data = b->data + (size_t)i * UOA_BATCH_ROOM;
		b->slots[i].room = UOA_BATCH_ROOM;
	}
	*batch = b;
	return 0;
}

void uoa_batch_free(struct uoa_batch *b)
{
	if (!b)
		return;
	uoa_receiver_free(b->receiver);
	if (b->data)
		munmap(b->data, (size_t)b->slot_count * UOA_BATCH_ROOM);
	free(b);
}

uint8_t *uoa_batch_data(struct uoa_batch *b)
{
	return b->data;
}

int32_t *uoa_batch_results(struct uoa_batch *b)
{
	return b->results;
}

struct uoa_names *uoa_batch_names(struct uoa_batch *b)
{
	return &b->names;
}

/* ---- Names ----------------------------------------------------------------- */

struct uoa_names *uoa_names_new(void)
{
	return calloc(1, sizeof(struct uoa_names));
}

void uoa_names_free(struct uoa_names *names)
{
	free(names);
}

const struct uoa_client *uoa_names_client(const struct uoa_names *names,
					  int32_t number)
{
	return &names->all[number].client;
}

/* Any spread will do: a collision costs a new object, nothing else. */
static uint32_t name_of(const struct uoa_client *client)
{
	uint64_t words[2], mixed;

	memcpy(words, client->peer.host, sizeof(words));
	mixed = (words[0] ^ words[1] ^ client->peer.port) * 0x9e3779b97f4a7c15;
	return (uint32_t)(mixed >> 32) % UOA_BATCH_NAMES;
}

/* The number of a client; `is_fresh` tells whether it is new. A number that this
 * batch has given to another client already stays with it; then the spare one of
 * slot `i` is used. */
static int32_t number_client(struct uoa_names *names,
			     const struct uoa_client *client, int i, int *is_fresh)
{
	int32_t number = (int32_t)name_of(client);
	struct name *name = &names->all[number];

	*is_fresh = 0;
	if (name->seen_in && !memcmp(&name->client, client, sizeof(*client))) {
		name->seen_in = names->batch;
		return number;
	}
	if (name->seen_in == names->batch) {
		number = UOA_BATCH_NAMES + i;
		name = &names->all[number];
	}
	name->client = *client;
	name->seen_in = names->batch;
	*is_fresh = 1;
	return number;
}

int64_t uoa_names_resolve(struct uoa_names *names, struct uoa_resolver *resolver,
			  const struct uoa_addr *peer, const struct uoa_addr *local,
			  const struct uoa_asker *asker, const uint8_t *payload,
			  uint32_t len, uint64_t now)
{
	struct uoa_evidence evidence = { .peer = *peer,
					 .local = *local,
					 .asker = asker,
					 .payload = payload,
					 .payload_len = len };
	struct uoa_client client;
	int64_t strip, number;
	int is_fresh;

	strip = uoa_resolve(resolver, &evidence, now, &client);
	names->batch++;
	number = number_client(names, &client, 0, &is_fresh);
	return strip << 32 | (int64_t)is_fresh << 31 | number;
}

int uoa_way_is_own(struct uoa_resolver *resolver, const struct uoa_client *client,
		   uint64_t now)
{
	struct uoa_route route;

	uoa_route(resolver, client, now, &route);
	return !route.header_len &&
	       !memcmp(&route.to, &client->peer, sizeof(route.to)) &&
	       !memcmp(&route.from, &client->local, sizeof(route.from));
}

/* ---- Receiving ------------------------------------------------------------- */

int uoa_batch_receive(struct uoa_batch *b, int flags)
{
	int got = uoa_recvmmsg(b->receiver, b->slots, b->slot_count, flags);

	b->names.batch++;
	b->results[UOA_BATCH_FRESH_COUNT] = 0;
	for (int i = 0; i < got; i++) {
		int32_t start = i * UOA_BATCH_ROOM + (int32_t)b->slots[i].offset;
		int is_fresh;
		int32_t number = number_client(&b->names, &b->slots[i].client, i,
					       &is_fresh);

		b->results[UOA_BATCH_START + i] = start;
		b->results[UOA_BATCH_END + i] = start + (int32_t)b->slots[i].len;
		b->results[UOA_BATCH_NAME + i] = number;
		b->results[UOA_BATCH_FRESH + b->results[UOA_BATCH_FRESH_COUNT]] = number;
		b->results[UOA_BATCH_FRESH_COUNT] += is_fresh;
	}
	return got;
}
