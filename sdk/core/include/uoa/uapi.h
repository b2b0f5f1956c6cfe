/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * FREESTANDING: the getsockopt() requests that answer "who is the client of
 * this flow?", in and out. docs/socket-options.md has the tables; the comments
 * name its sections.
 *
 * A request is getsockopt(fd, IPPROTO_IP, request, buffer, &len) on any UDP
 * socket of the network namespace; the buffer holds the question and then the
 * answer. The first three requests are those of published modules, so that
 * programs written for them work as they are; 2051 is ours.
 *
 * This is the only code that reads and writes those layouts. Whoever answers
 * (the module, a BPF program, a test) has its own table and calls, in order,
 * uoa_sockopt_layout(), uoa_sockopt_query(), its lookup, uoa_sockopt_reply().
 */
#ifndef UOA_UAPI_H
#define UOA_UAPI_H

#include "wire.h"

typedef uoa_u16 uoa_be16; /* network order */

enum uoa_request {
	UOA_REQUEST_DPVS = 2048, /* 58 bytes, or 18 bytes for the older form */
	UOA_REQUEST_BD1 = 2049,
	UOA_REQUEST_BD2 = 2050,
	UOA_REQUEST_FLOW = 2051,
};

enum {
	UOA_REQUEST_LEVEL = 0, /* IPPROTO_IP, on AF_INET6 sockets too */
	UOA_FAMILY_INET = 2,   /* AF_INET and AF_INET6 of Linux */
	UOA_FAMILY_INET6 = 10,
	UOA_BD_IPV4 = 0,
	UOA_BD_IPV6 = 1,
	UOA_FLOW_VERSION = 1,
	UOA_FLOW_WILDCARD = 1, /* flags: the answer is for a wildcard request */
};

/* 2048, section 2.1. An IPv4 address stands in the first 4 bytes. */
struct uoa_sockopt_dpvs {
	uoa_u16 af; /* host order */
	uoa_u8 saddr[16];
	uoa_u8 daddr[16]; /* all zero: any */
	uoa_be16 sport;
	uoa_be16 dport;
	uoa_u16 real_af; /* out, host order */
	uoa_u8 real_saddr[16]; /* out */
	uoa_be16 real_sport; /* out */
};

/* 2048 with 18 bytes, section 2.2: IPv4 only. */
struct uoa_sockopt_bd0 {
	uoa_u8 saddr[4];
	uoa_u8 daddr[4];
	uoa_u8 sport[2]; /* bytes: the layout has no alignment */
	uoa_u8 dport[2];
	uoa_u8 real_saddr[4]; /* out */
	uoa_u8 real_sport[2]; /* out */
};

/* 2049, section 2.3: the answer, client and VIP, overwrites the question. */
struct uoa_sockopt_bd1 {
	uoa_u32 type; /* host order */
	uoa_be16 sport;
	uoa_be16 dport;
	uoa_u8 addresses[32]; /* 4 + 4 or 16 + 16 bytes */
};

/* 2050, section 2.4: everything but addresses is in host order. */
struct uoa_sockopt_bd2 {
	uoa_u32 type;
	uoa_u32 svni; /* out */
	uoa_u16 sport;
	uoa_u16 dport;
	uoa_u8 addresses[32];
};

/* 2051, section 2.7. Addresses are 16 bytes, IPv4 as mapped. */
struct uoa_sockopt_flow {
	uoa_u16 version; /* host order, UOA_FLOW_VERSION */
	uoa_u16 flags;   /* out, host order */
	uoa_u32 vni;     /* out, host order */
	uoa_u8 peer[16];
	uoa_u8 local[16]; /* :: or 0.0.0.0: any */
	uoa_be16 peer_port;
	uoa_be16 local_port;
	uoa_u8 dialect; /* out, enum uoa_dialect */
	uoa_u8 zero1;   /* out */
	uoa_be16 client_port; /* out */
	uoa_u8 client[16];    /* out */
	uoa_u8 vip[16];       /* out, :: if unknown */
	uoa_be16 vip_port;    /* out, 0 if unknown */
	uoa_u16 zero2;        /* out */
	uoa_u32 age; /* out, host order: milliseconds since learned, saturating */
};

