/* SPDX-License-Identifier: MIT */
/*
 * Proves that uapi.h answers each getsockopt() request as the vectors say, and
 * reads and writes no byte outside of the caller's buffer, which stands alone in
 * a heap block of its own size. One request a line:
 *
 *	in:   LEVEL REQUEST LEN BUFFER PREFIX FLOW...
 *	out:  ERRNO LEN BUFFER
 *
 * BUFFER and PREFIX (the 12 bytes of the NAT64 conversion) are hex, `-` if none.
 * A FLOW is PEER,PORT,LOCAL,PORT,CLIENT,PORT,VIP,PORT,VNI,DIALECT,AGE, oldest
 * first, addresses as 16 bytes in hex, `-` for the VIP that is not known. ERRNO
 * is a name, or `OK`.
 */
#include "lines.h"
#include "table.h"

static const char *const statuses[] = {
	"OK",
#define X(id, error) #error,
	UOA_SOCKOPT_STATUSES(X)
#undef X
};

static void next_address(char **rest, uint8_t address[16])
{
	uint32_t len;
	uint8_t *bytes = hex_bytes(next_field(rest, ","), &len);

	memset(address, 0, 16);
	memcpy(address, bytes, len < 16 ? len : 16);
	free(bytes);
}

static uint16_t next_port(char **rest)
{
	return (uint16_t)atoi(next_field(rest, ","));
}

static struct flow flow_of(char *text)
{
	struct flow flow = { 0 };

	next_address(&text, flow.peer);
	flow.peer_port = next_port(&text);
	next_address(&text, flow.local);
	flow.local_port = next_port(&text);
	next_address(&text, flow.claim.client);
	flow.claim.client_port = next_port(&text);
	next_address(&text, flow.claim.vip);
	flow.claim.vip_port = next_port(&text);
	flow.claim.vni = (uint32_t)strtoul(next_field(&text, ","), NULL, 10);
	flow.claim.dialect = (uint8_t)atoi(next_field(&text, ","));
	flow.age_ms = strtoull(next_field(&text, ","), NULL, 10);
	return flow;
}

int main(void)
{
	static struct table table;
	char *line = NULL;
	size_t room = 0;

	while (line_read(&line, &room)) {
		uint32_t len, buffer_len, prefix_len;
		uint8_t *buffer, *prefix;
		int level, request, status;
		char *rest = line;

		level = atoi(next_field(&rest, " "));
		request = atoi(next_field(&rest, " "));
		len = (uint32_t)atoi(next_field(&rest, " "));
		buffer = hex_bytes(next_field(&rest, " "), &buffer_len);
		prefix = hex_bytes(next_field(&rest, " "), &prefix_len);
		table.count = 0;
		while (rest) {
			struct flow flow = flow_of(next_field(&rest, " "));

			if (table.count == TABLE_ROOM)
				refuse("too many flows", rest);
			table_put(&table, &flow);
		}
		status = table_getsockopt(&table, level, request,
					  prefix_len ? prefix : NULL, buffer, &len);
		printf("%s %u ", statuses[status], len);
		print_hex(buffer, buffer_len);
		putchar('\n');
		fflush(stdout);
		free(buffer);
		free(prefix);
	}
	free(line);
	return 0;
}
