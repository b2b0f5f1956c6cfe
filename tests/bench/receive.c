/* SPDX-License-Identifier: MIT */
/*
 * One variant of receiving, once: `receive bare|uoa HOST none|option`. Fills a
 * socket's buffer and drains it in batches, a few rounds of both, and prints
 * nanoseconds a datagram of the fastest drain: of this process's own time, so that
 * others on a busy machine count for little.
 *
 * With `option` every datagram carries its client in an IP option, which takes
 * CAP_NET_RAW; a buffer that holds them all takes CAP_NET_ADMIN.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include <uoa/uoa.h>

enum {
	DATAGRAMS = 20000,
	ROUNDS = 8,
	SENDERS = 8,
	PAYLOAD = 64,
	ROOM = 2048,
	BUFFER = 256 << 20,
};

static uint8_t data[UOA_BATCH][ROOM];

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* ---- A full socket ----------------------------------------------------------- */

static int receiving_socket(const char *host, struct sockaddr_in *at)
{
	int fd = socket(AF_INET, SOCK_DGRAM, 0), size = BUFFER;
	socklen_t len = sizeof(*at);

	memset(at, 0, sizeof(*at));
	at->sin_family = AF_INET;
	if (fd < 0 || inet_pton(AF_INET, host, &at->sin_addr) != 1 ||
	    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)) ||
	    bind(fd, (struct sockaddr *)at, sizeof(*at)) ||
	    getsockname(fd, (struct sockaddr *)at, &len))
		err(1, "%s", host);
	at->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	return fd;
}

static void make_senders(int senders[SENDERS], const struct sockaddr_in *at, int has_option)
{
	const struct uoa_claim claim = { .dialect = UOA_DIALECT_IPO,
					 .client = { [10] = 0xff, 0xff, 203, 0, 113, 7 },
					 .client_port = 5555 };
	uint8_t option[40];
	int len = uoa_build(UOA_PART_OPTION, &claim, NULL, NULL, NULL, 0, option, sizeof(option));

	for (int i = 0; i < SENDERS; i++) {
		senders[i] = socket(AF_INET, SOCK_DGRAM, 0);
		if (senders[i] < 0 || connect(senders[i], (const void *)at, sizeof(*at)) ||
		    (has_option && setsockopt(senders[i], IPPROTO_IP, IP_OPTIONS, option,
					      (socklen_t)len)))
			err(1, "sender");
	}
}

static void fill(const int senders[SENDERS])
{
	static const uint8_t payload[PAYLOAD];

	for (int i = 0; i < DATAGRAMS; i++)
		if (send(senders[i % SENDERS], payload, PAYLOAD, 0) != PAYLOAD)
			err(1, "send");
}

/* ---- Two ways to drain it ---------------------------------------------------- */

static int drain_bare(int fd)
{
	static struct sockaddr_in names[UOA_BATCH];
	static struct iovec iov[UOA_BATCH];
	static struct mmsghdr messages[UOA_BATCH];
	int got, all = 0;

	for (int i = 0; i < UOA_BATCH; i++)
		iov[i] = (struct iovec){ data[i], ROOM };
	do {
		for (int i = 0; i < UOA_BATCH; i++)
			messages[i].msg_hdr = (struct msghdr){ .msg_name = &names[i],
							       .msg_namelen = sizeof(names[i]),
							       .msg_iov = &iov[i],
							       .msg_iovlen = 1 };
		got = recvmmsg(fd, messages, UOA_BATCH, MSG_DONTWAIT, NULL);
		all += got > 0 ? got : 0;
	} while (got > 0);
	return all;
}

static int drain_uoa(struct uoa_receiver *receiver, int source)
{
	struct uoa_slot slots[UOA_BATCH];
	int got, all = 0;

	for (int i = 0; i < UOA_BATCH; i++)
		slots[i] = (struct uoa_slot){ .data = data[i], .room = ROOM };
	while ((got = uoa_recvmmsg(receiver, slots, UOA_BATCH, MSG_DONTWAIT)) > 0) {
		for (int i = 0; i < got; i++)
			if (slots[i].client.source != source)
				errx(1, "client is %s", uoa_source_name(slots[i].client.source));
		all += got;
	}
	return all;
}

static struct uoa_receiver *receiver_of(int fd)
{
	const struct uoa_config config = { .switches = UOA_ENABLE_IPO,
					   .max_flows = 262144,
					   .ttl = UINT64_MAX / 2 };
	struct uoa_resolver *resolver;
	struct uoa_receiver *receiver;
	struct uoa_trust *trust;

	if (uoa_trust_new(&trust) || uoa_trust_add(trust, "127.0.0.0/8") ||
	    uoa_resolver_new(&resolver, &config))
		errx(1, "no memory");
	uoa_resolver_set_trust(resolver, trust);
	errno = -uoa_receiver_new(&receiver, fd, resolver, UOA_BACKEND_CMSG);
	if (errno)
		err(1, "receiver");
	return receiver;
}

int main(int argc, char **argv)
{
	struct uoa_receiver *receiver = NULL;
	int senders[SENDERS], fd, has_option;
	struct sockaddr_in at;
	uint64_t best = UINT64_MAX;

	if (argc != 4)
		errx(2, "usage: receive bare|uoa HOST none|option");
	has_option = !strcmp(argv[3], "option");
	fd = receiving_socket(argv[2], &at);
	if (!strcmp(argv[1], "uoa"))
		receiver = receiver_of(fd);
	make_senders(senders, &at, has_option);
	for (int round = 0; round < ROUNDS; round++) {
		uint64_t start, taken;
		int got;

		fill(senders);
		start = now();
		got = receiver ? drain_uoa(receiver, has_option ? UOA_SOURCE_CMSG : UOA_SOURCE_NONE) :
				 drain_bare(fd);
		taken = now() - start;
		if (got != DATAGRAMS)
			errx(1, "%d of %d datagrams", got, DATAGRAMS);
		if (taken < best)
			best = taken;
	}
	printf("%.1f\n", (double)best / DATAGRAMS);
	return 0;
}
