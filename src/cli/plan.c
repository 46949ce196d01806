/* plan.c — see plan.h. */
#include "cli/plan.h"

#include <math.h>

static int
check_positive(const char *name, double value, struct errbuf *err)
{
	return value > 0 && isfinite(value)
		   ? 0
		   : errf(err, -EINVAL, "%s: a value above 0 is wanted", name);
}

static int
check_input(const struct plan_input *input, struct errbuf *err)
{
	const struct {
		const char *name;
		double value;
	} positive[] = {
		{ "--gpus", input->gpus },
		{ "--context", input->context_tokens },
		{ "--sessions", input->sessions },
		{ "--turn-gap", input->turn_gap_s },
		{ "--copies", input->copies },
		{ "--gpus-per-host", input->gpus_per_host },
		{ "--link", input->link_bits_per_s },
		{ "--tp", input->tp },
		{ "--node-capacity", input->node_bytes },
		{ "--node-read", input->node_read_bytes_per_s },
		{ "--node-link", input->node_link_bits_per_s },
		{ "--node-endurance", input->node_write_bytes_per_day },
		{ "--write-amplification", input->write_amplification },
		{ "--tflops", input->cost.tflops },
		{ "--bytes-per-token", (double)input->bytes_per_token },
	};
	const struct {
		const char *name;
		double value;
	} shares[] = {
		{ "--fill", input->fill },
		{ "--link-share", input->link_share },
		{ "--mfu", input->cost.mfu },
	};

	for (size_t i = 0; i < ARRAY_SIZE(positive); i++) {
		if (check_positive(positive[i].name, positive[i].value, err) != 0) {
			return -EINVAL;
		}
	}
	for (size_t i = 0; i < ARRAY_SIZE(shares); i++) {
		if (!(shares[i].value > 0 && shares[i].value <= 1)) {
			return errf(err, -EINVAL, "%s: a share above 0 and at most 1 is wanted",
				    shares[i].name);
		}
	}
	if (!(input->hit_share >= 0 && input->hit_share <= 1)) {
		return errf(err, -EINVAL, "--hits: a share from 0 to 1 is wanted");
	}
	if (!(input->load_latency_us >= 0)) {
		return errf(err, -EINVAL, "--latency: a time is wanted");
	}
	return 0;
}

double
plan_break_even(const struct plan_input *input, double load_bytes_per_s)
{
	double rate = input->tp * input->cost.tflops * 1e12 * input->cost.mfu;
	double linear = 2 * input->cost.model->params / rate;
	double square = 2.0 * input->cost.model->layers * input->cost.model->width / rate;
	double load = (double)input->bytes_per_token / load_bytes_per_s;
	double latency = input->load_latency_us / 1e6;
	double gain = linear - load; /* seconds a token that loading is faster by, attention aside */

	/* square T^2 + gain T - latency = 0, the root that is not negative. Written so that no small difference of large
	 * numbers is formed when gain > 0. */
	if (square <= 0) {
		return gain > 0 ? latency / gain : INFINITY;
	}
	if (gain >= 0) {
		double root = sqrt(gain * gain + 4 * square * latency);

		return latency == 0 ? 0 : 2 * latency / (gain + root);
	}
	return (-gain + sqrt(gain * gain + 4 * square * latency)) / (2 * square);
}

static void
compute_nodes(const struct plan_input *input, struct plan *plan)
{
	plan->nodes_for_capacity = ceil(plan->capacity_bytes / input->node_bytes);
	plan->nodes_for_reads = ceil(plan->read_bytes_per_s / input->node_read_bytes_per_s);
	plan->nodes_for_links = ceil((plan->read_bytes_per_s + plan->write_bytes_per_s) * 8 /
				     (input->node_link_bits_per_s * input->link_share));
	plan->nodes_for_writes =
	    ceil(plan->flash_write_bytes_per_day / input->node_write_bytes_per_day);
	plan->nodes = HR_MAX(HR_MAX(plan->nodes_for_capacity, plan->nodes_for_reads),
			     HR_MAX(plan->nodes_for_links, plan->nodes_for_writes));
}

static void
compute_gpus(const struct plan_input *input, struct plan *plan)
{
	double hit_tokens = input->context_tokens * input->hit_share;

	plan->gpu_s_without = cost_gpu_seconds(&input->cost, 0, input->context_tokens);
	plan->gpu_s_with = cost_gpu_seconds(&input->cost, hit_tokens, input->context_tokens);
	plan->gpus_busy_without = plan->gpu_s_without * plan->requests_per_s;
	plan->gpus_busy_with = plan->gpu_s_with * plan->requests_per_s;
	plan->load_bytes_per_s_alone = input->link_bits_per_s / 8 * input->link_share;
	plan->load_bytes_per_s_shared = plan->load_bytes_per_s_alone *
					HR_MIN(1.0, input->tp / input->gpus_per_host);
	plan->break_even_tokens_alone = plan_break_even(input, plan->load_bytes_per_s_alone);
	plan->break_even_tokens_shared = plan_break_even(input, plan->load_bytes_per_s_shared);
	plan->load_s = input->load_latency_us / 1e6 +
		       hit_tokens * (double)input->bytes_per_token / plan->load_bytes_per_s_shared;
	plan->compute_s = cost_gpu_seconds(&input->cost, 0, hit_tokens) / input->tp;
}

int
plan_compute(const struct plan_input *input, struct plan *ret_plan, struct errbuf *err)
{
	struct plan plan = { 0 };
	double bytes = (double)input->bytes_per_token;

	if (check_input(input, err) != 0) {
		return -EINVAL;
	}
	plan.session_bytes = bytes * input->context_tokens;
	plan.capacity_bytes = plan.session_bytes * input->sessions * input->copies / input->fill;
	plan.requests_per_s = input->sessions / input->turn_gap_s;
	plan.read_bytes_per_s = plan.requests_per_s * input->context_tokens * input->hit_share *
				bytes;
	plan.write_bytes_per_s = plan.requests_per_s * input->context_tokens *
				 (1 - input->hit_share) * bytes * input->copies;
	plan.flash_write_bytes_per_day = plan.write_bytes_per_s * input->write_amplification * 86400;
	plan.hosts = ceil(input->gpus / input->gpus_per_host);
	plan.host_bits_per_s = (plan.read_bytes_per_s + plan.write_bytes_per_s) * 8 / plan.hosts;
	plan.link_used_share = plan.host_bits_per_s / input->link_bits_per_s;
	compute_nodes(input, &plan);
	compute_gpus(input, &plan);
	*ret_plan = plan;
	return 0;
}
