/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * FREESTANDING: every way a UOA balancer writes a client's address, and what
 * makes such a claim acceptable. docs/wire-format.md has the rules; a comment
 * like "rules 4.3" names the section that a line implements.
 *
 * The one parser of the project, for user space, the kernel and BPF. It comes
 * in four files so that each world takes only what it can use:
 *
 *	wire.h          names, verdicts, and leaf functions that judge ONE item
 *	wire_walk.h     the walk over a packet (reads through the includer)
 *	wire_payload.h  PROXY v2 and SPP: user space only
 *	wire_build.h    the opposite direction: user space only
 *
 * Nothing here allocates, writes to a packet, reads a clock or calls anything.
 * Addresses are 16 bytes in network order, IPv4 as ::ffff:a.b.c.d. Ports and
 * every other number are in host order. Lengths end in _len and count bytes.
 */
#ifndef UOA_WIRE_H
#define UOA_WIRE_H

/* Compiler built-ins rather than a header: BPF and -nostdinc have none. */
typedef __UINT8_TYPE__ uoa_u8;
typedef __UINT16_TYPE__ uoa_u16;
typedef __UINT32_TYPE__ uoa_u32;

#define UOA_INLINE static inline __attribute__((always_inline, unused))

/* Keep an object where it is. A compiler that takes it apart byte by byte needs
 * more stack for the pieces than BPF has. */
#define UOA_IN_MEMORY(object) __asm__ volatile("" : : "r"(object) : "memory")

/*
 * Dialects: X(identifier, name, the switch that enables it). The numbers are
 * those of request 2051 (uapi.h) and of the BPF maps, so the order is an ABI.
 */
#define UOA_DIALECTS(X)                                                        \
	X(IPO, "ipo", UOA_ENABLE_IPO)                                          \
	X(OPP, "opp", UOA_ENABLE_OPP)                                          \
	X(BD31, "bd31", UOA_ENABLE_BD)                                         \
	X(BD30, "bd30", UOA_ENABLE_BD)                                         \
	X(BD29, "bd29", UOA_ENABLE_BD)                                         \
	X(PPV2, "ppv2", UOA_ENABLE_PPV2)                                       \
	X(SPP, "spp", UOA_ENABLE_SPP)

enum uoa_dialect {
	UOA_DIALECT_NONE,
#define X(id, name, enable) UOA_DIALECT_##id,
	UOA_DIALECTS(X)
#undef X
	UOA_DIALECT_COUNT
};

/* The switches a user turns on; `bd` is one switch for three dialects. */
#define UOA_SWITCHES(X)                                                        \
	X(IPO, "ipo", 1)                                                       \
	X(OPP, "opp", 2)                                                       \
	X(BD, "bd", 4)                                                         \
	X(PPV2, "ppv2", 8)                                                     \
	X(SPP, "spp", 16)

enum uoa_switch {
#define X(id, name, bit) UOA_ENABLE_##id = bit,
	UOA_SWITCHES(X)
#undef X
};

/* Why a packet yields an address or none: X(identifier, name). */
#define UOA_REASONS(X)                                                         \
	X(FOUND, "found")                                                      \
	X(ABSENT, "absent")                                                    \
	X(MALFORMED, "malformed")                                              \
	X(TRUNCATED, "truncated")                                              \
	X(NOT_IP, "not_ip")                                                    \
	X(NOT_UDP, "not_udp")                                                  \
	X(FRAGMENT, "fragment")                                                \
	X(UNSUPPORTED, "unsupported")                                          \
	X(LOCAL, "local")                                                      \
	X(CHECKSUM, "checksum")                                                \
	X(INVALID_ADDR, "invalid_addr")                                        \
	X(CONFLICT, "conflict")                                                \
	X(UNTRUSTED, "untrusted")

enum uoa_reason {
#define X(id, name) UOA_REASON_##id,
	UOA_REASONS(X)
#undef X
	UOA_REASON_COUNT
};

/*
 * The rule that decided: X(identifier, reason, where it stands, what it says).
 * Each outcome of the parser is one of these, so that a tool can name it.
 */
