/* SPDX-License-Identifier: MIT */
/*
 * A bounded hash table whose entries are also in order of use: the least
 * recently used leaves when the table is full. Entries never move. It knows no
 * keys: its user compares the entries of a chain. No I/O, no lock, no clock.
 */
#ifndef UOA_SRC_TABLE_H
#define UOA_SRC_TABLE_H

#include <stddef.h>
#include <stdint.h>

/* The first member of every entry; the rest is the user's. */
struct uoa_entry {
	uint64_t used; /* time, see uoa_table_use() */
	uint32_t hash;
	uint32_t chain; /* number of the next entry of the bucket, 0: none */
	uint32_t older; /* neighbours in order of use */
	uint32_t newer;
};

struct uoa_table {
	uint8_t *entries; /* max + 1 of them; entry 0 is the list's anchor */
	size_t entry_size;
	uint32_t *buckets;
	uint32_t bucket_mask;
	uint32_t max;
	uint32_t count;
	uint32_t fresh;  /* entries from this one on were never used */
	uint32_t vacant; /* chain of entries that were given back */
	uint64_t hash_key[2];
};

/* Room for `max` entries of this size. -ENOMEM. */
int uoa_table_init(struct uoa_table *table, uint32_t max, size_t entry_size);
void uoa_table_destroy(struct uoa_table *table);

/* Keyed, because clients choose what a balancer's ports are used for. */
uint32_t uoa_table_hash(const struct uoa_table *table, const uint8_t address[16],
			uint32_t ports);

/* The first entry with a hash like this, and the next one; NULL at the end. */
void *uoa_table_first(const struct uoa_table *table, uint32_t hash);
void *uoa_table_next(const struct uoa_table *table, const void *entry);

/* The least recently used entry; NULL: the table is empty. */
void *uoa_table_oldest(const struct uoa_table *table);

/* A new, zeroed entry. The table must not be full. */
void *uoa_table_add(struct uoa_table *table, uint32_t hash, uint64_t now);
void uoa_table_remove(struct uoa_table *table, void *entry);

/* Mark as used now. */
void uoa_table_use(struct uoa_table *table, void *entry, uint64_t now);

/* Threads read the clock before they take the lock, so that one may come with
 * an earlier time than the one before it. */
static inline uint64_t uoa_elapsed(uint64_t since, uint64_t now)
{
	return now > since ? now - since : 0;
}

#endif
