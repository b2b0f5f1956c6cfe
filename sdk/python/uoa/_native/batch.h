/* SPDX-License-Identifier: MIT */
/*
 * Receiving for Python: one call fills a batch and tells, in flat arrays of
 * integers, what Python needs to slice payloads and to find address objects.
 *
 * Address objects cost more than anything else per datagram, and behind a
 * balancer few of them come back often. So the batch numbers the clients it has
 * seen: Python keeps one object a number, and builds a new one only for the
 * numbers listed as fresh.
 */
#ifndef UOA_NATIVE_BATCH_H
#define UOA_NATIVE_BATCH_H

#include <uoa/uoa.h>

enum {
	UOA_BATCH_ROOM = 65536, /* of a slot: no datagram is longer */
	UOA_BATCH_NAMES = 4096, /* kept from batch to batch */
	UOA_BATCH_ALL_NAMES = UOA_BATCH_NAMES + UOA_BATCH, /* and spares */
};

/* Results: three arrays of UOA_BATCH, then the fresh names. */
enum {
	UOA_BATCH_START = 0, /* of the payload, in uoa_batch_data() */
	UOA_BATCH_END = UOA_BATCH,
	UOA_BATCH_NAME = 2 * UOA_BATCH, /* the client's number */
	UOA_BATCH_FRESH_COUNT = 3 * UOA_BATCH,
	UOA_BATCH_FRESH, /* numbers whose client is new */
	UOA_BATCH_RESULTS = UOA_BATCH_FRESH + UOA_BATCH,
};

struct uoa_batch;

/* For up to `slots` (at most UOA_BATCH) datagrams at once. The errors are those of
 * uoa_receiver_new(). */
int uoa_batch_new(struct uoa_batch **batch, int fd, struct uoa_resolver *resolver,
		  uint32_t backend, uint32_t slots);
void uoa_batch_free(struct uoa_batch *batch);
uint8_t *uoa_batch_data(struct uoa_batch *batch);
int32_t *uoa_batch_results(struct uoa_batch *batch);
const struct uoa_client *uoa_batch_client(const struct uoa_batch *batch,
					  int32_t number);

/* Receive what is there. Returns how many datagrams, or negative errno. */
int uoa_batch_receive(struct uoa_batch *batch, int flags);

#endif
