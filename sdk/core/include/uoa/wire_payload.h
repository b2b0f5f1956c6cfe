/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * FREESTANDING: the dialects that stand in front of the UDP payload, PROXY
 * protocol version 2 (rules 1.4, 4.6) and Simple Proxy Protocol (rules 1.5,
 * 4.7). BPF and the module never include this: no kernel reads payloads.
 */
#ifndef UOA_WIRE_PAYLOAD_H
#define UOA_WIRE_PAYLOAD_H

#include "wire.h"

enum {
	UOA_PPV2_HEADER_LEN = 16,
	UOA_PPV2_SIGNATURE_LEN = 12,
	UOA_PPV2_ADDRESSES4_LEN = 12,
	UOA_PPV2_ADDRESSES6_LEN = 36,
	UOA_PPV2_TLV_LEN = 3,
	UOA_PPV2_TLV_CRC32C = 0x03,
	UOA_PPV2_LOCAL = 0,
	UOA_PPV2_INET = 1,
	UOA_PPV2_INET6 = 2,
	UOA_PPV2_STREAM = 1,
	UOA_PPV2_DGRAM = 2,

	UOA_SPP_LEN = 38,
};

#define UOA_PPV2_SIGNATURE "\r\n\r\n\0\r\nQUIT\n"
#define UOA_SPP_MAGIC "\x56\xec"

/* CRC-32C (Castagnoli, reflected), four bits a step: a 64-byte table. */
UOA_INLINE uoa_u32 uoa_crc32c(uoa_u32 crc, const uoa_u8 *p, uoa_u32 n)
{
	static const uoa_u32 nibble[16] = {
		0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1,
		0x417b1dbc, 0x5125dad3, 0x61c69362, 0x7198540d,
		0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9,
		0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75,
	};

	while (n--) {
		crc ^= *p++;
		crc = crc >> 4 ^ nibble[crc & 15];
		crc = crc >> 4 ^ nibble[crc & 15];
	}
	return crc;
}

/* The CRC-32C of a PROXY header of `n` bytes whose 4 checksum bytes, at `at`,
 * count as zero. */
UOA_INLINE uoa_u32 uoa_ppv2_crc(const uoa_u8 *header, uoa_u32 n, uoa_u32 at)
{
	static const uoa_u8 zero[4];
	uoa_u32 crc = 0xffffffff;

	crc = uoa_crc32c(crc, header, at);
	crc = uoa_crc32c(crc, zero, sizeof(zero));
	crc = uoa_crc32c(crc, header + at + 4, n - at - 4);
	return ~crc;
}

/* The TLVs of a header of `n` bytes, from `at` on. 0: well-formed, and the
 * checksum matches if there is one. */
UOA_INLINE uoa_u16 uoa_ppv2_tlvs(const uoa_u8 *header, uoa_u32 at, uoa_u32 n)
{
	uoa_u32 crc_at = 0, len;

	while (at < n) {
		if (n - at < UOA_PPV2_TLV_LEN)
			return UOA_RULE_PPV2_TLV;
		len = uoa_load16(header + at + 1);
		if (len > n - at - UOA_PPV2_TLV_LEN)
			return UOA_RULE_PPV2_TLV;
		if (header[at] == UOA_PPV2_TLV_CRC32C) {
			if (len != 4 || crc_at)
				return UOA_RULE_PPV2_CRC_TLV;
			crc_at = at + UOA_PPV2_TLV_LEN;
		}
		at += UOA_PPV2_TLV_LEN + len;
	}
	if (crc_at &&
	    uoa_load32(header + crc_at) != uoa_ppv2_crc(header, n, crc_at))
		return UOA_RULE_PPV2_CRC;
	return 0;
}

/*
 * Judge the `n` bytes of a payload (rules 4.6) that came over `of`, DGRAM or
 * STREAM. 0: `claim` is filled. Else the rule, UOA_RULE_NO_CLAIM when this is no
 * PROXY header at all. `strip` is how many bytes to take off the front; 0 unless
 * the header is well-formed.
 */
UOA_INLINE uoa_u16 uoa_ppv2_judge(const uoa_u8 *p, uoa_u32 n, uoa_u8 of,
				  struct uoa_claim *claim, uoa_u32 *strip)
{
	uoa_u32 header_len, addresses_len;
	uoa_u8 command, family, transport;
	uoa_u16 rule;
	int ipv6;

	*strip = 0;
	if (n < UOA_PPV2_SIGNATURE_LEN ||
	    __builtin_memcmp(p, UOA_PPV2_SIGNATURE, UOA_PPV2_SIGNATURE_LEN))
		return UOA_RULE_NO_CLAIM;
	if (n < UOA_PPV2_HEADER_LEN)
		return UOA_RULE_PPV2_SHORT;
	command = p[12] & 15;
	family = p[13] >> 4;
	transport = p[13] & 15;
	if (p[12] >> 4 != 2 || command > 1 || family > 3 || transport > 2)
		return UOA_RULE_PPV2_FIELDS;
	header_len = UOA_PPV2_HEADER_LEN + uoa_load16(p + 14);
	if (header_len > n)
		return UOA_RULE_PPV2_PAST_END;
	if (command == UOA_PPV2_LOCAL) {
		*strip = header_len;
		return UOA_RULE_PPV2_LOCAL;
	}
	if ((family != UOA_PPV2_INET && family != UOA_PPV2_INET6) ||
	    transport != of) {
		*strip = header_len;
		return UOA_RULE_PPV2_FAMILY;
	}
	ipv6 = family == UOA_PPV2_INET6;
	addresses_len = ipv6 ? UOA_PPV2_ADDRESSES6_LEN : UOA_PPV2_ADDRESSES4_LEN;
	if (header_len < UOA_PPV2_HEADER_LEN + addresses_len)
		return UOA_RULE_PPV2_ADDRESSES;
	rule = uoa_ppv2_tlvs(p, UOA_PPV2_HEADER_LEN + addresses_len, header_len);
	if (rule)
		return rule;

