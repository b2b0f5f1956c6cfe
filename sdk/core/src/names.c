/* SPDX-License-Identifier: MIT */
/* Names of the numbers that wire.h and uoa.h define: the tables there, as text. */
#include <string.h>

#include <uoa/uoa.h>

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))
#define NAME(table, n) ((n) < COUNT(table) ? (table)[n] : NULL)

static const char *const dialects[] = {
	NULL,
#define X(id, name, enable) name,
	UOA_DIALECTS(X)
#undef X
};

static const char *const reasons[] = {
#define X(id, name) name,
	UOA_REASONS(X)
#undef X
};

static const char *const sources[] = {
#define X(id, name) name,
	UOA_SOURCES(X)
#undef X
};

static const struct {
	const char *place;
	const char *text;
} rules[] = {
#define X(id, reason, place, text) { place, text },
	UOA_RULES(X)
#undef X
};

static const char *const counters[] = {
#define X(id, name) name,
	UOA_COUNTERS(X)
	UOA_REASONS(X)
#undef X
#define X(id, name, enable) "found_" name,
	UOA_DIALECTS(X)
#undef X
};

static const struct {
	const char *name;
	uint32_t bit;
} switches[] = {
#define X(id, name, bit) { name, bit },
	UOA_SWITCHES(X)
#undef X
};

const char *uoa_dialect_name(uint32_t dialect)
{
	return NAME(dialects, dialect);
}

const char *uoa_reason_name(uint32_t reason)
{
	return NAME(reasons, reason);
}

const char *uoa_source_name(uint32_t source)
{
	return NAME(sources, source);
}

const char *uoa_counter_name(uint32_t counter)
{
	return NAME(counters, counter);
}

uint32_t uoa_counter_count(void)
{
	return COUNT(counters);
}

/* A rule's low byte is its row in the table, the high byte its reason. */
const char *uoa_rule_place(uint32_t rule)
{
	return (rule & 0xff) < COUNT(rules) ? rules[rule & 0xff].place : NULL;
}

const char *uoa_rule_text(uint32_t rule)
{
	return (rule & 0xff) < COUNT(rules) ? rules[rule & 0xff].text : NULL;
}

uint32_t uoa_switch_bit(const char *name)
{
	for (size_t i = 0; i < COUNT(switches); i++)
		if (!strcmp(switches[i].name, name))
			return switches[i].bit;
	return 0;
}

const char *uoa_switch_name(uint32_t n)
{
	return n < COUNT(switches) ? switches[n].name : NULL;
}
