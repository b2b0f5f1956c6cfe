/* SPDX-License-Identifier: MIT */
/* The receive path: one recvmmsg() for up to 64 datagrams, whose options arrive
 * beside each payload, and the resolver over all of them under one lock. */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <linux/sock_diag.h>

#include <uoa/uoa.h>

#include "address.h"
#include "clock.h"
#include "resolver.h"

enum {
	/* 40 bytes of IPv4 options and the packet info fit, and what else the
	 * application asked for; IPv6 headers are up to 2 KiB each. */
	CONTROL_ROOM_IPV4 = 512,
	CONTROL_ROOM_IPV6 = 8192,
};

struct uoa_receiver {
	struct uoa_resolver *resolver;
	int fd;
	uint32_t backend;
	struct uoa_asker asker; /* UOA_BACKEND_SOCKOPT */
	uint64_t cookie; /* the kernel's number of the socket */
	uint32_t drops;
	atomic_flag is_busy;
	struct uoa_addr local; /* host all zero: asked for by datagram */
	size_t control_room;
	uint8_t *control; /* UOA_BATCH times control_room */
	struct sockaddr_storage names[UOA_BATCH];
	struct iovec iov[UOA_BATCH];
	struct mmsghdr messages[UOA_BATCH];
};

static int enable(int fd, int level, int option)
{
	int on = 1;

	return setsockopt(fd, level, option, &on, sizeof(on)) ? -errno : 0;
}

/* Ask the kernel for what the resolver needs. An AF_INET6 socket receives IPv4
 * datagrams too unless it is v6-only, and takes IPv4 options in any case. Only
 * the IPv4 packet info has the host's own address for a broadcast datagram. */
static int enable_control(int fd, int family, int wants_options, int is_wildcard)
{
	int error = 0;

	if (wants_options)
		error = enable(fd, IPPROTO_IP, IP_RECVOPTS);
	if (!error && wants_options && family == AF_INET6)
		error = enable(fd, IPPROTO_IPV6, IPV6_RECVDSTOPTS);
	if (!error && is_wildcard && family == AF_INET6)
		error = enable(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO);
	if (!error && is_wildcard)
		error = enable(fd, IPPROTO_IP, IP_PKTINFO);
	return error;
}

static int has_gro(int fd)
{
	socklen_t len = sizeof(int);
	int on = 0;

	return !getsockopt(fd, IPPROTO_UDP, UDP_GRO, &on, &len) && on;
}

/* How many datagrams the socket has lost since it was made, modulo 2^32. */
static uint32_t drops_of(int fd)
{
	uint32_t info[SK_MEMINFO_VARS] = { 0 };
	socklen_t len = sizeof(info);

	return getsockopt(fd, SOL_SOCKET, SO_MEMINFO, info, &len) ?
		       0 :
		       info[SK_MEMINFO_DROPS];
}

static uint64_t cookie_of(int fd)
{
	uint64_t cookie = 0;
	socklen_t len = sizeof(cookie);

	return getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &len) ? 0 : cookie;
}

static int choose_backend(struct uoa_receiver *rx, uint32_t backend)
{
	uint32_t automatic = uoa_resolver_backend(rx->resolver);

	/* The kernel's table may stand in for ancillary data, not for payload. */
	rx->backend = backend ? backend : automatic;
	if (rx->backend == UOA_BACKEND_SOCKOPT && automatic != UOA_BACKEND_PROXY)
		return uoa_asker_init(&rx->asker, rx->fd);
	return rx->backend == automatic ? 0 : -EINVAL;
}

static int prepare(struct uoa_receiver *rx)
{
	struct sockaddr_storage bound;
	socklen_t len = sizeof(bound);
	int is_wildcard;

	if (getsockname(rx->fd, (struct sockaddr *)&bound, &len))
		return -errno;
	if (bound.ss_family != AF_INET && bound.ss_family != AF_INET6)
		return -EAFNOSUPPORT;
	if (has_gro(rx->fd))
		return -EOPNOTSUPP;
	uoa_addr_from_sockaddr(&rx->local, &bound);
	is_wildcard = uoa_address_is_unspecified(rx->local.host);
	if (is_wildcard)
		memset(rx->local.host, 0, sizeof(rx->local.host));
	rx->control_room = bound.ss_family == AF_INET6 ? CONTROL_ROOM_IPV6 :
							 CONTROL_ROOM_IPV4;
	rx->control = malloc(UOA_BATCH * rx->control_room);
	if (!rx->control)
		return -ENOMEM;
	rx->cookie = cookie_of(rx->fd);
	rx->drops = drops_of(rx->fd);
	return enable_control(rx->fd, bound.ss_family,
			      rx->backend != UOA_BACKEND_PROXY, is_wildcard);
}

