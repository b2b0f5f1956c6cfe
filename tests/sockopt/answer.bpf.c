/* SPDX-License-Identifier: MIT */
/*
 * Lets the running kernel answer getsockopt() requests 2048 and 2051 as a kernel
 * with uoa does, from a table that a test fills. It learns nothing itself and
 * knows no network namespace: every socket made in its cgroup asks one table.
 */
#include <linux/bpf.h>
#include <linux/errno.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#include "answer.h"

enum { NS_PER_MS = 1000000 };

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, struct flow_key);
	__type(value, struct flow);
} flows SEC(".maps");

/* Is this request answered? If not, the kernel says what it says without us. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, ANSWER_COUNT);
	__type(key, uoa_u32);
	__type(value, uoa_u32);
} answered SEC(".maps");

/* How often each request came, answered or not. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, ANSWER_COUNT);
	__type(key, uoa_u32);
	__type(value, uoa_u32);
} asked SEC(".maps");

/* As much of it as is read; a kernel has one of the two. */
struct pt_regs {
	unsigned long r10;	/* x86-64 */
	unsigned long regs[31]; /* arm64 */
} __attribute__((preserve_access_index));

/* Copy the question out of the caller's buffer. A program of this type is shown
 * what the kernel answered and not what the caller wrote, so that is read where
 * the system call was told to find it: in its fourth argument. */
static inline long read_question(union uoa_sockopt_buffer *to, uoa_u32 len)
{
	struct pt_regs *regs;
	unsigned long from = 0;

	regs = (struct pt_regs *)bpf_task_pt_regs(bpf_get_current_task_btf());
	if (bpf_core_field_exists(regs->r10))
		from = regs->r10;
	else if (bpf_core_field_exists(regs->regs))
		from = regs->regs[3];
	return bpf_probe_read_user(to, len, (const void *)from);
}

static inline int look_up(const struct uoa_query *q, struct uoa_answer *answer)
{
	struct flow_key key = { .peer_port = q->peer_port,
				.local_port = q->local_port };
	unsigned long long age_ms;
	struct flow *flow;

	__builtin_memcpy(key.peer, q->peer, 16);
	if (!q->any_local)
		__builtin_memcpy(key.local, q->local, 16);
	flow = bpf_map_lookup_elem(&flows, &key);
	if (!flow)
		return UOA_SOCKOPT_MISS;
	age_ms = (bpf_ktime_get_ns() - (unsigned long long)flow->learned) / NS_PER_MS;
	answer->claim = flow->claim;
	answer->several = (uoa_u8)flow->several;
	answer->age_ms = age_ms < 0xffffffff ? (uoa_u32)age_ms : 0xffffffff;
	return UOA_SOCKOPT_OK;
}

static inline int errno_of(int status)
{
	switch (status) {
#define X(id, error)                                                           \
	case UOA_SOCKOPT_##id:                                                 \
		return error;
	UOA_SOCKOPT_STATUSES(X)
#undef X
	}
	return 0;
}

/* What getsockopt() returns. The caller's buffer is left alone unless that is 0.
 * Inline with a constant layout: BPF copies only lengths that the compiler knows,
 * and what uapi.h has for the other layouts falls away. */
UOA_INLINE int answer_as(struct bpf_sockopt *call, uoa_u8 layout)
{
	const uoa_u32 len = uoa_sockopt_len(layout);
	union uoa_sockopt_buffer buffer = { 0 };
	struct uoa_answer answer = { 0 };
	struct uoa_query query;
	uoa_u8 *to = call->optval;
	int status;

	if (read_question(&buffer, len) || to + len > (uoa_u8 *)call->optval_end)
		return -EFAULT;
	status = uoa_sockopt_query(layout, &buffer, &query);
	if (!status)
		status = look_up(&query, &answer);
	if (!status)
		status = uoa_sockopt_reply(layout, &query, &answer, 0, &buffer);
	if (status)
		return -errno_of(status);
	__builtin_memcpy(to, &buffer, len);
	call->optlen = (int)len;
	return 0;
}

static inline int answer_call(struct bpf_sockopt *call)
{
	uoa_u8 layout;
	int status = uoa_sockopt_layout(call->level, call->optname,
					(uoa_u32)call->optlen, &layout);

	switch (layout) {
	case UOA_LAYOUT_DPVS:
		return answer_as(call, UOA_LAYOUT_DPVS);
	case UOA_LAYOUT_BD0:
		return answer_as(call, UOA_LAYOUT_BD0);
	case UOA_LAYOUT_FLOW:
		return answer_as(call, UOA_LAYOUT_FLOW);
	default:
		return -errno_of(status);
	}
}

SEC("cgroup/getsockopt")
int answer(struct bpf_sockopt *call)
{
	uoa_u32 index = call->optname == UOA_REQUEST_FLOW ? ANSWER_FLOW : ANSWER_DPVS;
	uoa_u32 *count, *is_answered;

	if (call->level != UOA_REQUEST_LEVEL ||
	    (call->optname != UOA_REQUEST_DPVS && call->optname != UOA_REQUEST_FLOW))
		return 1;
	count = bpf_map_lookup_elem(&asked, &index);
	is_answered = bpf_map_lookup_elem(&answered, &index);
	if (count)
		__sync_fetch_and_add(count, 1);
	if (is_answered && *is_answered)
		bpf_set_retval(answer_call(call));
	return 1;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
