/* SPDX-License-Identifier: MIT */
/* The asking half of the getsockopt() requests: questions to the kernel's table,
 * whoever keeps it there. */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include <uoa/uapi.h>

#include "ask.h"

static int call(const struct uoa_asker *asker, union uoa_sockopt_buffer *buffer,
		socklen_t len)
{
	socklen_t got = len;

	if (getsockopt(asker->fd, UOA_REQUEST_LEVEL, (int)asker->request, buffer,
		       &got))
		return -errno;
	return got == len ? 0 : -ENOPROTOOPT; /* another layout than ours */
}

/* Request 2051: addresses are 16 bytes, and it says when it cannot tell. */
static int ask_flow(const struct uoa_asker *asker, const struct uoa_addr *peer,
		    const struct uoa_addr *local, struct uoa_claim *claim,
		    uint64_t *age)
{
	union uoa_sockopt_buffer buffer = { .flow = { .version = UOA_FLOW_VERSION } };
	struct uoa_sockopt_flow *flow = &buffer.flow;
	int error;

	memcpy(flow->peer, peer->host, sizeof(flow->peer));
	memcpy(flow->local, local->host, sizeof(flow->local));
	flow->peer_port = uoa_to_be16(peer->port);
	flow->local_port = uoa_to_be16(local->port);
	error = call(asker, &buffer, sizeof(*flow));
	if (error)
		return error;
	memcpy(claim->client, flow->client, sizeof(claim->client));
	claim->client_port = uoa_from_be16(flow->client_port);
	memcpy(claim->vip, flow->vip, sizeof(claim->vip));
	claim->vip_port = uoa_from_be16(flow->vip_port);
	claim->vni = flow->vni;
	claim->dialect = flow->dialect < UOA_DIALECT_COUNT ? flow->dialect : 0;
	*age = flow->age * (uint64_t)1000000;
	return 0;
}

/* Request 2048 with 58 bytes: an address of its family's size, no dialect, no
 * VIP, no age; the newest of several clients. */
static int ask_dpvs(const struct uoa_asker *asker, const struct uoa_addr *peer,
		    const struct uoa_addr *local, struct uoa_claim *claim,
		    uint64_t *age)
{
	union uoa_sockopt_buffer buffer = { .dpvs = { .af = UOA_FAMILY_INET6 } };
	struct uoa_sockopt_dpvs *dpvs = &buffer.dpvs;
	int ipv6 = !uoa_address_is_mapped(peer->host);
	int error;

	if (!ipv6)
		dpvs->af = UOA_FAMILY_INET;
	uoa_sockopt_address(dpvs->saddr, peer->host, ipv6);
	if (ipv6 != uoa_address_is_mapped(local->host))
		uoa_sockopt_address(dpvs->daddr, local->host, ipv6);
	dpvs->sport = uoa_to_be16(peer->port);
	dpvs->dport = uoa_to_be16(local->port);
	error = call(asker, &buffer, sizeof(*dpvs));
	if (error)
		return error;
	if (dpvs->real_af != UOA_FAMILY_INET && dpvs->real_af != UOA_FAMILY_INET6)
		return -ENOENT;
	uoa_claim_address(claim->client, dpvs->real_saddr,
			  dpvs->real_af == UOA_FAMILY_INET6);
	claim->client_port = uoa_from_be16(dpvs->real_sport);
	*age = UOA_AGE_UNKNOWN;
	return 0;
}

int uoa_ask(const struct uoa_asker *asker, const struct uoa_addr *peer,
	    const struct uoa_addr *local, struct uoa_claim *claim, uint64_t *age)
{
	memset(claim, 0, sizeof(*claim));
	return asker->request == UOA_REQUEST_FLOW ?
		       ask_flow(asker, peer, local, claim, age) :
		       ask_dpvs(asker, peer, local, claim, age);
}

/* A flow that nobody has: who answers says ENOENT. */
int uoa_asker_init(struct uoa_asker *asker, int fd)
{
	static const uint32_t requests[] = { UOA_REQUEST_FLOW, UOA_REQUEST_DPVS };
	const struct uoa_addr nobody = { .host = { [10] = 0xff, [11] = 0xff } };
	struct uoa_claim claim;
	uint64_t age;
	int error = -ENOPROTOOPT;

	asker->fd = fd;
	for (int i = 0; i < 2 && error == -ENOPROTOOPT; i++) {
		asker->request = requests[i];
		error = uoa_ask(asker, &nobody, &nobody, &claim, &age);
	}
	if (error == -ENOENT)
		return 0;
	return error == -EBADF || error == -ENOTSOCK ? error : -ENOPROTOOPT;
}