int uoa_receiver_new(struct uoa_receiver **receiver, int fd,
		     struct uoa_resolver *resolver, uint32_t backend)
{
	struct uoa_receiver *rx = calloc(1, sizeof(*rx));
	int error;

	if (!rx)
		return -ENOMEM;
	rx->fd = fd;
	rx->resolver = resolver;
	atomic_flag_clear(&rx->is_busy);
	error = choose_backend(rx, backend);
	if (!error)
		error = prepare(rx);
	if (error) {
		uoa_receiver_free(rx);
		return error;
	}
	for (unsigned int i = 0; i < UOA_BATCH; i++) {
		struct msghdr *header = &rx->messages[i].msg_hdr;

		header->msg_name = &rx->names[i];
		header->msg_iov = &rx->iov[i];
		header->msg_iovlen = 1;
		header->msg_control = rx->control + i * rx->control_room;
	}
	*receiver = rx;
	return 0;
}

void uoa_receiver_free(struct uoa_receiver *rx)
{
	if (!rx)
		return;
	free(rx->control);
	free(rx);
}

uint32_t uoa_receiver_backend(const struct uoa_receiver *rx)
{
	return rx->backend;
}

static void fill(struct uoa_receiver *rx, struct uoa_slot *slot,
		 struct mmsghdr *message, uint64_t now)
{
	struct uoa_evidence evidence = { .local = rx->local };
	struct msghdr *header = &message->msg_hdr;

	slot->len = message->msg_len < slot->room ? message->msg_len : slot->room;
	slot->is_truncated = (header->msg_flags & MSG_TRUNC) != 0;
	if (slot->is_truncated)
		uoa_resolver_count(rx->resolver, UOA_COUNTER_PAYLOAD_TRUNCATED, 1);
	if (rx->backend == UOA_BACKEND_SOCKOPT)
		evidence.asker = &rx->asker;
	uoa_addr_from_sockaddr(&evidence.peer, header->msg_name);
	evidence.payload = slot->data;
	evidence.payload_len = slot->len;
	evidence.control_truncated = (header->msg_flags & MSG_CTRUNC) != 0;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(header); c;
	     c = CMSG_NXTHDR(header, c))
		uoa_evidence_control(&evidence, c->cmsg_level, c->cmsg_type,
				     CMSG_DATA(c), c->cmsg_len - CMSG_LEN(0));
	slot->offset = uoa_resolve_locked(rx->resolver, &evidence, now,
					  &slot->client);
	slot->len -= slot->offset;
}

int uoa_recvmmsg(struct uoa_receiver *rx, struct uoa_slot *slots, uint32_t n,
		 int flags)
{
	uint64_t now;
	int got;

	if (n > UOA_BATCH)
		return -EINVAL;
	if (atomic_flag_test_and_set_explicit(&rx->is_busy, memory_order_acquire))
		return -EBUSY;
	for (uint32_t i = 0; i < n; i++) {
		struct msghdr *header = &rx->messages[i].msg_hdr;

		rx->iov[i].iov_base = slots[i].data;
		rx->iov[i].iov_len = slots[i].room;
		header->msg_namelen = sizeof(rx->names[i]);
		header->msg_controllen = rx->control_room;
	}
	got = recvmmsg(rx->fd, rx->messages, n, flags, NULL);
	if (got < 0) {
		got = -errno;
	} else {
		uint32_t drops = drops_of(rx->fd);

		now = uoa_now();
		uoa_resolver_hold(rx->resolver);
		uoa_resolver_count_drops(rx->resolver, rx->cookie, rx->drops, drops);
		rx->drops = drops;
		for (int i = 0; i < got; i++)
			fill(rx, &slots[i], &rx->messages[i], now);
		uoa_resolver_release(rx->resolver);
	}
	atomic_flag_clear_explicit(&rx->is_busy, memory_order_release);
	return got;
}
