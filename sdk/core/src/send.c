/* SPDX-License-Identifier: MIT */
/* The send path: where a reply goes, and one sendmmsg() for many of them. A
 * queue holds copies of datagrams until they are flushed. */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <uoa/uoa.h>

#include "address.h"
#include "clock.h"

enum {
	DATAGRAM_MAX = 65535,
	QUEUE_BYTES = 4 * 65536, /* 64 datagrams of a usual size, or 4 of any */
	CONTROL_ROOM = CMSG_SPACE(sizeof(struct in6_pktinfo)),
};

/* All that one message of sendmmsg() points to, but for the payload. */
struct envelope {
	struct sockaddr_storage name;
	struct iovec iov[2]; /* a header of ours, the payload */
	uint8_t header[UOA_REPLY_HEADER_MAX];
	_Alignas(struct cmsghdr) uint8_t control[CONTROL_ROOM];
};

struct uoa_sender {
	int fd;
	int family;
	int is_wildcard; /* replies name the address they leave from */
	uint16_t local_port;
	struct uoa_resolver *resolver; /* may be NULL */
	atomic_flag is_busy;
	uint32_t first; /* queued: [first, end) */
	uint32_t end;
	uint32_t bytes; /* of `data` in use */
	struct mmsghdr messages[UOA_BATCH];
	struct envelope envelopes[UOA_BATCH];
	uint8_t data[QUEUE_BYTES];
};

int uoa_sender_new(struct uoa_sender **sender, int fd, struct uoa_resolver *resolver)
{
	struct uoa_sender *tx = calloc(1, sizeof(*tx));
	struct sockaddr_storage bound;
	socklen_t len = sizeof(bound);
	struct uoa_addr local;

	if (!tx)
		return -ENOMEM;
	if (getsockname(fd, (struct sockaddr *)&bound, &len)) {
		int error = -errno;

		free(tx);
		return error;
	}
	uoa_addr_from_sockaddr(&local, &bound);
	tx->fd = fd;
	tx->family = bound.ss_family;
	tx->is_wildcard = uoa_address_is_unspecified(local.host);
	tx->local_port = local.port;
	tx->resolver = resolver;
	atomic_flag_clear(&tx->is_busy);
	*sender = tx;
	return 0;
}

void uoa_sender_free(struct uoa_sender *tx)
{
	free(tx);
}

/* ---- Envelopes ------------------------------------------------------------- */

/* The address a reply leaves from: the one its question came to. */
static void set_source(const struct uoa_sender *tx, struct msghdr *header,
		       uint8_t *control, const struct uoa_addr *from)
{
	struct in6_pktinfo info6 = { .ipi6_ifindex = from->scope };
	struct in_pktinfo info = { 0 };
	struct cmsghdr *c;

	/* An AF_INET6 socket takes an IPv4 source at the IPv4 level. */
	int is_ipv4 = uoa_address_is_mapped(from->host);
	size_t len = is_ipv4 ? sizeof(info) : sizeof(info6);

	if (!is_ipv4 && tx->family != AF_INET6)
		return;
	header->msg_control = control;
	header->msg_controllen = CMSG_SPACE(len);
	c = CMSG_FIRSTHDR(header);
	c->cmsg_len = CMSG_LEN(len);
	if (is_ipv4) {
		c->cmsg_level = IPPROTO_IP;
		c->cmsg_type = IP_PKTINFO;
		memcpy(&info.ipi_spec_dst, from->host + 12, 4);
		memcpy(CMSG_DATA(c), &info, sizeof(info));
	} else {
		c->cmsg_level = IPPROTO_IPV6;
		c->cmsg_type = IPV6_PKTINFO;
		memcpy(&info6.ipi6_addr, from->host, 16);
		memcpy(CMSG_DATA(c), &info6, sizeof(info6));
	}
}

static int can_send_from(const struct uoa_addr *addr)
{
	int is_multicast = addr->host[0] == 0xff;

	return !is_multicast && !uoa_address_is_unspecified(addr->host);
}

/* Address message number `n`; `route` NULL: a connected socket. */
static int address(struct uoa_sender *tx, uint32_t n, const struct uoa_route *route)
{
	struct msghdr *header = &tx->messages[n].msg_hdr;
	struct envelope *e = &tx->envelopes[n];
	int name_len;

	memset(header, 0, sizeof(*header));
	header->msg_iov = &e->iov[1];
	header->msg_iovlen = 1;
	if (!route)
		return 0;
	name_len = uoa_addr_to_sockaddr(&route->to, tx->family, &e->name);
	if (name_len < 0)
		return name_len;
	header->msg_name = &e->name;
	header->msg_namelen = (socklen_t)name_len;
	if (tx->is_wildcard && can_send_from(&route->from))
		set_source(tx, header, e->control, &route->from);
	if (route->header_len) {
		memcpy(e->header, route->header, route->header_len);
		e->iov[0].iov_base = e->header;
		e->iov[0].iov_len = route->header_len;
		header->msg_iov = e->iov;
		header->msg_iovlen = 2;
	}
	return 0;
}

