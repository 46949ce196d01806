/* recover.h - finding out what a slice holds after any kind of stop (docs/format/README.md section 6).
 *
 * What:       reads all footers (many in flight), walks the tails, checks the values of units that may not have been stable, hands every
 *             surviving record to a visitor, seals what was open. Fills the log's segment states, births, sequences, generations.
 * Not here:   which of several records of an id wins: the visitor decides by birth (engine.c does).
 * Threads:    the shard's; asynchronous, driven by io_run().
 */
#ifndef HR_ENGINE_RECOVER_H
#define HR_ENGINE_RECOVER_H

#include "engine/segment.h"

struct recover_result {
	int rc; /* 0, or -errno when the device cannot be read at all */
	uint32_t segments_sealed, segments_free, segments_walked, segments_unreadable;
	uint32_t footers_damaged, headers_damaged; /* damaged ones that recovery noticed */
	uint64_t units_checked, records_seen, records_torn;
	uint64_t bytes_read;
	uint64_t duration_us, footers_us, tails_us;
};

struct recover_visitor {
	/* One record that exists (values: verified or stable). Borrowed. In no particular order across segments. */
	void (*record)(void *arg, const struct desc *desc, uint32_t segment,
		       uint64_t segment_generation);
	void (*done)(void *arg, const struct recover_result *result);
	void *arg;
};

int recover_start(struct seglog *log, const struct recover_visitor *visitor);

#endif
