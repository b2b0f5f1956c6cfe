/* SPDX-License-Identifier: MIT */
/*
 * Attaches answer.bpf.c to a cgroup and keeps its table, for as long as standard
 * input is open:
 *
 *	table OBJECT CGROUP
 *
 *	in:   set PEER PORT LOCAL PORT CLIENT PORT VIP PORT VNI DIALECT LEARNED SEVERAL
 *	      delete PEER PORT LOCAL PORT
 *	      answer REQUEST...
 *	      asked
 *	out:  done, and after `asked` how often 2048 came and how often 2051
 *
 * Addresses are 16 bytes in hex, other numbers are decimal. A flow is set and
 * deleted under its local address and for wildcards, or if LOCAL is zero for
 * wildcards alone. `answer` names all requests that are answered from now on.
 */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "answer.h"
#include "lines.h"

static int flows, answered, asked;

static void must(int result, const char *what)
{
	if (result >= 0)
		return;
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	exit(1);
}

static void next_address(char **rest, uint8_t address[16])
{
	uint32_t len;
	uint8_t *bytes = hex_bytes(next_field(rest, " "), &len);

	if (len != 16)
		refuse("not 16 bytes", *rest);
	memcpy(address, bytes, len);
	free(bytes);
}

static unsigned long next_number(char **rest)
{
	return strtoul(next_field(rest, " "), NULL, 10);
}

static struct flow_key next_key(char **rest)
{
	struct flow_key key = { 0 };

	next_address(rest, key.peer);
	key.peer_port = (uint16_t)next_number(rest);
	next_address(rest, key.local);
	key.local_port = (uint16_t)next_number(rest);
	return key;
}

static struct flow next_flow(char **rest)
{
	struct flow flow = { 0 };

	next_address(rest, flow.claim.client);
	flow.claim.client_port = (uint16_t)next_number(rest);
	next_address(rest, flow.claim.vip);
	flow.claim.vip_port = (uint16_t)next_number(rest);
	flow.claim.vni = (uint32_t)next_number(rest);
	flow.claim.dialect = (uint8_t)next_number(rest);
	flow.learned = strtoll(next_field(rest, " "), NULL, 10);
	flow.several = (uint32_t)next_number(rest);
	return flow;
}

static void set(char *rest)
{
	struct flow_key key = next_key(&rest);
	struct flow flow = next_flow(&rest);

	must(bpf_map_update_elem(flows, &key, &flow, BPF_ANY), "set");
	memset(key.local, 0, sizeof(key.local));
	must(bpf_map_update_elem(flows, &key, &flow, BPF_ANY), "set");
}

static void delete(char *rest)
{
	struct flow_key key = next_key(&rest);

	must(bpf_map_delete_elem(flows, &key), "delete");
	memset(key.local, 0, sizeof(key.local));
	/* It may have gone with another flow of this peer, or just now. */
	if (bpf_map_delete_elem(flows, &key) && errno != ENOENT)
		must(-1, "delete, for wildcards");
}

static void answer(char *rest)
{
	uint32_t chosen[ANSWER_COUNT] = { 0 };

	while (rest) {
		switch (next_number(&rest)) {
		case UOA_REQUEST_DPVS:
			chosen[ANSWER_DPVS] = 1;
			break;
		case UOA_REQUEST_FLOW:
			chosen[ANSWER_FLOW] = 1;
			break;
		default:
			refuse("not a request that is answered here", rest);
		}
	}
	for (uint32_t i = 0; i < ANSWER_COUNT; i++)
		must(bpf_map_update_elem(answered, &i, &chosen[i], BPF_ANY), "answer");
}

static void print_asked(void)
{
	uint32_t count;

	for (uint32_t i = 0; i < ANSWER_COUNT; i++) {
		must(bpf_map_lookup_elem(asked, &i, &count), "asked");
		printf(" %u", count);
	}
}

int main(int argc, char **argv)
{
	struct bpf_object *object;
	struct bpf_link *link;
	char *line = NULL;
	size_t room = 0;
	int cgroup;

	if (argc != 3)
		refuse("usage: table OBJECT CGROUP", argv[1]);
	cgroup = open(argv[2], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	must(cgroup, argv[2]);
	object = bpf_object__open_file(argv[1], NULL);
	if (!object)
		must(-1, argv[1]);
	must(bpf_object__load(object), "load");
	flows = bpf_object__find_map_fd_by_name(object, "flows");
	answered = bpf_object__find_map_fd_by_name(object, "answered");
	asked = bpf_object__find_map_fd_by_name(object, "asked");
	link = bpf_program__attach_cgroup(bpf_object__next_program(object, NULL), cgroup);
	if (!link)
		must(-1, "attach");

	while (line_read(&line, &room)) {
		char *rest = line, *word = next_field(&rest, " ");

		printf("done");
		if (!strcmp(word, "set"))
			set(rest);
		else if (!strcmp(word, "delete"))
			delete(rest);
		else if (!strcmp(word, "answer"))
			answer(rest);
		else if (!strcmp(word, "asked"))
			print_asked();
		else
			refuse("not a command", word);
		putchar('\n');
		fflush(stdout);
	}
	free(line);
	must(bpf_link__destroy(link), "detach");
	bpf_object__close(object);
	close(cgroup);
	return 0;
}
