/* SPDX-License-Identifier: MIT */
/*
 * Proves what uoa_ppv2_wanted() and uoa_wire_stream() make of the start of a
 * stream, and that they read no byte behind it. A line is the bytes in hex (`-`:
 * none); the answer is WANTED, or `0 REASON STRIP CLIENT PORT VIP PORT` once that
 * is not more than is there.
 */
#include "lines.h"

#include <uoa/wire_payload.h>

int main(void)
{
	static const uint8_t sender[16] = { [10] = 0xff, 0xff, 10, 0, 0, 5 };
	char *line = NULL;
	size_t room = 0;

	while (line_read(&line, &room)) {
		struct uoa_claim claim = { 0 };
		uint32_t len, strip, wanted;
		uint8_t *bytes = hex_bytes(line, &len);

		wanted = uoa_ppv2_wanted(bytes, len);
		if (wanted > len) {
			printf("%u\n", wanted);
		} else {
			uint16_t rule = uoa_wire_stream(bytes, len, sender,
							&claim, &strip);

			printf("0 %s %u ", uoa_reason_name(uoa_rule_reason(rule)),
			       strip);
			print_hex(claim.client, 16);
			printf(" %u ", claim.client_port);
			print_hex(claim.vip, 16);
			printf(" %u\n", claim.vip_port);
		}
		fflush(stdout);
		free(bytes);
	}
	free(line);
	return 0;
}
