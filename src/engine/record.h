/* record.h - one record of the log in memory: the descriptor of docs/format/README.md section 4 in host order.
 *
 * What:       what unit headers and footers list. desc_encode()/desc_decode() (layout.h) convert.
 * Ownership:  `key` and `crcs` point into memory of whoever made the struct (decode: into the buffer that was decoded).
 */
#ifndef HR_ENGINE_RECORD_H
#define HR_ENGINE_RECORD_H

#include <stdint.h>

enum desc_kind { DESC_VALUE = 1, DESC_TOMBSTONE = 2, DESC_COMMIT = 3 };
enum { DESC_FLAG_PINNED = 1u << 0 };
enum segment_class { CLASS_FRESH = 0, CLASS_SURVIVOR = 1, CLASS_PINNED = 2, CLASS_COUNT = 3 };

struct desc {
	uint8_t kind; /* enum desc_kind */
	uint8_t codec;
	uint8_t class_hint;
	uint8_t id[16];
	uint8_t parent[16];
	uint8_t nonce[16];
	uint64_t route;
	uint32_t position;
	uint32_t space_number;
	uint32_t space_generation;
	uint32_t flags; /* DESC_FLAG_* */
	uint64_t birth;
	uint64_t expiry_ms; /* since 1970; 0 = never */
	uint64_t put_number;
	uint64_t block_bytes;
	uint32_t logical_bytes;
	uint32_t stored_bytes;
	uint16_t part;
	uint16_t parts_count;
	uint32_t value_off; /* bytes from the segment's start */
	uint32_t cost_hint_us;
	uint32_t encryption_key_id;
	uint64_t horizon;
	const uint8_t *key;
	uint16_t key_bytes;
	uint32_t crcs_count;
	const uint32_t *crcs; /* host order */
};

#endif
