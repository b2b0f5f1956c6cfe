/* SPDX-License-Identifier: MIT */
/*
 * The line protocol of the packet harnesses in this folder: a packet comes in
 * as one line of text, what was made of it goes out as another, so that one
 * Python test can judge every build of the parser alike.
 *
 *	in:   SWITCHES TRUST PACKET
 *	out:  REASON RULE VERSION SRC SPORT DST DPORT DIALECT FAMILY CLIENT PORT
 *	      VIP_FAMILY VIP VIP_PORT VNI STRIP STRIPPED
 *
 * SWITCHES is hex. TRUST is `*` (everybody), `-` (nobody) or prefixes with
 * commas between them. PACKET is hex, `-` when it is empty. Addresses are the 16
 * bytes of struct uoa_decoded in hex, other numbers are decimal. STRIPPED is the
 * packet without its opp header in hex, `-` when it has none, `keep` when it
 * must be left as it is, `?` when this harness does not build it.
 */
#ifndef UOA_TESTS_LINES_H
#define UOA_TESTS_LINES_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <uoa/uoa.h>

enum { REQUEST_PREFIXES = 32 };

struct request {
	uint8_t switches;
	int trusts_all;
	const char *trust[REQUEST_PREFIXES];
	uint32_t trust_count;
	uint8_t *packet; /* a heap block of exactly `len` bytes */
	uint32_t len;
	char *line; /* what the text above points into */
	size_t line_room;
};

static inline void refuse(const char *what, const char *text)
{
	fprintf(stderr, "%s: %.80s\n", what, text ? text : "(nothing)");
	exit(2);
}

static inline char *next_field(char **rest, const char *separator)
{
	if (!*rest)
		refuse("a field is missing", NULL);
	return strsep(rest, separator);
}

static inline uint8_t hex_digit(const char *at)
{
	static const char digits[] = "0123456789abcdef";
	const char *digit = strchr(digits, *at);

	if (!*at || !digit)
		refuse("not hexadecimal", at);
	return (uint8_t)(digit - digits);
}

/* The bytes that `text` spells (`-`: none), in a heap block of exactly their
 * number, so that AddressSanitizer sees the first byte read behind them. */
static inline uint8_t *hex_bytes(const char *text, uint32_t *len)
{
	uint8_t *bytes;

	*len = strcmp(text, "-") ? (uint32_t)strlen(text) / 2 : 0;
	bytes = malloc(*len);
	if (!bytes)
		refuse("no memory", "");
	for (uint32_t i = 0; i < *len; i++)
		bytes[i] = (uint8_t)(hex_digit(text + 2 * i) << 4 |
				     hex_digit(text + 2 * i + 1));
	return bytes;
}

static inline void print_hex(const uint8_t *bytes, uint32_t len)
{
	static const char digits[] = "0123456789abcdef";

	if (!len)
		putchar('-');
	for (uint32_t i = 0; i < len; i++) {
		putchar(digits[bytes[i] >> 4]);
		putchar(digits[bytes[i] & 15]);
	}
}

/* One line of standard input into `line`. 0: there are no more. */
static inline int line_read(char **line, size_t *room)
{
	if (getline(line, room, stdin) < 0)
		return 0;
	(*line)[strcspn(*line, "\n")] = 0;
	return 1;
}

/* The next request, in place of the one before. 0: there are no more. */
static inline int request_read(struct request *r)
{
	char *rest, *trust;

	free(r->packet);
	r->packet = NULL;
	if (!line_read(&r->line, &r->line_room)) {
		free(r->line);
		return 0;
	}
	rest = r->line;
	r->switches = (uint8_t)strtoul(next_field(&rest, " "), NULL, 16);
	trust = next_field(&rest, " ");
	r->packet = hex_bytes(next_field(&rest, " "), &r->len);
	r->trusts_all = !strcmp(trust, "*");
	r->trust_count = 0;
	if (r->trusts_all || !strcmp(trust, "-"))
		return 1;
	while (trust) {
		if (r->trust_count == REQUEST_PREFIXES)
			refuse("too many prefixes", trust);
		r->trust[r->trust_count++] = next_field(&trust, ",");
	}
	return 1;
}

/* `stripped` is NULL where the harness does not build it. */
static inline void outcome_print(const struct uoa_decoded *d,
				 const uint8_t *stripped)
{
	const char *dialect = uoa_dialect_name(d->dialect);

	printf("%s %u %u ", uoa_reason_name(uoa_rule_reason((uint16_t)d->rule)),
	       d->rule & 0xff, d->version);
	print_hex(d->src, 16);
	printf(" %u ", d->sport);
	print_hex(d->dst, 16);
	printf(" %u %s %u ", d->dport, dialect ? dialect : "-", d->client_family);
	print_hex(d->client, 16);
	printf(" %u %u ", d->client_port, d->vip_family);
	print_hex(d->vip, 16);
	printf(" %u %u %u ", d->vip_port, d->vni, d->strip);
	if (!d->reached_opp)
		printf("-");
	else if (!d->stripped_len)
		printf("keep");
	else if (!stripped)
		printf("?");
	else
		print_hex(stripped, d->stripped_len);
	putchar('\n');
	fflush(stdout);
}

#endif
