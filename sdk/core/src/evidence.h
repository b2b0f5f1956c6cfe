/* SPDX-License-Identifier: MIT */
/* What came with one datagram, and what the parser makes of it. */
#ifndef UOA_SRC_EVIDENCE_H
#define UOA_SRC_EVIDENCE_H

#include <uoa/uoa.h>

enum { UOA_SWITCHES_PAYLOAD = UOA_ENABLE_PPV2 | UOA_ENABLE_SPP };

/* The cheap test in front of everything else: can there be a claim at all? */
int uoa_evidence_claims(const struct uoa_evidence *evidence, uint8_t switches);

/* Rows 22 to 26 of rules 4.2. Returns the rule; `strip` is how many bytes of header
 * stand in front of the payload. */
uint16_t uoa_evidence_judge(const struct uoa_evidence *evidence, uint8_t switches,
			    struct uoa_claims *claims, uint32_t *strip);

#endif