_Static_assert(sizeof(struct uoa_sockopt_dpvs) == 58, "section 2.1");
_Static_assert(sizeof(struct uoa_sockopt_bd0) == 18, "section 2.2");
_Static_assert(sizeof(struct uoa_sockopt_bd1) == 40, "section 2.3");
_Static_assert(sizeof(struct uoa_sockopt_bd2) == 44, "section 2.4");
_Static_assert(sizeof(struct uoa_sockopt_flow) == 88, "section 2.7");

/* Outcomes: X(identifier, errno). The numbers of errno differ between
 * architectures, so whoever answers maps them with its own errno.h. */
#define UOA_SOCKOPT_STATUSES(X)                                                \
	X(NOT_OURS, ENOPROTOOPT)                                               \
	X(INVALID, EINVAL)                                                     \
	X(MISS, ENOENT)                                                        \
	X(SEVERAL, ENOTUNIQ)                                                   \
	X(FAMILY, EAFNOSUPPORT)

enum uoa_sockopt_status {
	UOA_SOCKOPT_OK,
#define X(id, error) UOA_SOCKOPT_##id,
	UOA_SOCKOPT_STATUSES(X)
#undef X
};

enum uoa_sockopt_layout {
	UOA_LAYOUT_NONE,
	UOA_LAYOUT_DPVS,
	UOA_LAYOUT_BD0,
	UOA_LAYOUT_BD1,
	UOA_LAYOUT_BD2,
	UOA_LAYOUT_FLOW,
};

/* Room for any request. */
union uoa_sockopt_buffer {
	struct uoa_sockopt_dpvs dpvs;
	struct uoa_sockopt_bd0 bd0;
	struct uoa_sockopt_bd1 bd1;
	struct uoa_sockopt_bd2 bd2;
	struct uoa_sockopt_flow flow;
};

/* The question, whichever layout it came in. */
struct uoa_query {
	uoa_u8 peer[16];
	uoa_u8 local[16];
	uoa_u16 peer_port;
	uoa_u16 local_port;
	uoa_u8 any_local; /* `local` is not given: a wildcard request */
};

/* What the table knows. `several`: a wildcard question that flows of different
 * clients match; `claim` is then the newest of them. */
struct uoa_answer {
	struct uoa_claim claim;
	uoa_u32 age_ms;
	uoa_u8 several;
};

/* Section 2.6: which layout a call means, and how many bytes it takes. */
UOA_INLINE int uoa_sockopt_layout(int level, int request, uoa_u32 len,
				  uoa_u8 *layout)
{
	*layout = UOA_LAYOUT_NONE;
	if (level != UOA_REQUEST_LEVEL)
		return UOA_SOCKOPT_NOT_OURS;
	switch (request) {
	case UOA_REQUEST_DPVS:
		if (len >= sizeof(struct uoa_sockopt_dpvs))
			*layout = UOA_LAYOUT_DPVS;
		else if (len == sizeof(struct uoa_sockopt_bd0))
			*layout = UOA_LAYOUT_BD0;
		break;
	case UOA_REQUEST_BD1:
		if (len >= sizeof(struct uoa_sockopt_bd1))
			*layout = UOA_LAYOUT_BD1;
		break;
	case UOA_REQUEST_BD2:
		if (len >= sizeof(struct uoa_sockopt_bd2))
			*layout = UOA_LAYOUT_BD2;
		break;
	case UOA_REQUEST_FLOW:
		if (len >= sizeof(struct uoa_sockopt_flow))
			*layout = UOA_LAYOUT_FLOW;
		break;
	default:
		return UOA_SOCKOPT_NOT_OURS;
	}
	return *layout == UOA_LAYOUT_NONE ? UOA_SOCKOPT_INVALID : UOA_SOCKOPT_OK;
}

UOA_INLINE uoa_u32 uoa_sockopt_len(uoa_u8 layout)
{
	switch (layout) {
	case UOA_LAYOUT_DPVS:
		return sizeof(struct uoa_sockopt_dpvs);
	case UOA_LAYOUT_BD0:
		return sizeof(struct uoa_sockopt_bd0);
	case UOA_LAYOUT_BD1:
		return sizeof(struct uoa_sockopt_bd1);
	case UOA_LAYOUT_BD2:
		return sizeof(struct uoa_sockopt_bd2);
	default:
		return sizeof(struct uoa_sockopt_flow);
	}
}

