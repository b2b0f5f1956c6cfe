/* SPDX-License-Identifier: MIT */
/* The walk of wire_walk.h over memory: what user space supplies to it. */
#ifndef UOA_SRC_WALK_H
#define UOA_SRC_WALK_H

#include <string.h>

#include <uoa/wire.h>

static inline int uoa_wire_read(const void *ctx, uoa_u32 off, void *to, uoa_u32 n)
{
	memcpy(to, (const uoa_u8 *)ctx + off, n);
	return 0;
}

#include <uoa/wire_walk.h>

#endif
