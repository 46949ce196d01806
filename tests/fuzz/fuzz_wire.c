/* fuzz_wire.c - frames and items from outside: nothing is read behind its end, and what is accepted is encoded to itself.
 *
 * The first byte chooses the decoder; 0 reads a stream of frames as a receiver does.
 */
#include <stdlib.h>

#include "base/base.h"
#include "wire/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Items one after the other until something does not fit. */
#define FUZZ_ITEMS(name, type)                                                                     \
	static void fuzz_##name(struct wire_reader *reader)                                        \
	{                                                                                          \
		struct type item;                                                                  \
		const char *why = NULL;                                                            \
		while (wire_##name##_decode(reader, &item, &why) == 0) {                           \
		}                                                                                  \
		HR_ASSERT(why != NULL);                                                            \
	}
FUZZ_ITEMS(client_hello, wire_client_hello)
FUZZ_ITEMS(server_hello, wire_server_hello)
FUZZ_ITEMS(put_answer, wire_put_answer)
FUZZ_ITEMS(get_item, wire_get_item)
FUZZ_ITEMS(id_item, wire_id_item)
FUZZ_ITEMS(space_request, wire_space_request)
FUZZ_ITEMS(space_row, wire_space_row)
FUZZ_ITEMS(list_head, wire_list_head)
FUZZ_ITEMS(region, wire_region)

static uint64_t g_sink;

static void
touch(const void *bytes, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		g_sink += ((const uint8_t *)bytes)[i];
	}
}

static void
fuzz_put_item(struct wire_reader *reader)
{
	struct wire_put_item item;
	const char *why = NULL;

	while (wire_put_item_decode(reader, &item, &why) == 0) {
		touch(item.key, item.key_len);
		touch(item.crcs, 4 * (size_t)item.crcs_count);
	}
}

static void
fuzz_get_answer(struct wire_reader *reader)
{
	struct wire_get_answer answer;
	struct wire_extent extent;
	const char *why = NULL;

	while (wire_get_answer_decode(reader, &answer, &why) == 0) {
		for (unsigned i = 0; i < answer.crcs_count; i++) {
			g_sink += wire_crc_get(answer.crcs, i);
		}
		for (unsigned i = 0; i < answer.extents_count; i++) {
			wire_extent_get(answer.extents, i, &extent);
			g_sink += extent.off;
		}
	}
}

static void
fuzz_list_entry(struct wire_reader *reader)
{
	struct wire_list_entry entry;
	const char *why = NULL;

	while (wire_list_entry_decode(reader, &entry, &why) == 0) {
		touch(entry.key, entry.key_len);
	}
}

static void
fuzz_map(struct wire_reader *reader)
{
	const uint8_t *start = reader->at;
	struct wire_buf buf = { 0 };
	struct wire_map map;
	const char *why = NULL;

	if (wire_map_decode(reader, &map, &why) != 0) {
		return;
	}
	wire_map_encode(&buf, &map);
	HR_ASSERT(buf.len == (size_t)(reader->at - start));
	wire_buf_free(&buf);
	wire_map_free(&map);
}

static void
fuzz_frames(struct wire_reader *reader)
{
	struct wire_header header;
	const char *why = NULL;

	while (reader->end - reader->at >= WIRE_HEADER_BYTES &&
	       wire_header_decode(reader->at, &header, &why) == 0) {
		reader->at += WIRE_HEADER_BYTES;
		if ((size_t)(reader->end - reader->at) < header.items_bytes ||
		    wire_items_verify(&header, reader->at, &why) != 0) {
			return;
		}
		reader->at += header.items_bytes;
		if ((size_t)(reader->end - reader->at) < header.payload_bytes) {
			return;
		}
		reader->at += header.payload_bytes;
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static void (*const targets[])(struct wire_reader * reader) = {
		fuzz_frames,	 fuzz_client_hello,  fuzz_server_hello, fuzz_map,
		fuzz_put_item,	 fuzz_put_answer,    fuzz_get_item,	fuzz_get_answer,
		fuzz_id_item,	 fuzz_space_request, fuzz_space_row,	fuzz_list_head,
		fuzz_list_entry, fuzz_region,
	};
	struct wire_reader reader;

	if (size == 0) {
		return 0;
	}
	reader = (struct wire_reader){ data + 1, data + size };
	targets[data[0] % ARRAY_SIZE(targets)](&reader);
	HR_ASSERT(reader.at >= data && reader.at <= data + size);
	return 0;
}