UOA_INLINE uoa_u16 uoa_from_be16(uoa_be16 value)
{
	return uoa_load16((const uoa_u8 *)&value);
}

UOA_INLINE uoa_be16 uoa_to_be16(uoa_u16 value)
{
	uoa_u8 bytes[2] = { (uoa_u8)(value >> 8), (uoa_u8)value };
	uoa_be16 be;

	__builtin_memcpy(&be, bytes, sizeof(be));
	return be;
}

/* Peer and local address of a question, by family. A destination of another
 * family than the source finds nothing, except that zeros of both mean any. */
UOA_INLINE void uoa_query_addresses(struct uoa_query *q, const uoa_u8 *peer,
				    const uoa_u8 *local, int ipv6)
{
	uoa_claim_address(q->peer, peer, ipv6);
	uoa_claim_address(q->local, local, ipv6);
}

/* Read the question. MISS: a family that no flow can have. */
UOA_INLINE int uoa_sockopt_query(uoa_u8 layout,
				 const union uoa_sockopt_buffer *buffer,
				 struct uoa_query *q)
{
	const uoa_u8 *a;
	uoa_u32 type;

	__builtin_memset(q, 0, sizeof(*q));
	switch (layout) {
	case UOA_LAYOUT_DPVS:
		if (buffer->dpvs.af != UOA_FAMILY_INET &&
		    buffer->dpvs.af != UOA_FAMILY_INET6)
			return UOA_SOCKOPT_MISS;
		uoa_query_addresses(q, buffer->dpvs.saddr, buffer->dpvs.daddr,
				    buffer->dpvs.af == UOA_FAMILY_INET6);
		q->peer_port = uoa_from_be16(buffer->dpvs.sport);
		q->local_port = uoa_from_be16(buffer->dpvs.dport);
		break;
	case UOA_LAYOUT_BD0:
		uoa_query_addresses(q, buffer->bd0.saddr, buffer->bd0.daddr, 0);
		q->peer_port = uoa_load16(buffer->bd0.sport);
		q->local_port = uoa_load16(buffer->bd0.dport);
		break;
	case UOA_LAYOUT_BD1:
	case UOA_LAYOUT_BD2:
		type = buffer->bd1.type;
		if (type != UOA_BD_IPV4 && type != UOA_BD_IPV6)
			return UOA_SOCKOPT_MISS;
		a = layout == UOA_LAYOUT_BD1 ? buffer->bd1.addresses :
					       buffer->bd2.addresses;
		uoa_query_addresses(q, a, a + (type == UOA_BD_IPV6 ? 16 : 4),
				    type == UOA_BD_IPV6);
		if (layout == UOA_LAYOUT_BD1) {
			q->peer_port = uoa_from_be16(buffer->bd1.sport);
			q->local_port = uoa_from_be16(buffer->bd1.dport);
		} else {
			q->peer_port = buffer->bd2.sport;
			q->local_port = buffer->bd2.dport;
		}
		break;
	default:
		if (buffer->flow.version != UOA_FLOW_VERSION)
			return UOA_SOCKOPT_INVALID;
		uoa_query_addresses(q, buffer->flow.peer, buffer->flow.local, 1);
		q->peer_port = uoa_from_be16(buffer->flow.peer_port);
		q->local_port = uoa_from_be16(buffer->flow.local_port);
		break;
	}
	q->any_local = (uoa_u8)uoa_address_is_unspecified(q->local);
	return UOA_SOCKOPT_OK;
}

/* An address in its own size at the front of `to`, zeros behind it. */
UOA_INLINE void uoa_sockopt_address(uoa_u8 to[16], const uoa_u8 address[16],
				    int ipv6)
{
	__builtin_memset(to, 0, 16);
	if (ipv6)
		__builtin_memcpy(to, address, 16);
	else
		__builtin_memcpy(to, address + 12, 4);
}

/* Section 2.5: do both addresses lie in the NAT64 /96, so that BD's requests
 * answer in IPv4? */
