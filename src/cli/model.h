/* model.h — models, what their KV cache weighs, and what computing it again costs.
 *
 * What:       presets (bytes of KV a token, parameters at work, layers, attention width) and the cost model that turns a
 *             prefix into GPU-seconds: FLOPs(T) = 2 · params · T + 2 · layers · width · T², divided by (TFLOPS · MFU). The first
 *             term is the matrices (a multiply and an add for each parameter and token), the second attention: token t looks
 *             at t tokens before it, 4 · width FLOPs each in every layer (scores and values), summed over t = 1 … T.
 * Not here:   decoding, batching effects, MoE routing overhead: estimates for planning, stated as such wherever printed.
 * Threads:    pure functions.
 * Tests:      tests/unit/cli/test_model.c
 */
#ifndef HR_CLI_MODEL_H
#define HR_CLI_MODEL_H

#include "base/base.h"

struct model {
	const char *name;
	uint64_t bytes_per_token; /* KV of all layers and heads, 16-bit */
	double params; /* that work on a token: the active ones of a mixture of experts */
	uint32_t layers;
	uint32_t width; /* heads × head dimension; for MLA the mean of score and value widths × heads */
	uint32_t gpus_min; /* that hold it: the group that works on one request */
};

extern const struct model models[];
extern const size_t models_count;

/* NULL when there is none of that name; case does not matter. */
const struct model *model_find(const char *name);
/* The nearest name, or NULL. */
const char *model_nearest(const char *name);

struct gpu {
	const char *name;
	double tflops; /* dense, 16-bit, as the maker says */
};

extern const struct gpu gpus[];
extern const size_t gpus_count;
const struct gpu *gpu_find(const char *name);

struct cost_model {
	const struct model *model;
	double tflops;
	double mfu; /* share of them that prefill reaches, 0 … 1 */
};

/* FLOPs to compute the KV of tokens [from, to) of a sequence. */
double cost_flops(const struct model *model, double from, double to);
/* GPU-seconds for the same. */
double cost_gpu_seconds(const struct cost_model *cost, double from, double to);

#endif
