/* SPDX-License-Identifier: MIT */
/*
 * The reverse table: through which peers a client is reached, for replies to
 * addresses that have lost, or never had, their peer. Bounded, least recently
 * used out first. It does no I/O, takes no lock and reads no clock.
 *
 * Only resolved datagrams of trusted peers enter it; a direct datagram takes its
 * sender out (design: nobody may steer the replies of a direct client).
 */
#ifndef UOA_SRC_REVERSE_H
#define UOA_SRC_REVERSE_H

#include <uoa/uoa.h>

/* One peer that a client came through. */
struct uoa_way {
	struct uoa_addr peer;
	struct uoa_addr local;
	struct uoa_addr vip;
	uint64_t first; /* when it was first heard from with this client */
	uint64_t heard; /* and last */
	uint32_t is_spp;
	uint32_t vni;
};

struct uoa_reverse;

int uoa_reverse_new(struct uoa_reverse **reverse, const struct uoa_config *config);
void uoa_reverse_free(struct uoa_reverse *reverse);

/* A trusted peer has named this client, in the datagram that came now. */
void uoa_reverse_learn(struct uoa_reverse *reverse,
		       const struct uoa_client *client, uint64_t now);

/* This address has sent to the local port by itself. */
void uoa_reverse_forget(struct uoa_reverse *reverse, const struct uoa_addr *direct,
			uint16_t local_port);

/*
 * The way to a client, or NULL. `own`, unless NULL, is what the reply's address
 * came with. Its peer is kept if it was heard from after the newest of the
 * client's peers was first seen, or is that, because then the client uses both;
 * if not, the balancer has moved the client to another port. Otherwise it is the
 * peer that was last heard from. Peers that have left `trust` are not used, nor
 * those of another virtual network than `own`, where the address is another host's.
 */
const struct uoa_way *uoa_reverse_find(struct uoa_reverse *reverse,
				       const struct uoa_trust *trust,
				       const struct uoa_addr *client,
				       uint16_t local_port,
				       const struct uoa_client *own, uint64_t now);

#endif
