/* SPDX-License-Identifier: MIT */
/*
 * An echo server that answers each datagram with the client it came from.
 *
 *	cc echo.c $(pkg-config --cflags --libs uoa) -o echo
 *	./echo --listen 0.0.0.0:9999 --trust 10.0.0.0/24
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <getopt.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <uoa/uoa.h>

enum {
	ROOM = 65535, /* any datagram fits */
	SHOWN_MAX = INET6_ADDRSTRLEN + sizeof("[%4294967295]:65535"),
	LINE_MAX_LEN = 2 * SHOWN_MAX + sizeof("client  via  source=sockopt"),
};

/* ---- What the command line says ---------------------------------------------- */

static int listen_on(char *where)
{
	const struct addrinfo hints = { .ai_socktype = SOCK_DGRAM, .ai_flags = AI_PASSIVE };
	char *colon = strrchr(where, ':'), *host = where;
	struct addrinfo *found;
	int fd, error;

	if (!colon)
		errx(1, "--listen %s: not HOST:PORT", where);
	*colon = 0;
	if (*host == '[' && colon[-1] == ']') {
		colon[-1] = 0;
		host++;
	}
	error = getaddrinfo(*host ? host : NULL, colon + 1, &hints, &found);
	if (error)
		errx(1, "--listen: %s port %s: %s", host, colon + 1, gai_strerror(error));
	fd = socket(found->ai_family, SOCK_DGRAM, 0);
	if (fd < 0 || bind(fd, found->ai_addr, found->ai_addrlen))
		err(1, "--listen: %s port %s", host, colon + 1);
	freeaddrinfo(found);
	return fd;
}

static struct uoa_trust *trust_in(const char *prefixes)
{
	struct uoa_trust *trust;
	char *list = strdup(prefixes);
	int error = list ? uoa_trust_new(&trust) : -ENOMEM;

	if (error)
		errx(1, "%s", strerror(-error));
	for (char *prefix = strtok(list, ", "); prefix; prefix = strtok(NULL, ", ")) {
		error = uoa_trust_add(trust, prefix);
		if (error == -EDOM)
			errx(1, "--trust %s: bits are set behind the prefix length", prefix);
		if (error == -EINVAL)
			errx(1, "--trust %s: not a prefix such as 10.0.0.0/24", prefix);
		if (error)
			errx(1, "--trust %s: %s", prefix, strerror(-error));
	}
	free(list);
	return trust;
}

static uint32_t backend_of(const char *name)
{
	if (!strcmp(name, "auto"))
		return UOA_BACKEND_AUTO;
	for (uint32_t backend = UOA_BACKEND_CMSG; backend <= UOA_BACKEND_SOCKOPT; backend++)
		if (!strcmp(name, uoa_source_name(backend)))
			return backend;
	errx(1, "--backend %s: none of auto, cmsg, proxy, sockopt", name);
}

static struct uoa_resolver *resolver_of(const char *dialect, struct uoa_trust *trust)
{
	const struct uoa_config config = {
		.switches = uoa_switch_bit(dialect),
		.max_flows = 262144,
		.ttl = 360 * UINT64_C(1000000000),
	};
	struct uoa_resolver *resolver;
	int error;

	if (!config.switches)
		errx(1, "--dialect %s: none of ipo, opp, bd, ppv2, spp", dialect);
	error = uoa_resolver_new(&resolver, &config);
	if (error)
		errx(1, "resolver: %s", strerror(-error));
	uoa_resolver_set_trust(resolver, trust);
	return resolver;
}

/* ---- Datagrams in, lines out --------------------------------------------------- */

/* HOST:PORT, an IPv6 host in brackets. */
static const char *show(const struct uoa_addr *address, char text[SHOWN_MAX])
{
	static const uint8_t ipv4[12] = { [10] = 0xff, [11] = 0xff };
	char host[INET6_ADDRSTRLEN], scope[sizeof("%4294967295")] = "";

	if (!memcmp(address->host, ipv4, sizeof(ipv4))) {
		inet_ntop(AF_INET, address->host + sizeof(ipv4), host, sizeof(host));
		snprintf(text, SHOWN_MAX, "%s:%u", host, address->port);
		return text;
	}
	inet_ntop(AF_INET6, address->host, host, sizeof(host));
	if (address->scope)
		snprintf(scope, sizeof(scope), "%%%u", address->scope);
	snprintf(text, SHOWN_MAX, "[%s%s]:%u", host, scope, address->port);
	return text;
}

