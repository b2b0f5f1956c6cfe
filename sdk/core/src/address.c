/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <netinet/in.h>
#include <string.h>

#include "address.h"

void uoa_addr_from_sockaddr(struct uoa_addr *addr, const void *sockaddr)
{
	const struct sockaddr_in *in = sockaddr;
	const struct sockaddr_in6 *in6 = sockaddr;

	memset(addr, 0, sizeof(*addr));
	if (in->sin_family == AF_INET) {
		uoa_address_map(addr->host, (const uint8_t *)&in->sin_addr);
		addr->port = ntohs(in->sin_port);
	} else if (in->sin_family == AF_INET6) {
		memcpy(addr->host, &in6->sin6_addr, 16);
		addr->port = ntohs(in6->sin6_port);
		if (IN6_IS_ADDR_LINKLOCAL(&in6->sin6_addr))
			addr->scope = in6->sin6_scope_id;
	}
}

int uoa_addr_to_sockaddr(const struct uoa_addr *addr, int family,
			 struct sockaddr_storage *sockaddr)
{
	struct sockaddr_in *in = (struct sockaddr_in *)sockaddr;
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)sockaddr;

	if (family == AF_INET6) {
		memset(in6, 0, sizeof(*in6));
		in6->sin6_family = AF_INET6;
		in6->sin6_port = htons(addr->port);
		in6->sin6_scope_id = addr->scope;
		memcpy(&in6->sin6_addr, addr->host, 16);
		return sizeof(*in6);
	}
	if (!uoa_address_is_mapped(addr->host))
		return -EAFNOSUPPORT;
	memset(in, 0, sizeof(*in));
	in->sin_family = AF_INET;
	in->sin_port = htons(addr->port);
	memcpy(&in->sin_addr, addr->host + 12, 4);
	return sizeof(*in);
}
