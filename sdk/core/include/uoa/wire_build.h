/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * FREESTANDING: the opposite of the parser, for balancers, tools and tests:
 * options, headers and whole packets from a claim, and the packet that is left
 * when the opp header is taken out. User space only.
 *
 * Builders write to a buffer that the caller promises to be large enough (each
 * says how much) and return the bytes written, or 0 when the dialect has no
 * form for that claim. docs/wire-format.md section 1 draws every form.
 */
#ifndef UOA_WIRE_BUILD_H
#define UOA_WIRE_BUILD_H

#include "wire.h"
#include "wire_payload.h"
#include "wire_walk.h"

enum {
	UOA_BUILD_OPTION_MAX = 40,   /* IPv4 option, rounded up to 4 */
	UOA_BUILD_DST_OPTS_MAX = 40, /* the longest Destination Options header */
	UOA_BUILD_PAYLOAD_MAX = 52,  /* PROXY v2 header; SPP needs less */
	UOA_BUILD_HEADERS_MAX = 140, /* what a packet has in front of its payload */
	UOA_BUILD_TTL = 64,
};

UOA_INLINE void uoa_store16(uoa_u8 *p, uoa_u32 value)
{
	p[0] = (uoa_u8)(value >> 8);
	p[1] = (uoa_u8)value;
}

UOA_INLINE void uoa_store32(uoa_u8 *p, uoa_u32 value)
{
	uoa_store16(p, value >> 16);
	uoa_store16(p + 2, value);
}

/* The address in the size of its family; returns that size. */
UOA_INLINE uoa_u32 uoa_store_address(uoa_u8 *p, const uoa_u8 address[16], int ipv6)
{
	uoa_u32 len = ipv6 ? 16 : 4;

	__builtin_memcpy(p, address + 16 - len, len);
	return len;
}

/* ---- Options --------------------------------------------------------------- */

UOA_INLINE uoa_u8 uoa_build_type(uoa_u8 dialect)
{
	switch (dialect) {
	case UOA_DIALECT_BD30:
		return UOA_OPT_BD30;
	case UOA_DIALECT_BD29:
		return UOA_OPT_BD29;
	default:
		return UOA_OPT_ADDRESS;
	}
}

UOA_INLINE int uoa_dialect_is_bd(uoa_u8 dialect)
{
	return dialect == UOA_DIALECT_BD31 || dialect == UOA_DIALECT_BD30 ||
	       dialect == UOA_DIALECT_BD29;
}

/* What stands behind an option's leading octets; at most 36 bytes. A VIP that
 * is not of the client's family is written as zero: the form has no room. */
UOA_INLINE uoa_u32 uoa_build_form(uoa_u8 *to, const struct uoa_claim *claim)
{
	int ipv6 = claim->client_family == 6;
	uoa_u8 *p = to;

	if (claim->dialect == UOA_DIALECT_BD29) {
		uoa_store32(p, claim->vni);
		uoa_store16(p + 4, claim->client_port);
		uoa_store16(p + 6, 0);
		p += 8 + uoa_store_address(p + 8, claim->client, ipv6);
		if (ipv6) {
			uoa_store32(p, 0);
			p += 4;
		}
		return (uoa_u32)(p - to);
	}
	uoa_store16(p, claim->client_port);
	p += 2;
	if (uoa_dialect_is_bd(claim->dialect)) {
		uoa_store16(p, claim->vip_port);
		p += 2;
	}
	p += uoa_store_address(p, claim->client, ipv6);
	if (uoa_dialect_is_bd(claim->dialect)) {
		static const uoa_u8 none[16];

		p += uoa_store_address(p,
				       claim->vip_family == claim->client_family ?
					       claim->vip :
					       none,
				       ipv6);
	}
	return (uoa_u32)(p - to);
}

/* The option of an IPv4 or opp header: 8 to 40 bytes, always a multiple of 4. */
UOA_INLINE uoa_u32 uoa_build_option(uoa_u8 *to, const struct uoa_claim *claim)
{
	uoa_u32 lead = uoa_dialect_is_bd(claim->dialect) ? 4 : 2;

	if (claim->dialect == UOA_DIALECT_NONE ||
	    claim->dialect >= UOA_DIALECT_PPV2)
		return 0;
	to[0] = uoa_build_type(claim->dialect);
	to[2] = claim->client_family == 6;
	to[3] = 0;
	to[1] = (uoa_u8)(lead + uoa_build_form(to + lead, claim));
	return to[1];
}

/* The whole Destination Options header, padded to 8 with at most 7 bytes (Linux
 * drops packets with more): 16 to 40 bytes. */
