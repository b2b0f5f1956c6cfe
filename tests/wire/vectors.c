/* SPDX-License-Identifier: MIT */
/*
 * Proves that uoa_decode(), and with it the parser of user space, says of each
 * packet what the vectors say, and reads no byte outside of it: built with
 * AddressSanitizer, every packet stands alone in a heap block of its own size.
 */
#include "lines.h"

static struct uoa_trust *trust_of(const struct request *r)
{
	struct uoa_trust *trust = NULL;

	if (r->trusts_all)
		return NULL;
	if (uoa_trust_new(&trust))
		refuse("no memory", "");
	for (uint32_t i = 0; i < r->trust_count; i++)
		if (uoa_trust_add(trust, r->trust[i]))
			refuse("not a prefix", r->trust[i]);
	return trust;
}

int main(void)
{
	struct request r = { 0 };

	while (request_read(&r)) {
		struct uoa_trust *trust = trust_of(&r);
		uint8_t *stripped = malloc(r.len);
		struct uoa_decoded decoded;

		uoa_decode(r.packet, r.len, r.switches, trust, &decoded, stripped);
		outcome_print(&decoded, stripped);
		uoa_trust_free(trust);
		free(stripped);
	}
	return 0;
}
