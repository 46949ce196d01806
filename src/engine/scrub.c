/* scrub.c - a look at the unit headers of sealed segments, in the background after a start.
 *
 * Recovery reads footers; a damaged unit header behind one loses nothing then, but it is the copy that would be needed if the footer
 * went, too. So every header of what the previous owner sealed is read once, one read under way, and what is damaged is counted.
 * The first header of each segment is recovery's own business.
 */
#include "engine/seglog.h"

static void
header_sound(void *arg, const struct unit_header *header, const uint8_t *descs)
{
	(void)arg;
	(void)header;
	(void)descs;
}

static void
segment_scrubbed(void *arg, int rc)
{
	struct seglog *log = arg;
	struct scrubbing *s = &log->scrubbing;
	const struct segment *seg = &log->segments[s->walk.segment];

	log->ops_count--;
	s->running = false;
	if (rc == 0 && seg->state == SEG_SEALED && seg->generation == s->walk.generation &&
	    s->walk.end_off > 0 && s->walk.end_off < seg->data_bytes) {
		log->counters.headers_damaged++;
	}
	log_progress(log);
}

void
scrub_progress(struct seglog *log)
{
	struct scrubbing *s = &log->scrubbing;

	while (!s->running && s->segment_next < s->segments_end) {
		uint32_t segment = s->segment_next++;
		const struct segment *seg = &log->segments[segment];

		if (seg->state != SEG_SEALED || seg->generation > s->generation_max) {
			continue;
		}
		s->walk = (struct seg_walk){ .device = log->device,
					     .slice = &log->slice,
					     .segment = segment,
					     .generation = seg->generation,
					     .unit = header_sound,
					     .done = segment_scrubbed,
					     .arg = log };
		s->running = walk_start(&s->walk) == 0;
		log->ops_count += s->running;
	}
}

void
scrub_start(struct seglog *log)
{
	log->scrubbing.generation_max = log->generation_newest;
	log->scrubbing.segments_end = log->slice.segments_prepared;
}
