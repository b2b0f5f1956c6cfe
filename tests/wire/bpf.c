/* SPDX-License-Identifier: MIT */
/*
 * Runs a BPF program of this folder under BPF_PROG_TEST_RUN, with the line
 * protocol of lines.h, so that the same tests judge it and user space.
 *
 *	bpf OBJECT map    the program takes the packet from its map
 *	bpf OBJECT skb    the packet is the input of the run as well
 *
 * The first line of output is the program's name and how many instructions the
 * verifier processed, the last one `refused` and how many packets the kernel did
 * not take as input; those have the word in place of an outcome.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "lines.h"
#include "wire_case.h"

enum { ETHERNET_LEN = 14 };

static int cases, answers, trust;

static void must(int result, const char *what)
{
	if (result >= 0)
		return;
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	exit(1);
}

/* `text` as a key of the trie; without a slash, one address. */
static struct wire_prefix prefix_of(const char *text)
{
	struct wire_prefix prefix = { .bits = 160, .version = 6 };
	char host[INET6_ADDRSTRLEN + 1];
	const char *slash = strchr(text, '/');
	uint8_t ipv4[4];

	snprintf(host, sizeof(host), "%.*s", (int)strcspn(text, "/"), text);
	if (inet_pton(AF_INET, host, ipv4) == 1) {
		uoa_address_map(prefix.address, ipv4);
		prefix.version = 4;
	} else if (inet_pton(AF_INET6, host, prefix.address) != 1) {
		refuse("not a prefix", text);
	}
	if (slash)
		prefix.bits = (prefix.version == 4 ? 128 : 32) +
			      (uint32_t)atoi(slash + 1);
	return prefix;
}

static void set_trust(const struct request *r)
{
	static const char *const all[] = { "0.0.0.0/0", "::/0" };
	const char *const *prefixes = r->trusts_all ? all : r->trust;
	uint32_t count = r->trusts_all ? 2 : r->trust_count;
	static const uint8_t yes = 1;
	struct wire_prefix prefix;

	while (!bpf_map_get_next_key(trust, NULL, &prefix))
		must(bpf_map_delete_elem(trust, &prefix), "trust, delete");
	for (uint32_t i = 0; i < count; i++) {
		prefix = prefix_of(prefixes[i]);
		must(bpf_map_update_elem(trust, &prefix, &yes, BPF_ANY), "trust");
	}
}

/* Run the program over one packet. 0: the kernel refuses that input. */
static int run(int program, const struct request *r, int from_skb,
	       struct wire_answer *answer)
{
	static const uint32_t only;
	static struct wire_case question;
	uint8_t frame[ETHERNET_LEN + sizeof(question.packet)] = { 0 };
	LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = frame);

	if (r->len > sizeof(question.packet))
		refuse("the packet is too long", "");
	question.len = r->len;
	question.switches = r->switches;
	memcpy(question.packet, r->packet, r->len);
	must(bpf_map_update_elem(cases, &only, &question, BPF_ANY), "cases");
	set_trust(r);

	frame[12] = 8; /* the type of the frame: IPv4, 0800, or IPv6, 86dd */
	options.data_size_in = ETHERNET_LEN + UOA_IPV4_HEADER_LEN;
	if (from_skb) {
		if (r->len && r->packet[0] >> 4 == 6)
			memcpy(frame + 12, "\x86\xdd", 2);
		memcpy(frame + ETHERNET_LEN, r->packet, r->len);
		options.data_size_in = ETHERNET_LEN + r->len;
	}
	if (bpf_prog_test_run_opts(program, &options)) {
		if (errno != EINVAL)
			must(-1, "test run");
		return 0;
	}
	must(bpf_map_lookup_elem(answers, &only, answer), "answers");
	return 1;
}

static void print_answer(const struct wire_answer *a)
{
	struct uoa_decoded d = {
		.rule = a->rule,
		.version = a->version == 4 || a->version == 6 ? (uint8_t)a->version : 0,
		.sport = a->sport,
		.dport = a->dport,
		.dialect = a->claim.dialect,
		.client_family = a->claim.client_family,
		.client_port = a->claim.client_port,
		.vip_family = a->claim.vip_family,
		.vip_port = a->claim.vip_port,
		.vni = a->claim.vni,
		.reached_opp = a->opp_off != 0,
		.stripped_len = a->opp_len,
	};

	memcpy(d.src, a->src, 16);
	memcpy(d.dst, a->dst, 16);
	memcpy(d.client, a->claim.client, 16);
	memcpy(d.vip, a->claim.vip, 16);
	outcome_print(&d, NULL);
}

int main(int argc, char **argv)
{
	struct bpf_prog_info info = { 0 };
	uint32_t info_len = sizeof(info), refused = 0;
	struct request r = { 0 };
	struct wire_answer answer;
	struct bpf_object *object;
	int program;

	if (argc != 3)
		refuse("usage: bpf OBJECT map|skb", argv[1]);
	object = bpf_object__open_file(argv[1], NULL);
	if (!object)
		must(-1, argv[1]);
	must(bpf_object__load(object), "load");
	program = bpf_program__fd(bpf_object__next_program(object, NULL));
	cases = bpf_object__find_map_fd_by_name(object, "cases");
	answers = bpf_object__find_map_fd_by_name(object, "answers");
	trust = bpf_object__find_map_fd_by_name(object, "trust");
	must(bpf_obj_get_info_by_fd(program, &info, &info_len), "program info");
	printf("%s %u\n", info.name, info.verified_insns);
	fflush(stdout);

	while (request_read(&r)) {
		if (run(program, &r, !strcmp(argv[2], "skb"), &answer)) {
			print_answer(&answer);
			continue;
		}
		refused++;
		puts("refused");
		fflush(stdout);
	}
	printf("refused %u\n", refused);
	bpf_object__close(object);
	return 0;
}