#define UOA_RULES(X)                                                           \
	X(FOUND, FOUND, "4.2 row 26", "a claim, or several that agree")        \
	X(SHORT, TRUNCATED, "4.2 row 1", "fewer bytes than an IPv4 header")    \
	X(VERSION, NOT_IP, "4.2 row 2", "version nibble neither 4 nor 6")      \
	X(V4_HEADER, MALFORMED, "4.2 row 3",                                   \
	  "IHL below 5, or total length shorter than the header")              \
	X(V4_CUT, TRUNCATED, "4.2 row 4", "buffer shorter than total length")  \
	X(V4_FRAGMENT, FRAGMENT, "4.2 row 6", "fragment offset not 0")         \
	X(V4_PROTOCOL, NOT_UDP, "4.2 row 9", "protocol not UDP")               \
	X(V6_SHORT, TRUNCATED, "4.2 row 10", "fewer bytes than an IPv6 header") \
	X(V6_JUMBO, UNSUPPORTED, "4.2 row 11", "jumbogram")                    \
	X(V6_CUT, TRUNCATED, "4.2 row 12", "buffer shorter than payload length") \
	X(V6_CHAIN, MALFORMED, "4.2 row 13",                                   \
	  "more than 8 extension headers, or one past the payload")            \
	X(V6_HOP_BY_HOP, MALFORMED, "4.2 row 14",                              \
	  "hop-by-hop header not in first place")                              \
	X(V6_ROUTING, UNSUPPORTED, "4.2 row 15",                               \
	  "routing header with segments left")                                 \
	X(V6_FRAGMENT, FRAGMENT, "4.2 row 16", "fragment offset not 0")        \
	X(V6_PROTOCOL, NOT_UDP, "4.2 row 17", "next header not UDP")           \
	X(UDP_HEADER, MALFORMED, "4.2 row 19",                                 \
	  "UDP header cut, or UDP length does not fit")                        \
	X(SENDER, UNTRUSTED, "4.2 row 21", "sender outside the trusted prefixes") \
	X(NO_CLAIM, ABSENT, "4.2 row 23", "no claim of an enabled dialect")    \
	X(ADDRESS, INVALID_ADDR, "4.5 rule A", "address or port can be no client") \
	X(CLAIMS_DIFFER, CONFLICT, "4.2 row 25", "claims disagree")            \
	X(OPTION_LAST_BYTE, MALFORMED, "4.3", "option type in the last byte")  \
	X(OPTION_LENGTH, MALFORMED, "4.3", "option length 0 or 1")             \
	X(OPTION_PAST_END, MALFORMED, "4.3", "option longer than its area")    \
	X(OPTION_SIZE, MALFORMED, "4.3", "address option of an undefined length") \
	X(OPTION_FAMILY, MALFORMED, "4.3",                                     \
	  "operation byte disagrees with the option length")                   \
	X(OPP_SHORT, MALFORMED, "4.4", "fewer than 4 bytes of opp header")     \
	X(OPP_VERSION, MALFORMED, "4.4", "opp version or reserved bits")       \
	X(OPP_LENGTH, MALFORMED, "4.4", "opp length does not fit")             \
	X(OPP_PROTOCOL, NOT_UDP, "4.4", "opp header not in front of UDP")      \
	X(PPV2_SHORT, MALFORMED, "4.6", "PROXY header shorter than 16 bytes")  \
	X(PPV2_FIELDS, MALFORMED, "4.6",                                       \
	  "PROXY version, command, family or transport undefined")             \
	X(PPV2_PAST_END, MALFORMED, "4.6", "PROXY header longer than the payload") \
	X(PPV2_LOCAL, LOCAL, "4.6", "PROXY LOCAL: the proxy speaks for itself") \
	X(PPV2_FAMILY, UNSUPPORTED, "4.6", "PROXY family or transport not UDP/IP") \
	X(PPV2_ADDRESSES, MALFORMED, "4.6", "PROXY header without its addresses") \
	X(PPV2_TLV, MALFORMED, "4.6", "PROXY TLVs do not fill the header")     \
	X(PPV2_CRC_TLV, MALFORMED, "4.6", "PROXY CRC32C TLV: length or repeated") \
	X(PPV2_CRC, CHECKSUM, "4.6", "PROXY CRC32C does not match")            \
	X(SPP_SHORT, MALFORMED, "4.7", "SPP header shorter than 38 bytes")

