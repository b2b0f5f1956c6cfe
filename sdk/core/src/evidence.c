/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include <netinet/in.h>
#include <string.h>

#include <uoa/wire_payload.h>

#include "evidence.h"
#include "walk.h"

void uoa_evidence_control(struct uoa_evidence *evidence, int level, int type,
			  const void *data, size_t len)
{
	const uint8_t *bytes = data;

	if (level == IPPROTO_IP && type == IP_RECVOPTS) {
		evidence->options = bytes;
		evidence->options_len = (uint32_t)len;
	} else if (level == IPPROTO_IPV6 && type == IPV6_DSTOPTS) {
		/* The kernel hands over each Destination Options header; only
		 * the one in front of UDP is a balancer's (rules 4.3). */
		if (len >= 2 && bytes[0] == UOA_PROTO_UDP &&
		    len == uoa_ext_len(UOA_EXT_DST_OPTS, bytes)) {
			evidence->dst_opts = bytes;
			evidence->dst_opts_len = (uint32_t)len;
		}
	} else if (level == IPPROTO_IP && type == IP_PKTINFO &&
		   len == sizeof(struct in_pktinfo)) {
		/* The host's own address, also for a broadcast datagram. The
		 * kernel has it for those only that came after it was asked
		 * for; earlier ones tell where they were sent to. */
		struct in_pktinfo info;

		memcpy(&info, bytes, sizeof(info));
		uoa_address_map(evidence->local.host,
				info.ipi_spec_dst.s_addr ?
					(const uint8_t *)&info.ipi_spec_dst :
					(const uint8_t *)&info.ipi_addr);
	} else if (level == IPPROTO_IPV6 && type == IPV6_PKTINFO &&
		   len == sizeof(struct in6_pktinfo)) {
		struct in6_pktinfo info;

		memcpy(&info, bytes, sizeof(info));
		memcpy(evidence->local.host, &info.ipi6_addr, 16);
		if (IN6_IS_ADDR_LINKLOCAL(&info.ipi6_addr))
			evidence->local.scope = info.ipi6_ifindex;
	}
}

int uoa_evidence_claims(const struct uoa_evidence *e, uint8_t switches)
{
	if (e->options_len || e->dst_opts_len)
		return 1;
	if (switches & UOA_ENABLE_PPV2 && e->payload_len >= UOA_PPV2_SIGNATURE_LEN &&
	    !memcmp(e->payload, UOA_PPV2_SIGNATURE, UOA_PPV2_SIGNATURE_LEN))
		return 1;
	return switches & UOA_ENABLE_SPP && e->payload_len >= 2 &&
	       !memcmp(e->payload, UOA_SPP_MAGIC, 2);
}

uint16_t uoa_evidence_judge(const struct uoa_evidence *e, uint8_t switches,
			    struct uoa_claims *claims, uint32_t *strip)
{
	uint16_t absent = UOA_RULE_NO_CLAIM, rule = 0;
	struct uoa_option_walk walk;

	uoa_option_walk_init(&walk, e->options, switches, e->peer.host);
	if (e->options_len)
		rule = uoa_option_area(&walk, UOA_AREA_IPV4, 0, e->options_len);
	walk.ctx = e->dst_opts;
	if (!rule && e->dst_opts_len)
		rule = uoa_option_area(&walk, UOA_AREA_IPV6, 2, e->dst_opts_len);
	*claims = walk.claims;
	if (!rule && switches & UOA_SWITCHES_PAYLOAD)
		rule = uoa_wire_payload(e->payload, e->payload_len, switches,
					e->peer.host, claims, strip, &absent);
	return rule ? rule : uoa_claims_verdict(claims, absent);
}
