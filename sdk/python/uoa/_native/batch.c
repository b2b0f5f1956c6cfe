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

struct uoa_batch {
	struct uoa_receiver *receiver;
	uint8_t *data;
	uint64_t number;
	uint32_t slot_count;
	struct uoa_slot slots[UOA_BATCH];
	int32_t results[UOA_BATCH_RESULTS];
	struct name names[UOA_BATCH_ALL_NAMES];
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

const struct uoa_client *uoa_batch_client(const struct uoa_batch *b, int32_t number)
{
	return &b->names[number].client;
}

/* Any spread will do: a collision costs a new object, nothing else. */
static uint32_t name_of(const struct uoa_client *client)
{
	uint64_t words[2], mixed;

	memcpy(words, client->peer.host, sizeof(words));
	mixed = (words[0] ^ words[1] ^ client->peer.port) * 0x9e3779b97f4a7c15;
	return (uint32_t)(mixed >> 32) % UOA_BATCH_NAMES;
}

/* The number of slot `i`'s client. A number that this batch has given to another
 * client already stays with it; then slot `i` uses a spare one. */
static int32_t number_client(struct uoa_batch *b, int i)
{
	const struct uoa_client *client = &b->slots[i].client;
	int32_t number = (int32_t)name_of(client);
	struct name *name = &b->names[number];

	if (name->seen_in && !memcmp(&name->client, client, sizeof(*client))) {
		name->seen_in = b->number;
		return number;
	}
	if (name->seen_in == b->number) {
		number = UOA_BATCH_NAMES + i;
		name = &b->names[number];
	}
	name->client = *client;
	name->seen_in = b->number;
	b->results[UOA_BATCH_FRESH + b->results[UOA_BATCH_FRESH_COUNT]++] = number;
	return number;
}

int uoa_batch_receive(struct uoa_batch *b, int flags)
{
	int got = uoa_recvmmsg(b->receiver, b->slots, b->slot_count, flags);

	b->number++;
	b->results[UOA_BATCH_FRESH_COUNT] = 0;
	for (int i = 0; i < got; i++) {
		int32_t start = i * UOA_BATCH_ROOM + (int32_t)b->slots[i].offset;

		b->results[UOA_BATCH_START + i] = start;
		b->results[UOA_BATCH_END + i] = start + (int32_t)b->slots[i].len;
		b->results[UOA_BATCH_NAME + i] = number_client(b, i);
	}
	return got;
}
