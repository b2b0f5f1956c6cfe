/* SPDX-License-Identifier: MIT */
#ifndef UOA_SRC_ASK_H
#define UOA_SRC_ASK_H

#include <uoa/uoa.h>

#define UOA_AGE_UNKNOWN UINT64_MAX

/* Ask the kernel who the client of a flow is; an all-zero local host means any.
 * `age` is in nanoseconds, or UOA_AGE_UNKNOWN where the request does not tell it.
 * -ENOENT: it does not know; -ENOTUNIQ: several clients match; other negative
 * errno: nobody answers any more. The answer is not judged. */
int uoa_ask(const struct uoa_asker *asker, const struct uoa_addr *peer,
	    const struct uoa_addr *local, struct uoa_claim *claim, uint64_t *age);

#endif
