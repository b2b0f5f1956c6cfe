/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>

#include "table.h"

/* Entry 0 anchors the list: its `newer` is the oldest entry, its `older` the
 * newest. Entry numbers are 32 bits; 0 also ends a chain. */
enum { ANCHOR = 0 };

/* Both arrays are mapped at their full size: the kernel supplies pages as they
 * are first touched, so the table grows without ever moving an entry. */
static void *map_array(size_t count, size_t size)
{
	void *p = mmap(NULL, count * size, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

int uoa_table_init(struct uoa_table *t, uint32_t max, size_t entry_size)
{
	uint32_t buckets = 64;

	memset(t, 0, sizeof(*t));
	while (buckets < max)
		buckets *= 2;
	t->bucket_mask = buckets - 1;
	t->max = max;
	t->entry_size = entry_size;
	t->fresh = 1;
	t->entries = map_array((size_t)max + 1, entry_size);
	t->buckets = map_array(buckets, sizeof(*t->buckets));
	if (!t->entries || !t->buckets ||
	    getrandom(t->hash_key, sizeof(t->hash_key), 0) != sizeof(t->hash_key)) {
		uoa_table_destroy(t);
		return -ENOMEM;
	}
	return 0;
}

void uoa_table_destroy(struct uoa_table *t)
{
	if (t->entries)
		munmap(t->entries, ((size_t)t->max + 1) * t->entry_size);
	if (t->buckets)
		munmap(t->buckets,
		       ((size_t)t->bucket_mask + 1) * sizeof(*t->buckets));
	memset(t, 0, sizeof(*t));
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

/* SipHash-1-3. */
uint32_t uoa_table_hash(const struct uoa_table *t, const uint8_t address[16],
			uint32_t ports)
{
	uint64_t words[3], v[4] = {
		t->hash_key[0] ^ 0x736f6d6570736575,
		t->hash_key[1] ^ 0x646f72616e646f6d,
		t->hash_key[0] ^ 0x6c7967656e657261,
		t->hash_key[1] ^ 0x7465646279746573,
	};

	memcpy(words, address, 16);
	words[2] = (uint64_t)20 << 56 | ports;
	for (int i = 0; i < 3; i++) {
		v[3] ^= words[i];
		sip_round(v);
		v[0] ^= words[i];
	}
	v[2] ^= 0xff;
	for (int i = 0; i < 3; i++)
		sip_round(v);
	return (uint32_t)(v[0] ^ v[1] ^ v[2] ^ v[3]);
}

/* ---- Entries --------------------------------------------------------------- */

static struct uoa_entry *at(const struct uoa_table *t, uint32_t number)
{
	return (struct uoa_entry *)(void *)(t->entries + number * t->entry_size);
}

static uint32_t number_of(const struct uoa_table *t, const struct uoa_entry *entry)
{
	return (uint32_t)((size_t)((const uint8_t *)entry - t->entries) /
			  t->entry_size);
}

/* The entry of this hash from `number` on. */
static void *of_hash(const struct uoa_table *t, uint32_t number, uint32_t hash)
{
	while (number && at(t, number)->hash != hash)
		number = at(t, number)->chain;
	return number ? at(t, number) : NULL;
}

void *uoa_table_first(const struct uoa_table *t, uint32_t hash)
{
	return of_hash(t, t->buckets[hash & t->bucket_mask], hash);
}

void *uoa_table_next(const struct uoa_table *t, const void *entry)
{
	const struct uoa_entry *e = entry;

	return of_hash(t, e->chain, e->hash);
}

void *uoa_table_oldest(const struct uoa_table *t)
{
	return t->count ? at(t, at(t, ANCHOR)->newer) : NULL;
}

static void list_remove(struct uoa_table *t, const struct uoa_entry *entry)
{
	at(t, entry->older)->newer = entry->newer;
	at(t, entry->newer)->older = entry->older;
}

static void list_append(struct uoa_table *t, struct uoa_entry *entry)
{
	struct uoa_entry *anchor = at(t, ANCHOR);
	uint32_t number = number_of(t, entry);

	entry->older = anchor->older;
	entry->newer = ANCHOR;
	at(t, anchor->older)->newer = number;
	anchor->older = number;
}

void uoa_table_use(struct uoa_table *t, void *entry, uint64_t now)
{
	struct uoa_entry *e = entry;

	e->used = now;
	list_remove(t, e);
	list_append(t, e);
}

void *uoa_table_add(struct uoa_table *t, uint32_t hash, uint64_t now)
{
	uint32_t number = t->vacant ? t->vacant : t->fresh++;
	uint32_t *bucket = &t->buckets[hash & t->bucket_mask];
	struct uoa_entry *e = at(t, number);

	if (number == t->vacant)
		t->vacant = e->chain;
	memset(e, 0, t->entry_size);
	e->used = now;
	e->hash = hash;
	e->chain = *bucket;
	*bucket = number;
	list_append(t, e);
	t->count++;
	return e;
}

void uoa_table_remove(struct uoa_table *t, void *entry)
{
	struct uoa_entry *e = entry;
	uint32_t number = number_of(t, e);
	uint32_t *link = &t->buckets[e->hash & t->bucket_mask];

	while (*link != number)
		link = &at(t, *link)->chain;
	*link = e->chain;
	list_remove(t, e);
	e->chain = t->vacant;
	t->vacant = number;
	t->count--;
}
