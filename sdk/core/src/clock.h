/* SPDX-License-Identifier: MIT */
/* The clock of the shells around sockets; the tables are told the time. */
#ifndef UOA_SRC_CLOCK_H
#define UOA_SRC_CLOCK_H

#include <stdint.h>
#include <time.h>

static inline uint64_t uoa_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

#endif