enum uoa_rule_ordinal {
#define X(id, reason, where, text) UOA_RULE_ORDINAL_##id,
	UOA_RULES(X)
#undef X
	UOA_RULE_COUNT
};

/* The reason sits in the high byte: no table is needed to get from one to the
 * other, which BPF could not hold. */
enum uoa_rule {
#define X(id, reason, where, text)                                             \
	UOA_RULE_##id = UOA_REASON_##reason << 8 | UOA_RULE_ORDINAL_##id,
	UOA_RULES(X)
#undef X
};

UOA_INLINE uoa_u8 uoa_rule_reason(uoa_u16 rule)
{
	return (uoa_u8)(rule >> 8);
}

/* ---- Numbers of the formats, from the RFCs and docs/wire-format.md --------- */

enum {
	UOA_PROTO_UDP = 17,
	UOA_PROTO_OPP = 248,

	UOA_IPV4_HEADER_LEN = 20,
	UOA_IPV6_HEADER_LEN = 40,
	UOA_UDP_HEADER_LEN = 8,
	UOA_OPP_HEADER_LEN = 4,
	UOA_OPP_MAX_LEN = 44,

	UOA_OPT_END = 0, /* IPv4 and opp; the same octet is Pad1 in IPv6 */
	UOA_OPT_NOP = 1, /* IPv4 and opp; PadN in IPv6 */
	UOA_OPT_PAD1 = 0,
	UOA_OPT_PADN = 1,
	UOA_OPT_BD29 = 0x1d,
	UOA_OPT_BD30 = 0x1e,
	UOA_OPT_ADDRESS = 0x1f, /* ipo, opp and bd31; the length tells which */
};

/* ---- Addresses ------------------------------------------------------------- */

UOA_INLINE uoa_u16 uoa_load16(const uoa_u8 *p)
{
	return (uoa_u16)(p[0] << 8 | p[1]);
}

UOA_INLINE uoa_u32 uoa_load32(const uoa_u8 *p)
{
	return (uoa_u32)p[0] << 24 | (uoa_u32)p[1] << 16 | (uoa_u32)p[2] << 8 | p[3];
}

UOA_INLINE void uoa_address_map(uoa_u8 to[16], const uoa_u8 ipv4[4])
{
	__builtin_memset(to, 0, 10);
	to[10] = to[11] = 0xff;
	__builtin_memcpy(to + 12, ipv4, 4);
}

/* Are the first 12 bytes ::ffff:0:0/96? Loops of constant length here and
 * below: clang turns a memcmp() into a call, which BPF cannot make. */
UOA_INLINE int uoa_address_is_mapped(const uoa_u8 a[16])
{
	uoa_u8 rest = (uoa_u8)((a[10] ^ 0xff) | (a[11] ^ 0xff));

	for (int i = 0; i < 10; i++)
		rest |= a[i];
	return rest == 0;
}

UOA_INLINE int uoa_address_equal(const uoa_u8 a[16], const uoa_u8 b[16])
{
	uoa_u8 differ = 0;

	for (int i = 0; i < 16; i++)
		differ |= a[i] ^ b[i];
	return differ == 0;
}

/* Are all bytes but the last zero? (`::` and `::1`, rules 4.5) */
UOA_INLINE int uoa_address_is_small(const uoa_u8 a[16])
{
	uoa_u8 rest = 0;

	for (int i = 0; i < 15; i++)
		rest |= a[i];
	return rest == 0;
}

UOA_INLINE int uoa_address_is_unspecified(const uoa_u8 a[16])
{
	if (uoa_address_is_mapped(a))
		return uoa_load32(a + 12) == 0;
	return uoa_address_is_small(a) && a[15] == 0;
}

UOA_INLINE int uoa_address_is_loopback(const uoa_u8 a[16])
{
	if (uoa_address_is_mapped(a))
		return a[12] == 127;
	return uoa_address_is_small(a) && a[15] == 1;
}

/* Rule A (rules 4.5): can this address and port be a client's, when the
 * datagram came from `sender`? */
