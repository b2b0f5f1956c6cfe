/* SPDX-License-Identifier: MIT */
/*
 * libuoa: the client's address of each UDP datagram behind a UOA balancer.
 *
 * Words: `client` is who the traffic came from, `peer` is who physically sent
 * the datagram and whom to answer, `trust` is the set of prefixes whose claims
 * are believed. Functions return 0 or a count, or a negative errno. Objects are
 * opaque and belong to the caller, who frees them; there is no global state.
 * A resolver may be used by several threads at once, a receiver and a sender by
 * one at a time (-EBUSY otherwise).
 *
 * Addresses are 16 bytes in network order, IPv4 as ::ffff:a.b.c.d; ports are in
 * host order; times are CLOCK_MONOTONIC nanoseconds.
 */
#ifndef UOA_UOA_H
#define UOA_UOA_H

#include <stddef.h>
#include <stdint.h>

#include "wire.h" /* dialects, reasons, rules, struct uoa_claim */

#ifdef __cplusplus
extern "C" {
#endif

#define UOA_API __attribute__((visibility("default")))

/* An address and port. `scope` is the interface of a link-local IPv6 address,
 * 0 elsewhere. All zero: not known. */
struct uoa_addr {
	uint8_t host[16];
	uint32_t scope;
	uint16_t port;
	uint16_t zero;
};

/* How a client came to be known: X(identifier, name). */
#define UOA_SOURCES(X)                                                         \
	X(NONE, "none")     /* unknown: a trusted peer made no usable claim */ \
	X(DIRECT, "direct") /* the peer is the client */                      \
	X(CMSG, "cmsg")     /* an option, from ancillary data */               \
	X(PROXY, "proxy")   /* a header in the payload */                      \
	X(SOCKOPT, "sockopt") /* the kernel's table, by getsockopt() */

enum uoa_source {
#define X(id, name) UOA_SOURCE_##id,
	UOA_SOURCES(X)
#undef X
	UOA_SOURCE_COUNT
};

/* Who one datagram came from. With source NONE `client` repeats the peer: it
 * is an answer for a log, never one for access control. */
struct uoa_client {
	struct uoa_addr client;
	struct uoa_addr peer;
	struct uoa_addr local; /* where the datagram arrived */
	struct uoa_addr vip;   /* where the client sent it, if the dialect tells */
	uint64_t learned;      /* when the flow's claim was; 0: no flow has it */
	uint32_t vni;
	uint8_t source;  /* enum uoa_source */
	uint8_t dialect; /* enum uoa_dialect, 0 if none */
	uint8_t zero[2];
};

/* ---- Trust ----------------------------------------------------------------- */

/* A set of prefixes. IPv4 and IPv6 are apart: ::/0 holds no IPv4 address. */
struct uoa_trust;

UOA_API int uoa_trust_new(struct uoa_trust **trust);
UOA_API void uoa_trust_free(struct uoa_trust *trust);

/* Add "10.0.0.0/24", "2001:db8::/32" or a single address. -EINVAL: not a prefix;
 * -EDOM: bits are set behind the prefix length; -ENOMEM. */
UOA_API int uoa_trust_add(struct uoa_trust *trust, const char *prefix);

/* Is the address in one of the prefixes? */
UOA_API int uoa_trust_contains(const struct uoa_trust *trust,
			       const uint8_t address[16]);

/* ---- Resolver: trust, parser and flow table -------------------------------- */

struct uoa_resolver;

enum { UOA_REPLY_HEADER_MAX = 38 };

enum uoa_policy {
	UOA_POLICY_REPLACE, /* a newer claim replaces the flow's client */
	UOA_POLICY_PIN,     /* the first claim stays while the flow is active */
};

struct uoa_config {
	uint32_t switches;  /* enum uoa_switch, or-ed: dialects to read */
	uint32_t policy;    /* enum uoa_policy */
	uint32_t max_flows; /* ceiling; the least recently used leaves first */
	uint32_t once; /* PROXY v2 comes with a flow's first datagrams only */
	uint64_t ttl;     /* a flow without datagrams is forgotten after this */
	uint64_t max_age; /* and any flow after this; 0: never */
};

/* What the resolver counts: X(identifier, name). The reasons of wire.h and a
 * `found_` for each dialect stand behind these, in that order. */
#define UOA_COUNTERS(X)                                                        \
	X(DATAGRAMS, "datagrams")                                              \
	X(CONNECTIONS, "connections") /* of uoa_resolve_stream() */            \
	X(RESOLVED, "resolved")                                                \
	X(DIRECT, "direct")                                                    \
	X(UNKNOWN, "unknown")                                                  \
	X(LEARNED, "learned")           /* flows entered into the table */     \
	X(CHANGED, "changed")           /* claims that differ from the table's */ \
	X(EXPIRED, "expired")                                                  \
	X(EVICTED, "evicted")                                                  \
	X(AMBIGUOUS, "ambiguous") /* lookups that several clients matched */   \
	X(CLAIMS_TRUSTED, "claims_trusted") /* client inside `trust` */        \
	X(EMPTY, "empty") /* no payload: standalone options, headers alone */  \
	X(ASKED, "asked")               /* questions put to the kernel */      \
	X(RECEIVE_DROPS, "receive_drops") /* lost to a full receive buffer */  \
	X(CONTROL_TRUNCATED, "control_truncated")                              \
	X(PAYLOAD_TRUNCATED, "payload_truncated")

enum uoa_counter {
#define X(id, name) UOA_COUNTER_##id,
	UOA_COUNTERS(X)
#undef X
	UOA_COUNTER_REASONS /* the first reason; see uoa_counter_name() */
};

/* Number of counters, and the name of each (NULL past the end). */
UOA_API uint32_t uoa_counter_count(void);
UOA_API const char *uoa_counter_name(uint32_t counter);

/* -EINVAL: no flows allowed, or an unknown policy or dialect; -ENOMEM. */
UOA_API int uoa_resolver_new(struct uoa_resolver **resolver,
			     const struct uoa_config *config);
UOA_API void uoa_resolver_free(struct uoa_resolver *resolver);

/* Take a set over, and free it when another replaces it. Flows learned from
 * peers that are no longer trusted stay in the table but are not used. */
UOA_API void uoa_resolver_set_trust(struct uoa_resolver *resolver,
				    struct uoa_trust *trust);

/* Is this address one of a balancer, whose claims are believed? */
UOA_API int uoa_resolver_trusts(struct uoa_resolver *resolver,
				const uint8_t address[16]);

/* Copy uoa_counter_count() counters; returns the number of live flows. */
UOA_API uint32_t uoa_resolver_counters(struct uoa_resolver *resolver,
				       uint64_t *counters);

/* Which counters left 0 since the last call, as bits: for a log that tells of
 * the first of each kind. */
UOA_API uint64_t uoa_resolver_news(struct uoa_resolver *resolver);

/* Keep other threads out of the resolver, so that fork() copies it in one piece:
 * hold before it, release after it in the parent and in the child. */
UOA_API void uoa_resolver_hold(struct uoa_resolver *resolver);
UOA_API void uoa_resolver_release(struct uoa_resolver *resolver);

/* A socket through which the kernel's table is asked. Any UDP socket of the
 * network namespace will do, in any thread. */
struct uoa_asker {
	int32_t fd;
	uint32_t request; /* enum uoa_request of uapi.h */
};

/* Find out which request the kernel answers on this socket: 2051, else 2048.
 * -ENOPROTOOPT: none; or what getsockopt() says of the socket. */
UOA_API int uoa_asker_init(struct uoa_asker *asker, int fd);

/* What came with one datagram, as far as it is known. Pointers may be NULL. */
struct uoa_evidence {
	struct uoa_addr peer;
	struct uoa_addr local;
	const struct uoa_asker *asker; /* NULL: the claim is in the datagram */
	const uint8_t *options;  /* IPv4 option area (IP_RECVOPTS) */
	const uint8_t *dst_opts; /* IPv6 header in front of UDP */
	const uint8_t *payload;
	uint32_t options_len;
	uint32_t dst_opts_len;
	uint32_t payload_len;
	uint32_t control_truncated; /* ancillary data was cut (MSG_CTRUNC) */
};

/* Take one control message of the datagram into the evidence: options, or the
 * local host. Other messages are left alone. `data` must outlive the evidence. */
UOA_API void uoa_evidence_control(struct uoa_evidence *evidence, int level,
				  int type, const void *data, size_t len);

/* Who sent this datagram? Fills `client`; returns how many bytes of header to
 * take off the payload. A thread's `now` may be a little behind another's.
 *
 * With an asker the kernel is asked, at most once a second for a flow that is
 * known and every 50 ms for one that is not, and at once when the datagram
 * carries options. A flow that is known stays so for as long as its datagrams
 * come within `ttl`, also when the kernel forgets it. */
UOA_API uint32_t uoa_resolve(struct uoa_resolver *resolver,
			     const struct uoa_evidence *evidence, uint64_t now,
			     struct uoa_client *client);

/*
 * Who opened this TCP connection? `data` are the first `n` bytes of the stream,
 * which may begin with one PROXY v2 header; nothing else in libuoa knows TCP.
 * Fills `client` and returns how many bytes of header to take off, or, when more
 * than `n`, how many bytes are wanted: read on, and call again with them all. A
 * trusted peer's header that cannot be used leaves the client unknown. -EBADMSG: it
 * is malformed, so that where it ends is not certain: close the connection.
 * -EOPNOTSUPP: the resolver does not read PROXY v2.
 */
UOA_API int uoa_resolve_stream(struct uoa_resolver *resolver,
			       const struct uoa_addr *peer,
			       const struct uoa_addr *local, const uint8_t *data,
			       uint32_t n, struct uoa_client *client);

/* Who is the client of this flow, as the table knows it, or with an asker the
 * kernel's? An all-zero local host means any. -ENOENT: not known; -ENOTUNIQ:
 * several clients match. */
UOA_API int uoa_lookup(struct uoa_resolver *resolver,
		       const struct uoa_asker *asker, const struct uoa_addr *peer,
		       const struct uoa_addr *local, uint64_t now,
		       struct uoa_client *client);

/* Where a reply goes. */
struct uoa_route {
	struct uoa_addr to;
	struct uoa_addr from; /* the address its question came to; 0: any */
	uint32_t header_len;
	uint8_t header[UOA_REPLY_HEADER_MAX]; /* what SPP wants in front of it */
};

/*
 * The way to the sender of a datagram, `client`, through the peer that it came
 * from, or through a newer one if the balancer has moved it since. A direct or
 * unknown client is answered at its own address, whatever others claim. With
 * `resolver` NULL it is always the peer that the datagram came from.
 */
UOA_API void uoa_route(struct uoa_resolver *resolver,
		       const struct uoa_client *client, uint64_t now,
		       struct uoa_route *route);

/* The way to a plain address, from this local port: through the peer that named
 * it as its client last, or directly. */
UOA_API void uoa_route_plain(struct uoa_resolver *resolver,
			     const struct uoa_addr *address, uint16_t local_port,
			     uint64_t now, struct uoa_route *route);

/* ---- Receiving ------------------------------------------------------------- */

enum { UOA_BATCH = 64 };

struct uoa_receiver;

/* One datagram. The caller owns `data`, `room` bytes of it. */
struct uoa_slot {
	uint8_t *data;
	uint32_t room;
	uint32_t offset; /* out: where the payload begins in `data` */
	uint32_t len;    /* out: its length */
	uint32_t is_truncated; /* out: it was longer than `room` */
	struct uoa_client client; /* out */
};

/* How a receiver learns of clients. AUTO: PROXY if the resolver reads a payload
 * dialect, CMSG if it reads options only, else SOCKOPT. */
enum uoa_backend {
	UOA_BACKEND_AUTO,
	UOA_BACKEND_CMSG = UOA_SOURCE_CMSG,
	UOA_BACKEND_PROXY = UOA_SOURCE_PROXY,
	UOA_BACKEND_SOCKOPT = UOA_SOURCE_SOCKOPT,
};

/* Prepare a bound UDP socket: asks the kernel for options, except for PROXY, and,
 * when the socket is bound to the any address, for the local address. The socket
 * and the resolver must outlive the receiver. -EAFNOSUPPORT: no IP socket;
 * -EOPNOTSUPP: UDP_GRO is on, and a slot holds one datagram, not an aggregate;
 * -ENOPROTOOPT: SOCKOPT, and the kernel does not answer; -EINVAL: no such backend,
 * or it cannot read the resolver's dialects; -ENOMEM; negative errno of
 * getsockname() or setsockopt(). */
UOA_API int uoa_receiver_new(struct uoa_receiver **receiver, int fd,
			     struct uoa_resolver *resolver, uint32_t backend);
UOA_API void uoa_receiver_free(struct uoa_receiver *receiver);

/* The backend at work. */
UOA_API uint32_t uoa_receiver_backend(const struct uoa_receiver *receiver);

/* Receive and resolve up to `n` (at most UOA_BATCH) datagrams with one system
 * call; `flags` as for recvmmsg(). Returns how many, or negative errno. */
UOA_API int uoa_recvmmsg(struct uoa_receiver *receiver, struct uoa_slot *slots,
			 uint32_t n, int flags);

/* ---- Sending --------------------------------------------------------------- */

struct uoa_sender;

/* Prepare a bound UDP socket for replies. With a resolver their way is that of
 * uoa_route(); NULL: the peer that a client came from. Both must outlive the
 * sender. -ENOMEM; negative errno of getsockname(). */
UOA_API int uoa_sender_new(struct uoa_sender **sender, int fd,
			   struct uoa_resolver *resolver);
UOA_API void uoa_sender_free(struct uoa_sender *sender);

/* One reply: to the sender of a datagram. */
struct uoa_reply {
	const void *data;
	const struct uoa_client *client;
	uint32_t len;
};

/* Send up to `n` (at most UOA_BATCH) replies with one system call; `flags` as
 * for sendmmsg(). Returns how many were sent, or negative errno: the first reply
 * was refused. */
UOA_API int uoa_sendmmsg(struct uoa_sender *sender,
			 const struct uoa_reply *replies, uint32_t n, int flags);

/* Queue a copy of a reply to the sender of a datagram. -ENOBUFS: full, flush
 * first; -EMSGSIZE: longer than any datagram; -EAFNOSUPPORT: an IPv6 address on
 * an IPv4 socket. */
UOA_API int uoa_sender_reply(struct uoa_sender *sender, const void *data,
			     uint32_t len, const struct uoa_client *client);

/* The same to a plain address, or to NULL on a connected socket. */
UOA_API int uoa_sender_put(struct uoa_sender *sender, const void *data,
			   uint32_t len, const struct uoa_addr *to);

/* Send what is queued. Returns how many are still queued: the socket takes no
 * more now. Negative errno: the first queued datagram was refused, and is
 * dropped from the queue. */
UOA_API int uoa_sender_flush(struct uoa_sender *sender);

/* ---- Tools: whole packets, names ------------------------------------------- */

/* What the parser makes of a packet (uoa_decode()). */
struct uoa_decoded {
	uint32_t rule; /* enum uoa_rule */
	uint32_t vni;
	uint8_t src[16], dst[16];
	uint8_t client[16], vip[16];
	uint16_t sport, dport, client_port, vip_port;
	uint8_t dialect;
	uint8_t version; /* of the IP header, 0 if there is none */
	uint8_t client_family; /* 4 or 6, as on the wire */
	uint8_t vip_family; /* 0: no VIP */
	uint32_t payload_off, payload_len; /* behind the UDP header */
	uint32_t strip; /* bytes of header in front of the payload */
	uint32_t stripped_len; /* bytes in `stripped` */
	uint8_t reached_opp; /* there is an opp header */
	uint8_t zero[3];
};

/* Judge a packet from its IP header on, by docs/wire-format.md section 4.
 * `trust` NULL: everybody is trusted. `stripped` is NULL or has room for `len`
 * bytes: the packet without its opp header. Returns the reason. */
UOA_API int uoa_decode(const void *packet, uint32_t len, uint32_t switches,
		       const struct uoa_trust *trust, struct uoa_decoded *decoded,
		       uint8_t *stripped);

/* What to build of a claim. */
enum uoa_part {
	UOA_PART_OPTION,   /* the option of an IPv4 header */
	UOA_PART_DST_OPTS, /* the IPv6 Destination Options header */
	UOA_PART_OPP,      /* the opp header with its option */
	UOA_PART_PAYLOAD,  /* the header in front of the payload */
	UOA_PART_LOCAL,    /* the PROXY v2 LOCAL header */
	UOA_PART_PACKET,   /* a whole IP packet */
};

/* Build a part, at most `room` bytes. `src`, `dst` and `payload` are used by
 * UOA_PART_PACKET only. Returns the length; -EINVAL: the dialect has no such
 * form; -EMSGSIZE: it does not fit. */
UOA_API int uoa_build(uint32_t part, const struct uoa_claim *claim,
		      const struct uoa_addr *src, const struct uoa_addr *dst,
		      const void *payload, uint32_t payload_len, uint8_t *to,
		      uint32_t room);

/* Names of enum values of wire.h and this file; NULL for a value that is none.
 * A rule has a place in docs/wire-format.md and a sentence. */
UOA_API const char *uoa_dialect_name(uint32_t dialect);
UOA_API const char *uoa_reason_name(uint32_t reason);
UOA_API const char *uoa_source_name(uint32_t source);
UOA_API const char *uoa_rule_place(uint32_t rule);
UOA_API const char *uoa_rule_text(uint32_t rule);

/* The switch of "ipo", "opp", "bd", "ppv2" or "spp", 0 for another name; and
 * the name of the n-th switch, NULL past the end. */
UOA_API uint32_t uoa_switch_bit(const char *name);
UOA_API const char *uoa_switch_name(uint32_t n);

#ifdef __cplusplus
}
#endif

#endif /* UOA_UOA_H */
