/* SPDX-License-Identifier: MIT */
#ifndef UOA_SRC_ADDRESS_H
#define UOA_SRC_ADDRESS_H

#include <sys/socket.h>

#include <uoa/uoa.h>

/* Of an AF_INET or AF_INET6 socket address. A scope is kept for link-local
 * addresses only: elsewhere it would tell one host apart from itself. */
void uoa_addr_from_sockaddr(struct uoa_addr *addr, const void *sockaddr);

/* For a socket of `family`. Returns the length, or -EAFNOSUPPORT. */
int uoa_addr_to_sockaddr(const struct uoa_addr *addr, int family,
			 struct sockaddr_storage *sockaddr);

#endif