UOA_INLINE int uoa_client_is_valid(const uoa_u8 client[16], uoa_u16 port,
				   const uoa_u8 sender[16])
{
	if (port == 0)
		return 0;
	if (uoa_address_is_loopback(client))
		return uoa_address_is_loopback(sender);
	if (uoa_address_is_mapped(client))
		return client[12] != 0 && (client[12] & 0xf0) != 0xe0 &&
		       uoa_load32(client + 12) != 0xffffffff;
	return client[0] != 0xff && !uoa_address_is_unspecified(client);
}

/* ---- Claims ---------------------------------------------------------------- */

/* One claim: who the client is, in the words of one dialect. Families are 4 or
 * 6, as they stood on the wire; 0 for a VIP that the dialect does not carry. */
struct uoa_claim {
	uoa_u8 client[16];
	uoa_u8 vip[16]; /* the address the client sent to */
	uoa_u32 vni;
	uoa_u16 client_port;
	uoa_u16 vip_port;
	uoa_u8 dialect;
	uoa_u8 client_family;
	uoa_u8 vip_family;
	uoa_u8 zero;
};

/* All claims of one packet: the first, and what the others do to it. */
struct uoa_claims {
	struct uoa_claim first;
	uoa_u8 any;
	uoa_u8 invalid;
	uoa_u8 differ;
	uoa_u8 zero;
};

UOA_INLINE void uoa_claims_add(struct uoa_claims *all,
			       const struct uoa_claim *claim,
			       const uoa_u8 sender[16])
{
	if (!uoa_client_is_valid(claim->client, claim->client_port, sender))
		all->invalid = 1;
	if (!all->any)
		all->first = *claim;
	else if (all->first.client_port != claim->client_port ||
		 !uoa_address_equal(all->first.client, claim->client))
		all->differ = 1;
	all->any = 1;
}

/* Rules 4.2, rows 23 to 26. `absent` is the rule when there is no claim. */
UOA_INLINE uoa_u16 uoa_claims_verdict(const struct uoa_claims *all,
				      uoa_u16 absent)
{
	if (!all->any)
		return absent;
	if (all->invalid)
		return UOA_RULE_ADDRESS;
	return all->differ ? UOA_RULE_CLAIMS_DIFFER : UOA_RULE_FOUND;
}

/* ---- One option ------------------------------------------------------------ */

/* Where an option stands decides how its length octet counts and which
 * dialects can be in it. */
enum uoa_area {
	UOA_AREA_IPV4, /* options of an IPv4 header */
	UOA_AREA_OPP,  /* options of an opp header: same form */
	UOA_AREA_IPV6, /* options of a Destination Options header */
};

/* What is behind the two octets, family by family. */
enum uoa_form {
	UOA_FORM_SKIP,
	UOA_FORM_BAD,
	UOA_FORM_ADDRESS4, /* port, address */
	UOA_FORM_ADDRESS6,
	UOA_FORM_BOTH4, /* port, VIP port, address, VIP */
	UOA_FORM_BOTH6,
	UOA_FORM_VNI4, /* VNI, port, padding, address */
	UOA_FORM_VNI6,
};

UOA_INLINE int uoa_form_is_ipo(uoa_u8 form)
{
	return form == UOA_FORM_ADDRESS4 || form == UOA_FORM_ADDRESS6;
}

/* Bytes of each form that carry something. */
enum {
	UOA_FORM_ADDRESS4_LEN = 6,
	UOA_FORM_ADDRESS6_LEN = 18,
	UOA_FORM_BOTH4_LEN = 12,
	UOA_FORM_BOTH6_LEN = 36,
	UOA_FORM_VNI4_LEN = 12,
	UOA_FORM_VNI6_LEN = 24, /* and 4 bytes of padding behind it */
	UOA_FORM_MAX_LEN = 36,
};

/*
 * The form of an option, by its length octet `len` alone: the length decides
 * between ipo and bd31 (rules 1.3), the operation byte of BD on IPv4 is checked
 * against it later. The same bytes stand behind 2 octets of IPv6 option, 2
 * octets of an IPv4 ipo and 4 octets of an IPv4 BD option, hence the sums.
 */