UOA_INLINE uoa_u32 uoa_build_dst_opts(uoa_u8 *to, const struct uoa_claim *claim,
				      uoa_u8 next_header)
{
	uoa_u32 len, pad;

	if (claim->dialect != UOA_DIALECT_IPO && !uoa_dialect_is_bd(claim->dialect))
		return 0;
	to[2] = uoa_build_type(claim->dialect);
	to[3] = (uoa_u8)uoa_build_form(to + 4, claim);
	len = 4u + to[3];
	pad = (8 - len % 8) % 8;
	__builtin_memset(to + len, 0, pad);
	if (pad >= 2) {
		to[len] = UOA_OPT_PADN;
		to[len + 1] = (uoa_u8)(pad - 2);
	}
	len += pad;
	to[0] = next_header;
	to[1] = (uoa_u8)(len / 8 - 1);
	return len;
}

/* The opp header with its option: 12 or 24 bytes. */
UOA_INLINE uoa_u32 uoa_build_opp(uoa_u8 *to, const struct uoa_claim *claim)
{
	uoa_u32 len;

	if (claim->dialect != UOA_DIALECT_OPP)
		return 0;
	len = UOA_OPP_HEADER_LEN + uoa_build_option(to + UOA_OPP_HEADER_LEN, claim);
	to[0] = claim->client_family == 6 ? 0x20 : 0x10;
	to[1] = UOA_PROTO_UDP;
	uoa_store16(to + 2, len);
	return len;
}

/* ---- Payload dialects ------------------------------------------------------ */

/* A PROXY v2 header without TLVs: 28 or 52 bytes. Addresses of two families are
 * both written as IPv6, since the header has one family for both. */
UOA_INLINE uoa_u32 uoa_build_ppv2(uoa_u8 *to, const struct uoa_claim *claim)
{
	int ipv6 = claim->client_family == 6 || claim->vip_family == 6;
	uoa_u8 *p = to;

	__builtin_memcpy(p, UOA_PPV2_SIGNATURE, UOA_PPV2_SIGNATURE_LEN);
	p[12] = 0x21;
	p[13] = ipv6 ? 0x22 : 0x12;
	uoa_store16(p + 14,
		    ipv6 ? UOA_PPV2_ADDRESSES6_LEN : UOA_PPV2_ADDRESSES4_LEN);
	p += UOA_PPV2_HEADER_LEN;
	p += uoa_store_address(p, claim->client, ipv6);
	p += uoa_store_address(p, claim->vip, ipv6);
	uoa_store16(p, claim->client_port);
	uoa_store16(p + 2, claim->vip_port);
	return (uoa_u32)(p + 4 - to);
}

/* The LOCAL header of a health check: 16 bytes. */
UOA_INLINE uoa_u32 uoa_build_ppv2_local(uoa_u8 *to)
{
	__builtin_memcpy(to, UOA_PPV2_SIGNATURE, UOA_PPV2_SIGNATURE_LEN);
	__builtin_memcpy(to + 12, "\x20\0\0\0", 4);
	return UOA_PPV2_HEADER_LEN;
}

/* The SPP header: 38 bytes. */
UOA_INLINE uoa_u32 uoa_build_spp(uoa_u8 *to, const struct uoa_claim *claim)
{
	__builtin_memcpy(to, UOA_SPP_MAGIC, 2);
	__builtin_memcpy(to + 2, claim->client, 16);
	__builtin_memcpy(to + 18, claim->vip, 16);
	uoa_store16(to + 34, claim->client_port);
	uoa_store16(to + 36, claim->vip_port);
	return UOA_SPP_LEN;
}

/* The header in front of a payload, for the dialects that have one. */
UOA_INLINE uoa_u32 uoa_build_payload(uoa_u8 *to, const struct uoa_claim *claim)
{
	switch (claim->dialect) {
	case UOA_DIALECT_PPV2:
		return uoa_build_ppv2(to, claim);
	case UOA_DIALECT_SPP:
		return uoa_build_spp(to, claim);
	default:
		return 0;
	}
}

/* ---- Whole packets --------------------------------------------------------- */

/* RFC 1071; `sum` carries on from an earlier part of even length. */
UOA_INLINE uoa_u32 uoa_checksum_add(uoa_u32 sum, const uoa_u8 *p, uoa_u32 n)
{
	for (; n >= 2; p += 2, n -= 2)
		sum += uoa_load16(p);
	if (n)
		sum += (uoa_u32)p[0] << 8;
	return (sum & 0xffff) + (sum >> 16);
}

UOA_INLINE uoa_u16 uoa_checksum_end(uoa_u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	return (uoa_u16)~((sum & 0xffff) + (sum >> 16));
}

UOA_INLINE void uoa_checksum_ipv4(uoa_u8 *header)
{
	uoa_store16(header + 10, 0);
	uoa_store16(header + 10,
		    uoa_checksum_end(uoa_checksum_add(0, header,
						      (header[0] & 0x0fu) * 4)));
}

struct uoa_build {
	uoa_u8 src[16]; /* both mapped, or neither: the family of the packet */
	uoa_u8 dst[16];
	uoa_u16 sport;
	uoa_u16 dport;
	struct uoa_claim claim; /* dialect NONE: a packet without any */
};

