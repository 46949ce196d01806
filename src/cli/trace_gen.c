/* trace_gen.c — see trace_gen.h. */
#include "cli/trace_gen.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/prng.h"

int
trace_gen_kind_parse(const char *text, enum trace_gen_kind *ret_kind)
{
	if (strcmp(text, "chat") == 0) {
		*ret_kind = TRACE_GEN_CHAT;
		return 0;
	}
	if (strcmp(text, "agent") == 0) {
		*ret_kind = TRACE_GEN_AGENT;
		return 0;
	}
	return -EINVAL;
}

size_t
trace_gen_requests_default(enum trace_gen_kind kind)
{
	return kind == TRACE_GEN_CHAT ? 12031 : 3772;
}

static double
normal(struct prng *prng)
{
	double u = 1.0 - prng_double(prng); /* (0, 1]: the logarithm is finite */
	double v = prng_double(prng);

	return sqrt(-2.0 * log(u)) * cos(2.0 * M_PI * v);
}

/* Log-normal with this median, as a whole number in [min, max]. */
static uint32_t
lognormal(struct prng *prng, double median, double sigma, uint32_t min, uint32_t max)
{
	double x = floor(median * exp(sigma * normal(prng)) + 0.5);

	return x < min ? min : x > max ? max : (uint32_t)x;
}

/* A gap of a Poisson process, in milliseconds. */
static int64_t
poisson_gap_ms(struct prng *prng, double mean_ms)
{
	return (int64_t)(-log(1.0 - prng_double(prng)) * mean_ms + 0.5);
}

/* -- chat ---------------------------------------------------------------------------------------------------------------- */

enum {
	CHAT_BLOCK_TOKENS = 512,
	CHAT_BLOCKS_MAX = 250,
	CHAT_CONTINUE_PPM = 400000,
};
/* Chosen so that the trace gives what the published one gives: 24.0 blocks a request, 15.2 of them new, half of the re-used
 * blocks last seen within 350 requests and nine in ten within 1,300. */
static const double chat_new_median = 11.5, chat_new_sigma = 1.05;
static const double chat_more_median = 4.5, chat_more_sigma = 0.9;
static const double chat_lag_median = 350, chat_lag_sigma = 1.0;
static const double chat_gap_ms = 294; /* 12,031 requests in an hour */

/* The last node of a request whose block is full: its last block usually is not. */
static uint32_t
full_tail(const struct trace *trace, const struct trace_request *request)
{
	uint32_t tail = request->new_count != 0 ? request->first_new + request->new_count - 1
						: request->hit_node;
	uint32_t full = request->in_tokens / trace->block_tokens;

	while (trace->depth[tail] > full && trace->depth[tail] > 1) {
		tail = trace->parent[tail];
	}
	return tail;
}

static void
chat_row(const struct trace *trace, struct prng *prng, struct trace_row *row)
{
	uint32_t blocks, last;
	uint32_t lag = lognormal(prng, chat_lag_median, chat_lag_sigma, 1, UINT32_MAX);
	bool goes_on = prng_chance_ppm(prng, CHAT_CONTINUE_PPM) && lag <= trace->requests_count;

	if (goes_on) {
		row->hit_node = full_tail(trace, &trace->requests[trace->requests_count - lag]);
		row->new_count =
		    lognormal(prng, chat_more_median, chat_more_sigma, 1, CHAT_BLOCKS_MAX);
	} else {
		row->hit_node = trace->requests_count == 0 ? 0 : 1;
		row->new_count =
		    lognormal(prng, chat_new_median, chat_new_sigma, 1, CHAT_BLOCKS_MAX);
	}
	if (trace->depth[row->hit_node] + row->new_count > CHAT_BLOCKS_MAX) {
		row->hit_node = 1;
		row->new_count = CHAT_BLOCKS_MAX - 1;
	}
	blocks = trace->depth[row->hit_node] + row->new_count;
	last = (uint32_t)prng_below(prng, CHAT_BLOCK_TOKENS) + 1;
	row->in_tokens = (blocks - 1) * CHAT_BLOCK_TOKENS + last;
	row->out_tokens = lognormal(prng, 300, 0.8, 1, 2000);
	row->session = -1;
}

static int
generate_chat(struct trace *trace, struct prng *prng, size_t requests_count)
{
	int64_t t_ms = 0;

	for (size_t i = 0; i < requests_count; i++) {
		struct trace_row row = { .t_ms = t_ms };
		int rc;

		chat_row(trace, prng, &row);
		rc = trace_append(trace, &row);
		if (rc != 0) {
			return rc;
		}
		t_ms += poisson_gap_ms(prng, chat_gap_ms);
	}
	return 0;
}

/* -- agent --------------------------------------------------------------------------------------------------------------- */