UOA_INLINE int uoa_answer_is_nat64(const struct uoa_claim *claim,
				   const uoa_u8 *prefix)
{
	uoa_u8 differ = 0;

	if (!prefix || !claim->client_port || !claim->vip_port)
		return 0;
	for (int i = 0; i < 12; i++)
		differ |= (uoa_u8)(claim->client[i] ^ prefix[i]) |
			  (uoa_u8)(claim->vip[i] ^ prefix[i]);
	return differ == 0;
}

/* The addresses of a BD answer, client and VIP. Returns its type. A VIP that
 * is unknown or of the other family is zero. */
UOA_INLINE uoa_u32 uoa_sockopt_bd_addresses(uoa_u8 to[32],
					    const struct uoa_claim *claim,
					    const uoa_u8 *nat64_prefix)
{
	int nat64 = uoa_answer_is_nat64(claim, nat64_prefix);
	int ipv6 = !nat64 && !uoa_address_is_mapped(claim->client);
	uoa_u32 len = ipv6 ? 16 : 4;

	__builtin_memset(to, 0, 32);
	__builtin_memcpy(to, claim->client + 16 - len, len);
	if (nat64 || ipv6 != uoa_address_is_mapped(claim->vip))
		__builtin_memcpy(to + len, claim->vip + 16 - len, len);
	return ipv6 ? UOA_BD_IPV6 : UOA_BD_IPV4;
}

/*
 * Write the answer over the question. `nat64_prefix` is 12 bytes, or NULL when
 * the conversion of section 2.5 is off. Any status but OK leaves the buffer as
 * it was. The answer is uoa_sockopt_len() bytes long.
 */
UOA_INLINE int uoa_sockopt_reply(uoa_u8 layout, const struct uoa_query *q,
				 const struct uoa_answer *answer,
				 const uoa_u8 *nat64_prefix,
				 union uoa_sockopt_buffer *buffer)
{
	const struct uoa_claim *claim = &answer->claim;
	int ipv6 = !uoa_address_is_mapped(claim->client);

	switch (layout) {
	case UOA_LAYOUT_DPVS:
		buffer->dpvs.real_af = ipv6 ? UOA_FAMILY_INET6 : UOA_FAMILY_INET;
		uoa_sockopt_address(buffer->dpvs.real_saddr, claim->client, ipv6);
		buffer->dpvs.real_sport = uoa_to_be16(claim->client_port);
		return UOA_SOCKOPT_OK;
	case UOA_LAYOUT_BD0:
		if (ipv6)
			return UOA_SOCKOPT_FAMILY;
		__builtin_memcpy(buffer->bd0.real_saddr, claim->client + 12, 4);
		buffer->bd0.real_sport[0] = (uoa_u8)(claim->client_port >> 8);
		buffer->bd0.real_sport[1] = (uoa_u8)claim->client_port;
		return UOA_SOCKOPT_OK;
	case UOA_LAYOUT_BD1:
		buffer->bd1.type = uoa_sockopt_bd_addresses(
			buffer->bd1.addresses, claim, nat64_prefix);
		buffer->bd1.sport = uoa_to_be16(claim->client_port);
		buffer->bd1.dport = uoa_to_be16(claim->vip_port);
		return UOA_SOCKOPT_OK;
	case UOA_LAYOUT_BD2:
		buffer->bd2.type = uoa_sockopt_bd_addresses(
			buffer->bd2.addresses, claim, nat64_prefix);
		buffer->bd2.svni = claim->vni;
		buffer->bd2.sport = claim->client_port;
		buffer->bd2.dport = claim->vip_port;
		return UOA_SOCKOPT_OK;
	default:
		if (q->any_local && answer->several)
			return UOA_SOCKOPT_SEVERAL;
		buffer->flow.flags = q->any_local ? UOA_FLOW_WILDCARD : 0;
		buffer->flow.vni = claim->vni;
		buffer->flow.dialect = claim->dialect;
		buffer->flow.zero1 = 0;
		buffer->flow.client_port = uoa_to_be16(claim->client_port);
		__builtin_memcpy(buffer->flow.client, claim->client, 16);
		__builtin_memcpy(buffer->flow.vip, claim->vip, 16);
		buffer->flow.vip_port = uoa_to_be16(claim->vip_port);
		buffer->flow.zero2 = 0;
		buffer->flow.age = answer->age_ms;
		return UOA_SOCKOPT_OK;
	}
}

#endif /* UOA_UAPI_H */