UOA_INLINE uoa_u8 uoa_option_form(uoa_u8 area, uoa_u8 type, uoa_u8 len)
{
	uoa_u8 ipo = area == UOA_AREA_IPV6 ? 0 : 2;
	uoa_u8 bd = area == UOA_AREA_IPV6 ? 0 : 4;

	if (type == UOA_OPT_BD29) {
		if (len == UOA_FORM_VNI4_LEN + bd)
			return UOA_FORM_VNI4;
		return len == UOA_FORM_VNI6_LEN + 4 + bd ? UOA_FORM_VNI6 :
							   UOA_FORM_BAD;
	}
	if (len == UOA_FORM_BOTH4_LEN + bd)
		return UOA_FORM_BOTH4;
	if (len == UOA_FORM_BOTH6_LEN + bd)
		return UOA_FORM_BOTH6;
	if (type == UOA_OPT_ADDRESS && len == UOA_FORM_ADDRESS4_LEN + ipo)
		return UOA_FORM_ADDRESS4;
	if (type == UOA_OPT_ADDRESS && len == UOA_FORM_ADDRESS6_LEN + ipo)
		return UOA_FORM_ADDRESS6;
	return UOA_FORM_BAD;
}

/* Judge ONE option by its two octets (rules 4.3): its form if it is an item of
 * an enabled dialect, else skip or bad. */
UOA_INLINE uoa_u8 uoa_option_judge(uoa_u8 area, uoa_u8 switches, uoa_u8 type,
				   uoa_u8 len)
{
	uoa_u8 form, needs;

	if (type != UOA_OPT_ADDRESS && type != UOA_OPT_BD30 &&
	    type != UOA_OPT_BD29)
		return UOA_FORM_SKIP;
	if (area == UOA_AREA_OPP && type != UOA_OPT_ADDRESS)
		return UOA_FORM_SKIP;

	form = uoa_option_form(area, type, len);
	if (area == UOA_AREA_OPP)
		return uoa_form_is_ipo(form) ? form : (uoa_u8)UOA_FORM_BAD;
	if (uoa_form_is_ipo(form))
		needs = UOA_ENABLE_IPO;
	else if (form == UOA_FORM_BAD && type == UOA_OPT_ADDRESS)
		needs = UOA_ENABLE_IPO | UOA_ENABLE_BD;
	else
		needs = UOA_ENABLE_BD;
	return switches & needs ? form : (uoa_u8)UOA_FORM_SKIP;
}

/* The dialect of an option that uoa_option_judge() took for an item. */
UOA_INLINE uoa_u8 uoa_option_dialect(uoa_u8 area, uoa_u8 type, uoa_u8 form)
{
	if (area == UOA_AREA_OPP)
		return UOA_DIALECT_OPP;
	if (uoa_form_is_ipo(form))
		return UOA_DIALECT_IPO;
	if (type == UOA_OPT_ADDRESS)
		return UOA_DIALECT_BD31;
	return type == UOA_OPT_BD30 ? UOA_DIALECT_BD30 : UOA_DIALECT_BD29;
}

UOA_INLINE int uoa_form_is_ipv6(uoa_u8 form)
{
	return form == UOA_FORM_ADDRESS6 || form == UOA_FORM_BOTH6 ||
	       form == UOA_FORM_VNI6;
}

UOA_INLINE void uoa_claim_address(uoa_u8 to[16], const uoa_u8 *from, int ipv6)
{
	if (ipv6)
		__builtin_memcpy(to, from, 16);
	else
		uoa_address_map(to, from);
}

/* The claim in the `window` behind an item's leading octets. All of the
 * window's UOA_FORM_MAX_LEN bytes are readable; those behind the form's own
 * length are not looked at. */
UOA_INLINE void uoa_option_claim(struct uoa_claim *claim, uoa_u8 dialect,
				 uoa_u8 form, const uoa_u8 *window)
{
	int ipv6 = uoa_form_is_ipv6(form);

	__builtin_memset(claim, 0, sizeof(*claim));
	claim->dialect = dialect;
	claim->client_family = ipv6 ? 6 : 4;
	switch (form) {
	case UOA_FORM_VNI4:
	case UOA_FORM_VNI6:
		claim->vni = uoa_load32(window);
		claim->client_port = uoa_load16(window + 4);
		uoa_claim_address(claim->client, window + 8, ipv6);
		break;
	case UOA_FORM_BOTH4:
	case UOA_FORM_BOTH6:
		claim->client_port = uoa_load16(window);
		claim->vip_port = uoa_load16(window + 2);
		claim->vip_family = claim->client_family;
		uoa_claim_address(claim->client, window + 4, ipv6);
		uoa_claim_address(claim->vip, window + (ipv6 ? 20 : 8), ipv6);
		break;
	default:
		claim->client_port = uoa_load16(window);
		uoa_claim_address(claim->client, window + 2, ipv6);
		break;
	}
}

