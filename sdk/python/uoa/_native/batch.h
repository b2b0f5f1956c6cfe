/* SPDX-License-Identifier: MIT */
/*
 * Receiving for Python: one call fills a batch and tells, in flat arrays of
 * integers, what Python needs to slice payloads and to find address objects.
 *
 * Address objects cost more than anything else per datagram, and behind a
 * balancer few of them come back often. So the clients that were seen have
 * numbers, `struct uoa_names`: Python keeps one object a number, and builds a new
 * one only for the numbers listed as fresh.
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

struct uoa_names;
struct uoa_batch;

/* Names without a batch, for datagrams that others have received. NULL: no memory. */
struct uoa_names *uoa_names_new(void);
void uoa_names_free(struct uoa_names *names);
const struct uoa_client *uoa_names_client(const struct uoa_names *names,
					  int32_t number);

/* uoa_resolve() for one datagram that came without ancillary data. Returns the
 * number of its client (31 bits), whether it is fresh (1 bit), and above these how
 * many bytes to take off the payload. */
int64_t uoa_names_resolve(struct uoa_names *names, struct uoa_resolver *resolver,
			  const struct uoa_addr *peer, const struct uoa_addr *local,
			  const struct uoa_asker *asker, const uint8_t *payload,
			  uint32_t len, uint64_t now);

/* Does uoa_route() lead where the datagram came from, without any header? */
int uoa_way_is_own(struct uoa_resolver *resolver, const struct uoa_client *client,
		   uint64_t now);

/* For up to `slots` (at most UOA_BATCH) datagrams at once. The errors are those of
 * uoa_receiver_new(). */
int uoa_batch_new(struct uoa_batch **batch, int fd, struct uoa_resolver *resolver,
		  uint32_t backend, uint32_t slots);
void uoa_batch_free(struct uoa_batch *batch);
uint8_t *uoa_batch_data(struct uoa_batch *batch);
int32_t *uoa_batch_results(struct uoa_batch *batch);
struct uoa_names *uoa_batch_names(struct uoa_batch *batch);

/* Receive what is there. Returns how many datagrams, or negative errno. */
int uoa_batch_receive(struct uoa_batch *batch, int flags);

#endif