enum {
	AGENT_BLOCK_TOKENS = 16,
	AGENT_MODELS = 4,
	AGENT_SESSIONS_LIVE = 24,
	AGENT_BLOCKS_MAX = 1300,
	AGENT_PROMPTS = 3, /* Domains: a prompt with its tools each. */
};
static const uint32_t agent_prompt_blocks[AGENT_PROMPTS] = { 150, 260, 337 };
static const uint32_t agent_model_ppm[AGENT_MODELS] = { 495000, 269000, 124000, 112000 };
static const double agent_turns_median = 11, agent_turns_sigma = 0.55;
static const double agent_more_median = 9, agent_more_sigma = 0.85;
static const double agent_gap_ms = 413; /* 3,772 requests in 26 minutes */

struct agent_session {
	int64_t number;
	uint32_t model;
	uint32_t tail; /* Deepest node so far. */
	uint32_t prompt;
	uint32_t turns_left;
};

struct agent_state {
	struct agent_session live[AGENT_SESSIONS_LIVE];
	uint32_t prompt_tail[AGENT_MODELS][AGENT_PROMPTS]; /* 0: nobody asked with it yet */
	int64_t sessions_count;
};

static void
agent_session_start(struct agent_state *state, struct prng *prng, struct agent_session *session)
{
	uint64_t draw = prng_below(prng, 1000000);
	uint32_t model = 0;

	while (model + 1 < AGENT_MODELS && draw >= agent_model_ppm[model]) {
		draw -= agent_model_ppm[model++];
	}
	session->number = state->sessions_count++;
	session->model = model;
	session->prompt = (uint32_t)prng_below(prng, AGENT_PROMPTS);
	session->tail = state->prompt_tail[model][session->prompt];
	session->turns_left = lognormal(prng, agent_turns_median, agent_turns_sigma, 3, 100);
}

static int
agent_turn(struct trace *trace, struct agent_state *state, struct prng *prng, int64_t t_ms)
{
	struct agent_session *session = &state->live[prng_below(prng, AGENT_SESSIONS_LIVE)];
	uint32_t *prompt_tail;
	struct trace_row row = { .t_ms = t_ms };
	int rc;

	if (session->turns_left == 0) {
		agent_session_start(state, prng, session);
	}
	prompt_tail = &state->prompt_tail[session->model][session->prompt];
	row.session = session->number;
	row.model = session->model;
	row.hit_node = session->tail != 0 ? session->tail : *prompt_tail;
	if (row.hit_node == 0) {
		row.new_count = agent_prompt_blocks[session->prompt];
	} else {
		row.new_count = lognormal(prng, agent_more_median, agent_more_sigma, 1, 120);
	}
	if (trace->depth[row.hit_node] + row.new_count > AGENT_BLOCKS_MAX) {
		row.new_count = 0;
	}
	row.in_tokens = (trace->depth[row.hit_node] + row.new_count) * AGENT_BLOCK_TOKENS +
			(uint32_t)prng_below(prng, AGENT_BLOCK_TOKENS);
	row.out_tokens = lognormal(prng, 39, 0.9, 4, 950);
	rc = trace_append(trace, &row);
	if (rc != 0) {
		return rc;
	}
	session->tail = row.new_count != 0 ? (uint32_t)trace->nodes_count - 1 : row.hit_node;
	if (*prompt_tail == 0) {
		*prompt_tail = session->tail;
	}
	session->turns_left--;
	return 0;
}

static int
generate_agent(struct trace *trace, struct prng *prng, size_t requests_count)
{
	struct agent_state state = { 0 };
	int64_t t_ms = 0;

	for (size_t i = 0; i < requests_count; i++) {
		int rc = agent_turn(trace, &state, prng, t_ms);

		if (rc != 0) {
			return rc;
		}
		t_ms += poisson_gap_ms(prng, agent_gap_ms);
	}
	return 0;
}

int
trace_generate(enum trace_gen_kind kind, uint64_t seed, size_t requests_count,
	       struct trace **ret_trace)
{
	bool chat = kind == TRACE_GEN_CHAT;
	struct trace *trace;
	struct prng prng;
	char name[TRACE_NAME_BYTES];
	int rc;

	snprintf(name, sizeof(name), "generated_%s_%llu", chat ? "chat" : "agent",
		 (unsigned long long)seed);
	rc = trace_create(name, chat ? CHAT_BLOCK_TOKENS : AGENT_BLOCK_TOKENS, &trace);
	if (rc != 0) {
		return rc;
	}
	prng_init(&prng, seed);
	rc = chat ? generate_chat(trace, &prng, requests_count)
		  : generate_agent(trace, &prng, requests_count);
	if (rc != 0) {
		trace_destroy(trace);
		return rc;
	}
	*ret_trace = trace;
	return 0;
}