static void answer(struct uoa_sender *sender, const struct uoa_reply *replies, uint32_t n)
{
	while (n) {
		int sent = uoa_sendmmsg(sender, replies, n, 0);

		if (sent < 0) {
			warnx("an answer was refused: %s", strerror(-sent));
			sent = 1; /* go on behind it */
		}
		replies += sent;
		n -= (uint32_t)sent;
	}
}

static void serve(struct uoa_receiver *receiver, struct uoa_sender *sender)
{
	static uint8_t data[UOA_BATCH][ROOM];
	static char lines[UOA_BATCH][LINE_MAX_LEN];
	struct uoa_slot slots[UOA_BATCH];
	struct uoa_reply replies[UOA_BATCH];
	char client[SHOWN_MAX], peer[SHOWN_MAX];

	for (int i = 0; i < UOA_BATCH; i++)
		slots[i] = (struct uoa_slot){ .data = data[i], .room = ROOM };
	for (;;) {
		int n = uoa_recvmmsg(receiver, slots, UOA_BATCH, MSG_WAITFORONE);

		if (n < 0)
			errx(1, "receiving: %s", strerror(-n));
		for (int i = 0; i < n; i++) {
			const struct uoa_client *from = &slots[i].client;

			snprintf(lines[i], LINE_MAX_LEN, "client %s via %s source=%s",
				 show(&from->client, client), show(&from->peer, peer),
				 uoa_source_name(from->source));
			puts(lines[i]);
			replies[i] = (struct uoa_reply){ lines[i], from,
							 (uint32_t)strlen(lines[i]) };
		}
		fflush(stdout);
		answer(sender, replies, (uint32_t)n);
	}
}

_Noreturn static void usage(int status)
{
	fprintf(status ? stderr : stdout,
		"usage: %s [--listen HOST:PORT] --trust CIDR[,CIDR...]\n"
		"       [--backend NAME] [--dialect NAME]\n",
		program_invocation_short_name);
	exit(status);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "listen", required_argument, NULL, 'l' },
		{ "trust", required_argument, NULL, 't' },
		{ "backend", required_argument, NULL, 'b' },
		{ "dialect", required_argument, NULL, 'd' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	static char localhost[] = "127.0.0.1:9999";
	const char *trust = getenv("UOA_TRUST"), *backend = "auto", *dialect = NULL;
	char *listen = localhost;
	struct uoa_resolver *resolver;
	struct uoa_receiver *receiver;
	struct uoa_sender *sender;
	uint32_t chosen;
	int option, fd, error;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case 'l': listen = optarg; break;
		case 't': trust = optarg; break;
		case 'b': backend = optarg; break;
		case 'd': dialect = optarg; break;
		case 'h': usage(0);
		default: usage(2);
		}
	}
	if (optind < argc)
		usage(2);
	if (!trust)
		errx(1, "no --trust: name your balancers, or set UOA_TRUST");

	chosen = backend_of(backend);
	if (!dialect)
		dialect = chosen == UOA_BACKEND_PROXY ? "ppv2" : "ipo";
	resolver = resolver_of(dialect, trust_in(trust));
	fd = listen_on(listen);
	error = uoa_receiver_new(&receiver, fd, resolver, chosen);
	if (error == -ENOPROTOOPT)
		errx(1, "--backend %s: nothing in this kernel knows clients", backend);
	if (!error)
		error = uoa_sender_new(&sender, fd, resolver);
	if (error)
		errx(1, "backend %s, dialect %s: %s", backend, dialect, strerror(-error));
	puts("ready");
	fflush(stdout);
	serve(receiver, sender);
}