/* The UDP header and payload at `udp`; the payload stands there already. */
UOA_INLINE void uoa_build_udp(const struct uoa_build *b, uoa_u8 *udp,
			      uoa_u32 udp_len, int ipv6)
{
	uoa_u8 pseudo[4] = { 0, UOA_PROTO_UDP };
	uoa_u32 skip = ipv6 ? 0 : 12, sum;
	uoa_u16 check;

	uoa_store16(udp, b->sport);
	uoa_store16(udp + 2, b->dport);
	uoa_store16(udp + 4, udp_len);
	uoa_store16(udp + 6, 0);
	uoa_store16(pseudo + 2, udp_len);
	sum = uoa_checksum_add(0, b->src + skip, 16 - skip);
	sum = uoa_checksum_add(sum, b->dst + skip, 16 - skip);
	sum = uoa_checksum_add(sum, pseudo, sizeof(pseudo));
	check = uoa_checksum_end(uoa_checksum_add(sum, udp, udp_len));
	uoa_store16(udp + 6, check ? check : 0xffff);
}

/*
 * A whole packet with the claim in the place where its dialect puts it, all
 * lengths and checksums right. Needs payload_len + UOA_BUILD_HEADERS_MAX bytes;
 * 0 when the claim has no form or the packet would be longer than 65535.
 */
UOA_INLINE uoa_u32 uoa_build_packet(uoa_u8 *to, const struct uoa_build *b,
				    const uoa_u8 *payload, uoa_u32 payload_len)
{
	int ipv6 = !uoa_address_is_mapped(b->src);
	uoa_u32 header_len = ipv6 ? UOA_IPV6_HEADER_LEN : UOA_IPV4_HEADER_LEN;
	uoa_u8 protocol = UOA_PROTO_UDP;
	uoa_u8 *p = to + header_len;
	uoa_u32 extra = 0, udp_len;
	uoa_u8 *udp;

	if (ipv6 == uoa_address_is_mapped(b->dst) || payload_len > 0xffff)
		return 0;
	switch (b->claim.dialect) {
	case UOA_DIALECT_NONE:
	case UOA_DIALECT_PPV2:
	case UOA_DIALECT_SPP:
		break;
	case UOA_DIALECT_OPP:
		extra = uoa_build_opp(p, &b->claim);
		protocol = UOA_PROTO_OPP;
		break;
	default:
		extra = ipv6 ? uoa_build_dst_opts(p, &b->claim, UOA_PROTO_UDP) :
			       uoa_build_option(p, &b->claim);
		if (!extra)
			return 0;
		if (ipv6)
			protocol = UOA_EXT_DST_OPTS;
		else
			header_len += extra;
		break;
	}
	udp = p + extra;
	udp_len = UOA_UDP_HEADER_LEN;
	udp_len += uoa_build_payload(udp + udp_len, &b->claim);
	if (payload_len)
		__builtin_memcpy(udp + udp_len, payload, payload_len);
	udp_len += payload_len;
	if (udp + udp_len - to > 0xffff)
		return 0;
	uoa_build_udp(b, udp, udp_len, ipv6);

	__builtin_memset(to, 0, ipv6 ? UOA_IPV6_HEADER_LEN : UOA_IPV4_HEADER_LEN);
	if (ipv6) {
		to[0] = 0x60;
		uoa_store16(to + 4, extra + udp_len);
		to[6] = protocol;
		to[7] = UOA_BUILD_TTL;
		__builtin_memcpy(to + 8, b->src, 16);
		__builtin_memcpy(to + 24, b->dst, 16);
	} else {
		to[0] = (uoa_u8)(0x40 | header_len / 4);
		uoa_store16(to + 2, (uoa_u32)(udp + udp_len - to));
		to[8] = UOA_BUILD_TTL;
		to[9] = protocol;
		uoa_store_address(to + 12, b->src, 0);
		uoa_store_address(to + 16, b->dst, 0);
		uoa_checksum_ipv4(to);
	}
	return (uoa_u32)(udp + udp_len - to);
}

/* The packet that is handed on when the opp header is taken out (rules 1.2),
 * to a buffer of p->end bytes; 0 when there is none or it must stay. */
UOA_INLINE uoa_u32 uoa_build_stripped(uoa_u8 *to, const uoa_u8 *packet,
				      const struct uoa_packet *p)
{
	uoa_u32 len = p->end - p->opp_len;

	if (!p->opp_len)
		return 0;
	__builtin_memcpy(to, packet, p->opp_off);
	__builtin_memcpy(to + p->opp_off, packet + p->opp_off + p->opp_len,
			 len - p->opp_off);
	to[p->transport_byte] = UOA_PROTO_UDP;
	if (p->version == 6) {
		uoa_store16(to + 4, len - UOA_IPV6_HEADER_LEN);
	} else {
		uoa_store16(to + 2, len);
		uoa_checksum_ipv4(to);
	}
	return len;
}

#endif /* UOA_WIRE_BUILD_H */