/* ---- The queue ------------------------------------------------------------- */

static int put(struct uoa_sender *tx, const void *data, uint32_t len,
	       const struct uoa_route *route)
{
	struct iovec *iov = &tx->envelopes[tx->end].iov[1];
	int error;

	error = address(tx, tx->end, route);
	if (error)
		return error;
	memcpy(tx->data + tx->bytes, data, len);
	iov->iov_base = tx->data + tx->bytes;
	iov->iov_len = len;
	tx->bytes += len;
	tx->end++;
	return 0;
}

static int has_room(const struct uoa_sender *tx, uint32_t len)
{
	if (len > DATAGRAM_MAX)
		return -EMSGSIZE;
	if (tx->end == UOA_BATCH || len > sizeof(tx->data) - tx->bytes)
		return -ENOBUFS;
	return 0;
}

static int flush(struct uoa_sender *tx)
{
	int error = 0;

	while (tx->first < tx->end && !error) {
		int sent = sendmmsg(tx->fd, tx->messages + tx->first,
				    tx->end - tx->first, MSG_DONTWAIT);

		if (sent >= 0) {
			tx->first += (uint32_t)sent;
		} else if (errno == EAGAIN || errno == EWOULDBLOCK) {
			break;
		} else if (errno != EINTR) {
			error = -errno;
			tx->first++;
		}
	}
	if (tx->first == tx->end)
		tx->first = tx->end = tx->bytes = 0;
	return error ? error : (int)(tx->end - tx->first);
}

/* ---- One thread at a time -------------------------------------------------- */

static int enter(struct uoa_sender *tx)
{
	return atomic_flag_test_and_set_explicit(&tx->is_busy,
						 memory_order_acquire);
}

static void leave(struct uoa_sender *tx)
{
	atomic_flag_clear_explicit(&tx->is_busy, memory_order_release);
}

int uoa_sender_reply(struct uoa_sender *tx, const void *data, uint32_t len,
		     const struct uoa_client *client)
{
	struct uoa_route route;
	int error;

	if (enter(tx))
		return -EBUSY;
	error = has_room(tx, len);
	if (!error) {
		uoa_route(tx->resolver, client, uoa_now(), &route);
		error = put(tx, data, len, &route);
	}
	leave(tx);
	return error;
}

int uoa_sender_put(struct uoa_sender *tx, const void *data, uint32_t len,
		   const struct uoa_addr *to)
{
	struct uoa_route route = { 0 };
	int error;

	if (enter(tx))
		return -EBUSY;
	error = has_room(tx, len);
	if (!error) {
		if (to && tx->resolver)
			uoa_route_plain(tx->resolver, to, tx->local_port,
					uoa_now(), &route);
		else if (to)
			route.to = *to;
		error = put(tx, data, len, to ? &route : NULL);
	}
	leave(tx);
	return error;
}

int uoa_sender_flush(struct uoa_sender *tx)
{
	int left;

	if (enter(tx))
		return -EBUSY;
	left = flush(tx);
	leave(tx);
	return left;
}

/* What is queued leaves first, so that the envelopes are free. A reply that has no
 * address here is an error only as the first one, as a refusal of the kernel is. */
static int send_replies(struct uoa_sender *tx, const struct uoa_reply *replies,
			uint32_t n, int flags)
{
	struct uoa_route route;
	int error = flush(tx), sent;
	uint32_t ready;

	if (error)
		return error < 0 ? error : -EAGAIN;
	for (ready = 0; ready < n; ready++) {
		struct iovec *iov = &tx->envelopes[ready].iov[1];

		uoa_route(tx->resolver, replies[ready].client, uoa_now(), &route);
		error = address(tx, ready, &route);
		if (error)
			break;
		iov->iov_base = (void *)(uintptr_t)replies[ready].data;
		iov->iov_len = replies[ready].len;
	}
	if (!ready)
		return error;
	sent = sendmmsg(tx->fd, tx->messages, ready, flags);
	return sent < 0 ? -errno : sent;
}

int uoa_sendmmsg(struct uoa_sender *tx, const struct uoa_reply *replies, uint32_t n,
		 int flags)
{
	int sent;

	if (n > UOA_BATCH)
		return -EINVAL;
	if (enter(tx))
		return -EBUSY;
	sent = send_replies(tx, replies, n, flags);
	leave(tx);
	return sent;
}
