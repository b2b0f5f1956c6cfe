/* SPDX-License-Identifier: MIT */
/*
 * Proves that uoa_build() writes options, headers and packets that say what the
 * claim says, and writes no byte outside of the room it was given: that is a
 * heap block of its own. One request a line:
 *
 *	in:   PART ROOM DIALECT FAMILY CLIENT PORT VIP_FAMILY VIP VIP_PORT VNI
 *	      SRC SPORT DST DPORT PAYLOAD
 *	out:  LEN BYTES
 *
 * PART and DIALECT are numbers of uoa.h, ROOM a number of bytes, addresses are
 * 16 bytes in hex, PAYLOAD is hex or `-`. LEN is a negative errno on failure.
 */
#include "lines.h"

static uint32_t next_number(char **rest)
{
	return (uint32_t)strtoul(next_field(rest, " "), NULL, 10);
}

static void next_host(char **rest, uint8_t host[16])
{
	uint32_t len;
	uint8_t *bytes = hex_bytes(next_field(rest, " "), &len);

	if (len != 16)
		refuse("not 16 bytes", "");
	memcpy(host, bytes, 16);
	free(bytes);
}

static void next_addr(char **rest, struct uoa_addr *addr)
{
	memset(addr, 0, sizeof(*addr));
	next_host(rest, addr->host);
	addr->port = (uint16_t)next_number(rest);
}

static struct uoa_claim next_claim(char **rest)
{
	struct uoa_claim claim = { 0 };

	claim.dialect = (uint8_t)next_number(rest);
	claim.client_family = (uint8_t)next_number(rest);
	next_host(rest, claim.client);
	claim.client_port = (uint16_t)next_number(rest);
	claim.vip_family = (uint8_t)next_number(rest);
	next_host(rest, claim.vip);
	claim.vip_port = (uint16_t)next_number(rest);
	claim.vni = next_number(rest);
	return claim;
}

int main(void)
{
	char *line = NULL;
	size_t line_room = 0;

	while (line_read(&line, &line_room)) {
		char *rest = line;
		uint32_t part = next_number(&rest), room = next_number(&rest);
		struct uoa_claim claim = next_claim(&rest);
		struct uoa_addr src, dst;
		uint8_t *payload, *to = malloc(room);
		uint32_t payload_len;
		int len;

		next_addr(&rest, &src);
		next_addr(&rest, &dst);
		payload = hex_bytes(next_field(&rest, " "), &payload_len);
		len = uoa_build(part, &claim, &src, &dst, payload, payload_len, to,
				room);
		printf("%d ", len);
		print_hex(to, len > 0 ? (uint32_t)len : 0);
		putchar('\n');
		fflush(stdout);
		free(payload);
		free(to);
	}
	free(line);
	return 0;
}
