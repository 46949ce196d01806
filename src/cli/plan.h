/* plan.h — how large a store a fleet of GPUs needs: the arithmetic, without printing.
 *
 * What:       from model, GPUs, context, sessions and link: bytes a token, capacity, bandwidth, nodes, the link's share, and the
 *             prefix length from which loading beats computing. Each figure's formula is beside its field.
 * Threads:    pure functions.
 * Errors:     -EINVAL and a line that names the value.
 * Tests:      tests/unit/cli/test_plan.c
 */
#ifndef HR_CLI_PLAN_H
#define HR_CLI_PLAN_H

#include "base/error.h"
#include "cli/model.h"

struct plan_input {
	struct cost_model cost;
	uint64_t bytes_per_token; /* the model's, or what a user says (fp8 KV: half) */
	double gpus, context_tokens, sessions;
	double turn_gap_s; /* time between two requests of a session */
	double hit_share;  /* share of a request's tokens that the store has */
	double copies;	   /* of each block */
	double fill;	   /* share of the capacity that is live; the rest is room for reclaim */
	double gpus_per_host, link_bits_per_s, link_share; /* of a GPU host; share of it for KV */
	double tp;					   /* GPUs that work on one request */
	double load_latency_us;				   /* before the first byte comes */
	double node_bytes, node_read_bytes_per_s, node_link_bits_per_s, node_write_bytes_per_day;
	double write_amplification;
};

struct plan {
	double session_bytes;	 /* bytes_per_token x context */
	double capacity_bytes;	 /* session_bytes x sessions x copies / fill */
	double requests_per_s;	 /* sessions / turn_gap */
	double read_bytes_per_s; /* requests_per_s x context x hit_share x bytes_per_token */
	double write_bytes_per_s; /* requests_per_s x context x (1 - hit_share) x bytes_per_token x copies */
	double flash_write_bytes_per_day; /* write_bytes_per_s x write_amplification x 86,400 */
	double hosts;			  /* gpus / gpus_per_host, rounded up */
	double host_bits_per_s;		  /* (read + write) x 8 / hosts */
	double link_used_share;		  /* host_bits_per_s / link */
	double nodes_for_capacity, nodes_for_reads, nodes_for_links, nodes_for_writes,
	    nodes;				  /* the most of them */
	double gpu_s_without;			  /* GPU-seconds of prefill a request */
	double gpu_s_with;			  /* … of what the store has not */
	double gpus_busy_without, gpus_busy_with; /* x requests_per_s */
	double load_bytes_per_s_shared; /* link x link_share x tp / gpus_per_host / 8: all groups load at once */
	double load_bytes_per_s_alone; /* link x link_share / 8 */
	double break_even_tokens_shared,
	    break_even_tokens_alone; /* loading T tokens takes as long as computing them */
	double load_s, compute_s;    /* of context x hit_share tokens, at the shared rate */
};

int plan_compute(const struct plan_input *input, struct plan *ret_plan, struct errbuf *err);

/* Tokens from which latency + T x bytes / rate <= (2 params T + 2 layers width T^2) / (tp x tflops x mfu). Infinite where the
 * terms never meet (cannot happen while width > 0). */
double plan_break_even(const struct plan_input *input, double load_bytes_per_s);

#endif
