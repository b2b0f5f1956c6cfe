/* SPDX-License-Identifier: MIT */
/* The prefixes whose claims are believed: two arrays of disjoint, sorted
 * address ranges, one a family, searched by bisection. */
#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "trust.h"

struct range {
	uint8_t first[16];
	uint8_t last[16];
};

struct ranges {
	struct range *at;
	size_t count;
};

struct uoa_trust {
	struct ranges ipv4; /* as mapped addresses */
	struct ranges ipv6;
};

int uoa_trust_new(struct uoa_trust **trust)
{
	*trust = calloc(1, sizeof(**trust));
	return *trust ? 0 : -ENOMEM;
}

void uoa_trust_free(struct uoa_trust *trust)
{
	if (!trust)
		return;
	free(trust->ipv4.at);
	free(trust->ipv6.at);
	free(trust);
}

/* A decimal number of at most three digits, or -1. */
static int parse_length(const char *text)
{
	int value = 0;
	size_t n = strlen(text);

	if (n < 1 || n > 3 || strspn(text, "0123456789") != n)
		return -1;
	while (*text)
		value = value * 10 + (*text++ - '0');
	return value;
}

static int parse_prefix(const char *prefix, uint8_t address[16], int *length)
{
	char host[INET6_ADDRSTRLEN];
	const char *slash = strchr(prefix, '/');
	size_t n = slash ? (size_t)(slash - prefix) : strlen(prefix);
	uint8_t ipv4[4];
	int longest = 128;

	if (n >= sizeof(host))
		return -EINVAL;
	memcpy(host, prefix, n);
	host[n] = 0;
	if (inet_pton(AF_INET, host, ipv4) == 1) {
		uoa_address_map(address, ipv4);
		longest = 32;
	} else if (inet_pton(AF_INET6, host, address) != 1) {
		return -EINVAL;
	}
	*length = slash ? parse_length(slash + 1) : longest;
	if (*length < 0 || *length > longest)
		return -EINVAL;
	*length += 128 - longest;
	return 0;
}

/* Split [first, last] off its prefix. -EDOM: bits behind the length are set. */
static int range_of(struct range *range, const uint8_t address[16], int length)
{
	for (int i = 0; i < 16; i++) {
		int bits = length - i * 8;
		uint8_t host_mask = bits >= 8 ? 0 : bits <= 0 ? 0xff : 0xff >> bits;

		if (address[i] & host_mask)
			return -EDOM;
		range->first[i] = address[i];
		range->last[i] = address[i] | host_mask;
	}
	return 0;
}

/* memcmp() of two addresses, two words at a time. */
static inline int compare(const uint8_t a[16], const uint8_t b[16])
{
	uint64_t x, y;

	memcpy(&x, a, 8);
	memcpy(&y, b, 8);
	if (x == y) {
		memcpy(&x, a + 8, 8);
		memcpy(&y, b + 8, 8);
	}
	x = be64toh(x);
	y = be64toh(y);
	return (x > y) - (x < y);
}

/* The first range that ends at or behind the address. */
static size_t search(const struct ranges *set, const uint8_t address[16])
{
	size_t low = 0, high = set->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (compare(set->at[middle].last, address) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* Of two prefixes one holds the other, or they are apart. So the new one is in
 * an old one, or takes the place of all that are in it. */
static int insert(struct ranges *set, const struct range *new)
{
	size_t first = search(set, new->first), behind = first;
	struct range *grown;

	if (first < set->count &&
	    memcmp(set->at[first].first, new->first, 16) <= 0 &&
	    memcmp(set->at[first].last, new->last, 16) >= 0)
		return 0;
	while (behind < set->count &&
	       memcmp(set->at[behind].last, new->last, 16) <= 0)
		behind++;
	grown = realloc(set->at, (set->count + 1) * sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	set->at = grown;
	memmove(set->at + first + 1, set->at + behind,
		(set->count - behind) * sizeof(*grown));
	set->at[first] = *new;
	set->count += 1 - (behind - first);
	return 0;
}

int uoa_trust_add(struct uoa_trust *trust, const char *prefix)
{
	struct range range;
	uint8_t address[16];
	int length, error;

	error = parse_prefix(prefix, address, &length);
	if (!error)
		error = range_of(&range, address, length);
	if (error)
		return error;
	/* ::ffff:10.0.0.0/120 is 10.0.0.0/24; a shorter one is IPv6 space. */
	return insert(uoa_address_is_mapped(address) && length >= 96 ?
			      &trust->ipv4 :
			      &trust->ipv6,
		      &range);
}

static int contains(const struct ranges *set, const uint8_t address[16])
{
	size_t at = search(set, address);

	return at < set->count && compare(set->at[at].first, address) <= 0;
}

/* For every datagram: uoa_address_is_mapped() goes byte by byte, for BPF's sake. */
int uoa_trust_contains(const struct uoa_trust *trust, const uint8_t address[16])
{
	static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };

	return contains(memcmp(address, mapped, sizeof(mapped)) ? &trust->ipv6 :
								  &trust->ipv4,
			address);
}

int uoa_trust_contains_ipv6(const struct uoa_trust *trust,
			    const uint8_t address[16])
{
	return contains(&trust->ipv6, address);
}
