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

struct sip {
	uint64_t a, b, c, d;
};

static inline struct sip sip_round(struct sip v)
{
	v.a += v.b;
	v.c += v.d;
	v.b = ROTATE(v.b, 13) ^ v.a;
	v.d = ROTATE(v.d, 16) ^ v.c;
	v.a = ROTATE(v.a, 32);
	v.c += v.b;
	v.a += v.d;
	v.b = ROTATE(v.b, 17) ^ v.c;
	v.d = ROTATE(v.d, 21) ^ v.a;
	v.c = ROTATE(v.c, 32);
	return v;
}

static inline struct sip sip_word(struct sip v, uint64_t word)
{
	v.d ^= word;
	v = sip_round(v);
	v.a ^= word;
	return v;
}

/* SipHash-1-3. By value, so that its state stays in registers. */
uint32_t uoa_table_hash(const struct uoa_table *t, const uint8_t address[16],
			uint32_t ports)
{
	struct sip v = {
		t->hash_key[0] ^ 0x736f6d6570736575,
		t->hash_key[1] ^ 0x646f72616e646f6d,
		t->hash_key[0] ^ 0x6c7967656e657261,
		t->hash_key[1] ^ 0x7465646279746573,
	};
	uint64_t words[2];

	memcpy(words, address, 16);
	v = sip_word(v, words[0]);
	v = sip_word(v, words[1]);
	v = sip_word(v, (uint64_t)20 << 56 | ports);
	v.c ^= 0xff;
	v = sip_round(sip_round(sip_round(v)));
	return (uint32_t)(v.a ^ v.b ^ v.c ^ v.d);
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
