/* model.c — see model.h. */
#include "cli/model.h"

#include <strings.h>

#include "base/option.h"

/* Parameters, layers and heads from the models' published configurations. */
const struct model models[] = {
	{ "llama-3.1-8b", 131072, 8.03e9, 32, 4096, 1 },
	{ "llama-3.1-70b", 327680, 70.6e9, 80, 8192, 4 },
	{ "qwen2.5-7b", 57344, 7.62e9, 28, 3584, 1 },
	{ "qwen2.5-72b", 327680, 72.7e9, 80, 8192, 4 },
	{ "qwen3-0.6b", 114688, 0.6e9, 28, 2048, 1 },
	{ "qwen3-8b", 147456, 8.2e9, 36, 4096, 1 },
	{ "qwen3-32b", 262144, 32.8e9, 64, 8192, 2 },
	{ "qwen3-235b-a22b", 192512, 22e9, 94, 8192, 8 },
	{ "deepseek-v3", 70272, 37e9, 61, 20480, 8 },
	{ "kimi-k2.5", 70272, 32e9, 61, 10240, 8 },
	{ "gpt-oss-120b", 73728, 5.1e9, 36, 4096, 1 },
	{ "minimax-m2", 253952, 10e9, 62, 6144, 4 },
};
const size_t models_count = ARRAY_SIZE(models);

const struct gpu gpus[] = {
	{ "a100", 312 }, { "h100", 989 }, { "h200", 989 }, { "b200", 2250 }, { "mi300x", 1307 },
};
const size_t gpus_count = ARRAY_SIZE(gpus);

const struct model *
model_find(const char *name)
{
	for (size_t i = 0; i < models_count; i++) {
		if (strcasecmp(models[i].name, name) == 0) {
			return &models[i];
		}
	}
	return NULL;
}

const char *
model_nearest(const char *name)
{
	const char *names[ARRAY_SIZE(models)];

	for (size_t i = 0; i < models_count; i++) {
		names[i] = models[i].name;
	}
	return nearest_name(name, names, models_count);
}

const struct gpu *
gpu_find(const char *name)
{
	for (size_t i = 0; i < gpus_count; i++) {
		if (strcasecmp(gpus[i].name, name) == 0) {
			return &gpus[i];
		}
	}
	return NULL;
}

double
cost_flops(const struct model *model, double from, double to)
{
	return 2 * model->params * (to - from) +
	       2.0 * model->layers * model->width * (to * to - from * from);
}

double
cost_gpu_seconds(const struct cost_model *cost, double from, double to)
{
	return cost_flops(cost->model, from, to) / (cost->tflops * 1e12 * cost->mfu);
}
