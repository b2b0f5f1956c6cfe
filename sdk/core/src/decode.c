/* SPDX-License-Identifier: MIT */
/* Whole packets, for tools and tests: rules 4.2 from the first row to the last,
 * in that order, and the opposite direction. */
#include <errno.h>
#include <string.h>

#include <uoa/uoa.h>

#include "trust.h"
#include "walk.h"
#include <uoa/wire_build.h>
#include <uoa/wire_payload.h>

static int is_trusted(const struct uoa_trust *trust, const struct uoa_packet *p)
{
	return p->version == 6 ? uoa_trust_contains_ipv6(trust, p->src) :
				 uoa_trust_contains(trust, p->src);
}

/* Rows 21 to 26, of a packet that rows 1 to 20 took for UDP. */
static uint16_t judge(const uint8_t *packet, const struct uoa_packet *p,
		      uint8_t switches, const struct uoa_trust *trust,
		      struct uoa_claims *claims, uint32_t *strip)
{
	struct uoa_option_walk walk;
	uint16_t absent = UOA_RULE_NO_CLAIM, rule;

	if (trust && !is_trusted(trust, p))
		return UOA_RULE_SENDER;
	rule = uoa_wire_options(packet, p, switches, &walk);
	*claims = walk.claims;
	if (rule)
		return rule;
	rule = uoa_wire_payload(packet + p->payload_off,
				p->payload_end - p->payload_off, switches, p->src,
				claims, strip, &absent);
	return rule ? rule : uoa_claims_verdict(claims, absent);
}

int uoa_decode(const void *packet, uint32_t len, uint32_t switches,
	       const struct uoa_trust *trust, struct uoa_decoded *decoded,
	       uint8_t *stripped)
{
	struct uoa_claims claims = { 0 };
	struct uoa_packet p;
	uint16_t rule;

	memset(decoded, 0, sizeof(*decoded));
	rule = uoa_wire_outer(packet, len, (uint8_t)switches, &p);
	if (!rule)
		rule = judge(packet, &p, (uint8_t)switches, trust, &claims,
			     &decoded->strip);
	decoded->rule = rule;
	decoded->version = p.version == 4 || p.version == 6 ? p.version : 0;
	memcpy(decoded->src, p.src, 16);
	memcpy(decoded->dst, p.dst, 16);
	decoded->sport = p.sport;
	decoded->dport = p.dport;
	decoded->payload_off = p.payload_off;
	decoded->payload_len = p.payload_end - p.payload_off;
	decoded->reached_opp = p.opp_off != 0;
	if (stripped)
		decoded->stripped_len = uoa_build_stripped(stripped, packet, &p);
	if (rule == UOA_RULE_FOUND) {
		memcpy(decoded->client, claims.first.client, 16);
		memcpy(decoded->vip, claims.first.vip, 16);
		decoded->client_port = claims.first.client_port;
		decoded->vip_port = claims.first.vip_port;
		decoded->client_family = claims.first.client_family;
		decoded->vip_family = claims.first.vip_family;
		decoded->vni = claims.first.vni;
		decoded->dialect = claims.first.dialect;
	}
	return uoa_rule_reason(rule);
}

/* The longest header of any part is far shorter than this. */
static uint32_t build_part(uint32_t part, const struct uoa_claim *claim,
			   uint8_t to[UOA_BUILD_HEADERS_MAX])
{
	switch (part) {
	case UOA_PART_OPTION:
		return uoa_build_option(to, claim);
	case UOA_PART_DST_OPTS:
		return uoa_build_dst_opts(to, claim, UOA_PROTO_UDP);
	case UOA_PART_OPP:
		return uoa_build_opp(to, claim);
	case UOA_PART_PAYLOAD:
		return uoa_build_payload(to, claim);
	case UOA_PART_LOCAL:
		return uoa_build_ppv2_local(to);
	default:
		return 0;
	}
}

int uoa_build(uint32_t part, const struct uoa_claim *claim,
	      const struct uoa_addr *src, const struct uoa_addr *dst,
	      const void *payload, uint32_t payload_len, uint8_t *to, uint32_t room)
{
	uint8_t header[UOA_BUILD_HEADERS_MAX];
	struct uoa_build build;
	uint32_t len;

	if (part != UOA_PART_PACKET) {
		len = build_part(part, claim, header);
		if (len > room)
			return -EMSGSIZE;
		memcpy(to, header, len);
		return len ? (int)len : -EINVAL;
	}
	if (room < UOA_BUILD_HEADERS_MAX ||
	    payload_len > room - UOA_BUILD_HEADERS_MAX)
		return -EMSGSIZE;
	memcpy(build.src, src->host, 16);
	memcpy(build.dst, dst->host, 16);
	build.sport = src->port;
	build.dport = dst->port;
	build.claim = *claim;
	len = uoa_build_packet(to, &build, payload, payload_len);
	return len ? (int)len : -EINVAL;
}
