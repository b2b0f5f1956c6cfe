/* SPDX-License-Identifier: MIT */
/* The send path: datagrams are copied into a queue, and one sendmmsg() sends
 * what has gathered. */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "address.h"

enum {
	DATAGRAM_MAX = 65535,
	QUEUE_BYTES = 4 * 65536, /* 64 datagrams of a usual size, or 4 of any */
	CONTROL_ROOM = CMSG_SPACE(sizeof(struct in6_pktinfo)),
};

struct uoa_sender {
	int fd;
	int family;
	atomic_flag is_busy;
	uint32_t first; /* queued: [first, end) */
	uint32_t end;
	uint32_t bytes; /* of `data` in use */
	struct sockaddr_storage names[UOA_BATCH];
	struct iovec iov[UOA_BATCH];
	struct mmsghdr messages[UOA_BATCH];
	_Alignas(struct cmsghdr) uint8_t control[UOA_BATCH][CONTROL_ROOM];
	uint8_t data[QUEUE_BYTES];
};

int uoa_sender_new(struct uoa_sender **sender, int fd)
{
	socklen_t len = sizeof((*sender)->family);
	struct uoa_sender *tx = calloc(1, sizeof(*tx));

	if (!tx)
		return -ENOMEM;
	tx->fd = fd;
	if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &tx->family, &len)) {
		free(tx);
		return -errno;
	}
	atomic_flag_clear(&tx->is_busy);
	*sender = tx;
	return 0;
}

void uoa_sender_free(struct uoa_sender *tx)
{
	free(tx);
}

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
	int is_multicast = addr && addr->host[0] == 0xff;

	return addr && !is_multicast && !uoa_address_is_unspecified(addr->host);
}

static int put(struct uoa_sender *tx, const void *data, uint32_t len,
	       const struct uoa_addr *to, const struct uoa_addr *from)
{
	struct msghdr *header = &tx->messages[tx->end].msg_hdr;
	int name_len;

	if (len > DATAGRAM_MAX)
		return -EMSGSIZE;
	if (tx->end == UOA_BATCH || len > sizeof(tx->data) - tx->bytes)
		return -ENOBUFS;
	memset(header, 0, sizeof(*header));
	if (to) {
		name_len = uoa_addr_to_sockaddr(to, tx->family, &tx->names[tx->end]);
		if (name_len < 0)
			return name_len;
		header->msg_name = &tx->names[tx->end];
		header->msg_namelen = (socklen_t)name_len;
	}
	if (can_send_from(from))
		set_source(tx, header, tx->control[tx->end], from);
	memcpy(tx->data + tx->bytes, data, len);
	tx->iov[tx->end].iov_base = tx->data + tx->bytes;
	tx->iov[tx->end].iov_len = len;
	header->msg_iov = &tx->iov[tx->end];
	header->msg_iovlen = 1;
	tx->bytes += len;
	tx->end++;
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

static int enter(struct uoa_sender *tx)
{
	return atomic_flag_test_and_set_explicit(&tx->is_busy,
						 memory_order_acquire);
}

static void leave(struct uoa_sender *tx)
{
	atomic_flag_clear_explicit(&tx->is_busy, memory_order_release);
}

int uoa_sender_put(struct uoa_sender *tx, const void *data, uint32_t len,
		   const struct uoa_addr *to, const struct uoa_addr *from)
{
	int error;

	if (enter(tx))
		return -EBUSY;
	error = put(tx, data, len, to, from);
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