/* One option on its way from the packet to the claims. */
struct uoa_option {
	uoa_u8 sender[16];
	uoa_u8 window[UOA_FORM_MAX_LEN]; /* what is behind the leading octets */
};

/* Add the claim of ONE option that uoa_option_judge() took for an item. */
UOA_INLINE void uoa_option_add(struct uoa_claims *all,
			       const struct uoa_option *option, uoa_u8 area,
			       uoa_u8 type, uoa_u8 form)
{
	struct uoa_claim claim;

	uoa_option_claim(&claim, uoa_option_dialect(area, type, form), form,
			 option->window);
	UOA_IN_MEMORY(&claim);
	uoa_claims_add(all, &claim, option->sender);
}

/* ---- One header ------------------------------------------------------------ */

/* Judge the 4 bytes of an opp header in front of `left` bytes, itself included
 * (rules 4.4). 0: it can be taken out. */
UOA_INLINE uoa_u16 uoa_opp_judge(const uoa_u8 window[4], uoa_u32 left)
{
	uoa_u16 opp_len = uoa_load16(window + 2);

	if (window[0] != 0x10 && window[0] != 0x20)
		return UOA_RULE_OPP_VERSION;
	if (opp_len < UOA_OPP_HEADER_LEN || opp_len % 4 != 0 ||
	    opp_len > UOA_OPP_MAX_LEN || opp_len > left)
		return UOA_RULE_OPP_LENGTH;
	return window[1] == UOA_PROTO_UDP ? 0 : UOA_RULE_OPP_PROTOCOL;
}

enum {
	UOA_EXT_HOP_BY_HOP = 0,
	UOA_EXT_ROUTING = 43,
	UOA_EXT_FRAGMENT = 44,
	UOA_EXT_AUTH = 51,
	UOA_EXT_DST_OPTS = 60,
	UOA_EXT_MAX = 8, /* headers in one packet */
};

UOA_INLINE int uoa_ext_is_header(uoa_u8 next_header)
{
	switch (next_header) {
	case UOA_EXT_HOP_BY_HOP:
	case UOA_EXT_ROUTING:
	case UOA_EXT_FRAGMENT:
	case UOA_EXT_AUTH:
	case UOA_EXT_DST_OPTS:
	case 135: /* mobility */
	case 139: /* host identity */
	case 140: /* shim6 */
		return 1;
	default:
		return 0;
	}
}

/* Bytes of the extension header of type `type` (rules 4.2 row 14). */
UOA_INLINE uoa_u32 uoa_ext_len(uoa_u8 type, const uoa_u8 window[8])
{
	switch (type) {
	case UOA_EXT_FRAGMENT:
		return 8;
	case UOA_EXT_AUTH:
		return (window[1] + 2u) * 4;
	default:
		return (window[1] + 1u) * 8;
	}
}

/* Judge ONE extension header by its first 8 bytes: `left` bytes of payload
 * begin with it (rules 4.2 rows 13 to 16). 0: go on behind it. */
UOA_INLINE uoa_u16 uoa_ext_judge(uoa_u8 type, const uoa_u8 window[8],
				 uoa_u32 left, int is_first)
{
	if (uoa_ext_len(type, window) > left)
		return UOA_RULE_V6_CHAIN;
	if (type == UOA_EXT_HOP_BY_HOP && !is_first)
		return UOA_RULE_V6_HOP_BY_HOP;
	if (type == UOA_EXT_ROUTING && window[3] != 0)
		return UOA_RULE_V6_ROUTING;
	if (type == UOA_EXT_FRAGMENT && uoa_load16(window + 2) >> 3 != 0)
		return UOA_RULE_V6_FRAGMENT;
	return 0;
}

#endif /* UOA_WIRE_H */
