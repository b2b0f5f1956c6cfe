/* SPDX-License-Identifier: MIT */
#ifndef UOA_SRC_RESOLVER_H
#define UOA_SRC_RESOLVER_H

#include <uoa/uoa.h>

/* For a batch: uoa_resolve() with the lock already held. */
void uoa_resolver_lock(struct uoa_resolver *resolver);
void uoa_resolver_unlock(struct uoa_resolver *resolver);
uint32_t uoa_resolve_locked(struct uoa_resolver *resolver,
			    const struct uoa_evidence *evidence, uint64_t now,
			    struct uoa_client *client);
void uoa_resolver_count(struct uoa_resolver *resolver, uint32_t counter);

#endif
