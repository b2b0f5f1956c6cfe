/* SPDX-License-Identifier: MIT */
#ifndef UOA_SRC_RESOLVER_H
#define UOA_SRC_RESOLVER_H

#include <uoa/uoa.h>

/* For a batch: with the resolver already held. */
uint32_t uoa_resolve_locked(struct uoa_resolver *resolver,
			    const struct uoa_evidence *evidence, uint64_t now,
			    struct uoa_client *client);
void uoa_resolver_count(struct uoa_resolver *resolver, uint32_t counter,
			uint64_t count);

/* The kernel's count of datagrams that a socket lost was `before` when a receiver
 * read it last, and is `drops` now. What another receiver of this socket has
 * counted in between is not counted again. `socket` is the kernel's number of it. */
void uoa_resolver_count_drops(struct uoa_resolver *resolver, uint64_t socket,
			      uint32_t before, uint32_t drops);

/* The backend that the dialects of this resolver ask for (enum uoa_backend). */
uint32_t uoa_resolver_backend(const struct uoa_resolver *resolver);


#endif
