/* SPDX-License-Identifier: MIT */
/*
 * Proves that the walk of wire_walk.h asks only for bytes of the packet, or of
 * an option area where that is all there is, as in ancillary data; and that no
 * claim comes out when a read fails, whichever it is. Each packet is walked again
 * and again, and another read fails each time; the answer is what these walks
 * said, with commas between them, after the number of reads. It is `outside` when
 * a walk asked for what is not there.
 */
#include "lines.h"
#include "reader.h"

/* Does a walk over the option area alone stay in it? */
static int area_is_enough(const struct request *r)
{
	struct reader whole = { .packet = r->packet, .len = r->len };
	struct uoa_option_walk walk;
	struct reader area = { 0 };
	struct uoa_packet p;

	if (uoa_wire_outer(&whole, r->len, r->switches, &p) || !p.options_end)
		return 1;
	area.packet = r->packet + p.options_off;
	area.len = p.options_end - p.options_off;
	uoa_option_walk_init(&walk, &area, r->switches, p.src);
	uoa_option_area(&walk, p.version == 4 ? UOA_AREA_IPV4 : UOA_AREA_IPV6, 0,
			area.len);
	return !area.went_outside;
}

int main(void)
{
	struct request r = { 0 };

	while (request_read(&r)) {
		struct reader reader = { .packet = r.packet, .len = r.len };
		uint32_t reads;

		reader_walk(&reader, r.switches);
		reads = reader.count;
		if (reader.went_outside || !area_is_enough(&r))
			printf("outside ");
		printf("%u ", reads);
		for (uint32_t n = 1; n <= reads; n++) {
			uint16_t rule;

			reader.count = 0;
			reader.fail_at = n;
			rule = reader_walk(&reader, r.switches);
			printf("%s,", uoa_reason_name(uoa_rule_reason(rule)));
		}
		putchar('\n');
		fflush(stdout);
	}
	return 0;
}