	*strip = header_len;
	__builtin_memset(claim, 0, sizeof(*claim));
	claim->dialect = UOA_DIALECT_PPV2;
	claim->client_family = claim->vip_family = ipv6 ? 6 : 4;
	uoa_claim_address(claim->client, p + 16, ipv6);
	uoa_claim_address(claim->vip, p + (ipv6 ? 32 : 20), ipv6);
	p += UOA_PPV2_HEADER_LEN + addresses_len - 4;
	claim->client_port = uoa_load16(p);
	claim->vip_port = uoa_load16(p + 2);
	return 0;
}

/* The same for SPP (rules 4.7). Mapped addresses are IPv4 ones here. */
UOA_INLINE uoa_u16 uoa_spp_judge(const uoa_u8 *p, uoa_u32 n,
				 struct uoa_claim *claim, uoa_u32 *strip)
{
	*strip = 0;
	if (n < 2 || __builtin_memcmp(p, UOA_SPP_MAGIC, 2))
		return UOA_RULE_NO_CLAIM;
	if (n < UOA_SPP_LEN)
		return UOA_RULE_SPP_SHORT;
	*strip = UOA_SPP_LEN;
	__builtin_memset(claim, 0, sizeof(*claim));
	claim->dialect = UOA_DIALECT_SPP;
	__builtin_memcpy(claim->client, p + 2, 16);
	__builtin_memcpy(claim->vip, p + 18, 16);
	claim->client_family = uoa_address_is_mapped(claim->client) ? 4 : 6;
	claim->vip_family = uoa_address_is_mapped(claim->vip) ? 4 : 6;
	claim->client_port = uoa_load16(p + 34);
	claim->vip_port = uoa_load16(p + 36);
	return 0;
}

/*
 * Row 22 for a payload of `n` bytes: add its claim, if it makes one, to
 * `claims`. Returns 0 or the rule that makes the packet yield nothing; in
 * `absent` the rule to report when no claim is there at all (row 23).
 */
UOA_INLINE uoa_u16 uoa_wire_payload(const uoa_u8 *p, uoa_u32 n, uoa_u8 switches,
				    const uoa_u8 sender[16],
				    struct uoa_claims *claims, uoa_u32 *strip,
				    uoa_u16 *absent)
{
	struct uoa_claim claim;
	uoa_u16 rule = UOA_RULE_NO_CLAIM;

	*strip = 0;
	if (switches & UOA_ENABLE_PPV2)
		rule = uoa_ppv2_judge(p, n, UOA_PPV2_DGRAM, &claim, strip);
	if (rule == UOA_RULE_NO_CLAIM && switches & UOA_ENABLE_SPP)
		rule = uoa_spp_judge(p, n, &claim, strip);
	*absent = rule;
	if (rule == 0)
		uoa_claims_add(claims, &claim, sender);
	switch (uoa_rule_reason(rule)) {
	case UOA_REASON_MALFORMED:
	case UOA_REASON_CHECKSUM:
		return rule;
	default:
		return 0;
	}
}

/* How many bytes from the start of a stream are wanted to judge it, now that the
 * first `n` are here: at most `n` when they are enough (rules 4.8). */
UOA_INLINE uoa_u32 uoa_ppv2_wanted(const uoa_u8 *p, uoa_u32 n)
{
	uoa_u32 here = n < UOA_PPV2_SIGNATURE_LEN ? n : UOA_PPV2_SIGNATURE_LEN;

	if (__builtin_memcmp(p, UOA_PPV2_SIGNATURE, here))
		return 0;
	if (n < UOA_PPV2_HEADER_LEN)
		return UOA_PPV2_HEADER_LEN;
	return UOA_PPV2_HEADER_LEN + uoa_load16(p + 14);
}

/* Judge the start of a stream of which uoa_ppv2_wanted() bytes are here. The rule
 * that decides; UOA_RULE_FOUND: `claim` is filled. */
UOA_INLINE uoa_u16 uoa_wire_stream(const uoa_u8 *p, uoa_u32 n,
				   const uoa_u8 sender[16],
				   struct uoa_claim *claim, uoa_u32 *strip)
{
	uoa_u16 rule = uoa_ppv2_judge(p, n, UOA_PPV2_STREAM, claim, strip);

	if (rule)
		return rule;
	return uoa_client_is_valid(claim->client, claim->client_port, sender) ?
		       UOA_RULE_FOUND :
		       UOA_RULE_ADDRESS;
}

#endif /* UOA_WIRE_PAYLOAD_H */
