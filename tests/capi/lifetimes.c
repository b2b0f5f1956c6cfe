/* SPDX-License-Identifier: MIT */
/*
 * Makes and frees everything that uoa.h has, again and again, with one more
 * allocation succeeding each time: `--wrap` puts the functions at the end of this
 * file in front of malloc() and its like. Sanitizers tell of what is left behind
 * or used too late. In the last round none is left once all is made, so that the
 * datagrams show that they need none. Prints how many allocations there were.
 */
#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <uoa/uoa.h>

static int left = INT_MAX; /* allocations that may still succeed */

static int udp_socket(int family)
{
	const struct sockaddr_in localhost = {
		.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	int fd = socket(family, SOCK_DGRAM, 0);

	assert(fd >= 0);
	assert(family != AF_INET || !bind(fd, (const void *)&localhost, sizeof(localhost)));
	return fd;
}

static int make_trust(struct uoa_trust **trust)
{
	int error = uoa_trust_new(trust);

	if (error)
		return error;
	assert(uoa_trust_add(*trust, "10.0.0.1/8") == -EDOM);
	assert(uoa_trust_add(*trust, "balancer") == -EINVAL);
	error = uoa_trust_add(*trust, "127.0.0.0/8");
	if (!error)
		error = uoa_trust_add(*trust, "::1");
	if (error)
		uoa_trust_free(*trust);
	return error;
}

static int make_resolver(struct uoa_resolver **resolver)
{
	struct uoa_config config = {
		.switches = UOA_ENABLE_PPV2, .once = 1, .max_flows = 2, .ttl = UINT64_MAX / 2,
	};
	int error = uoa_resolver_new(resolver, &config);
	struct uoa_trust *trust;

	for (int i = 0; i < 2 && !error; i++) {
		error = make_trust(&trust);
		if (!error)
			uoa_resolver_set_trust(*resolver, trust); /* frees the one before */
		else
			uoa_resolver_free(*resolver);
	}
	return error;
}

/* Everything that refuses its arguments leaves nothing behind. */
static void refuse(struct uoa_resolver *resolver)
{
	struct uoa_config no_flows = { .switches = UOA_ENABLE_IPO };
	struct uoa_receiver *rx;
	struct uoa_sender *tx;
	struct uoa_resolver *r;
	int other = socket(AF_UNIX, SOCK_DGRAM, 0), fd = udp_socket(AF_INET);

	assert(uoa_resolver_new(&r, &no_flows) == -EINVAL);
	assert(uoa_receiver_new(&rx, -1, resolver, UOA_BACKEND_AUTO) < 0);
	assert(uoa_receiver_new(&rx, other, resolver, UOA_BACKEND_AUTO) < 0);
	assert(uoa_receiver_new(&rx, fd, resolver, 99) < 0);
	assert(uoa_sender_new(&tx, -1, resolver) < 0);
	close(other);
	close(fd);
}

/* More flows than the table may hold, each answered in both ways. */
static void talk(struct uoa_receiver *rx, struct uoa_sender *tx, int fd)
{
	static uint8_t data[UOA_BATCH][256];
	struct uoa_slot slots[UOA_BATCH];
	struct uoa_reply replies[UOA_BATCH];
	struct sockaddr_in at;
	socklen_t len = sizeof(at);
	int peers[4], got;

	assert(!getsockname(fd, (struct sockaddr *)&at, &len));
	for (int i = 0; i < 4; i++) {
		struct uoa_claim claim = { .dialect = UOA_DIALECT_PPV2,
					   .client = { [10] = 0xff, 0xff, 203, 0, 113, 7 },
					   .client_port = (uint16_t)(1000 + i) };
		uint8_t header[64];
		int room = uoa_build(UOA_PART_PAYLOAD, &claim, NULL, NULL, NULL, 0, header,
				     sizeof(header));

		assert(room > 0);
		peers[i] = udp_socket(AF_INET);
		assert(sendto(peers[i], header, (size_t)room, 0, (const void *)&at, len) == room);
	}
	for (int i = 0; i < UOA_BATCH; i++)
		slots[i] = (struct uoa_slot){ .data = data[i], .room = sizeof(data[i]) };
	got = uoa_recvmmsg(rx, slots, UOA_BATCH, MSG_DONTWAIT);
	assert(got == 4);
	for (int i = 0; i < got; i++) {
		assert(slots[i].client.source == UOA_SOURCE_PROXY && slots[i].len == 0);
		replies[i] = (struct uoa_reply){ "hello", &slots[i].client, 5 };
		assert(!uoa_sender_reply(tx, "queued", 6, &slots[i].client));
	}
	assert(uoa_sendmmsg(tx, replies, (uint32_t)got, 0) == got);
	for (int i = 0; i < 4; i++) {
		char answer[16];

		assert(recv(peers[i], answer, sizeof(answer), 0) == 6);
		assert(recv(peers[i], answer, sizeof(answer), 0) == 5);
		close(peers[i]);
	}
	assert(!uoa_sender_reply(tx, "never sent", 10, &slots[0].client));
}

static int live(void)
{
	struct uoa_resolver *resolver;
	struct uoa_receiver *rx = NULL;
	struct uoa_sender *tx = NULL;
	int fd = udp_socket(AF_INET), error = make_resolver(&resolver);

	if (!error) {
		error = uoa_receiver_new(&rx, fd, resolver, UOA_BACKEND_AUTO);
		if (!error)
			error = uoa_sender_new(&tx, fd, resolver);
		if (!error) {
			refuse(resolver);
			talk(rx, tx, fd);
		}
		uoa_sender_free(tx);
		uoa_receiver_free(rx);
		uoa_resolver_free(resolver);
	}
	close(fd);
	return error;
}

int main(void)
{
	int allocations = 0;

	uoa_trust_free(NULL);
	uoa_resolver_free(NULL);
	uoa_receiver_free(NULL);
	uoa_sender_free(NULL);
	assert(!live());
	for (;; allocations++) {
		int error;

		left = allocations;
		error = live();
		left = INT_MAX;
		if (!error)
			break;
		assert(error == -ENOMEM);
	}
	printf("%d\n", allocations);
	return 0;
}

/* ---- Memory that runs out -------------------------------------------------- */

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *old, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *old, size_t size);

void *__wrap_malloc(size_t size)
{
	return left-- > 0 ? __real_malloc(size) : NULL;
}

void *__wrap_calloc(size_t count, size_t size)
{
	return left-- > 0 ? __real_calloc(count, size) : NULL;
}

void *__wrap_realloc(void *old, size_t size)
{
	return left-- > 0 ? __real_realloc(old, size) : NULL;
}
