/* backends_absent.c - kinds that this build does not have: io_create() refuses them. */
#include <errno.h>

#include "io/io_impl.h"

static int
absent_create(struct io *io)
{
	(void)io;
	return -EOPNOTSUPP;
}
const struct io_net_ops net_uring_ops = { .name = "io_uring", .create = absent_create };
const struct io_net_ops net_sim_ops = { .name = "simulated", .create = absent_create };
const struct io_disk_ops disk_sim_ops = { .name = "simulated", .create = absent_create };
int
sim_io_attach(struct sim *sim, struct io *io)
{
	(void)sim;
	(void)io;
	return -EOPNOTSUPP;
}
void
sim_io_detach(struct sim *sim, struct io *io)
{
	(void)sim;
	(void)io;
}
int
sim_io_run(struct io *io, uint64_t wait_us_max)
{
	(void)io;
	(void)wait_us_max;
	return -EOPNOTSUPP;
}
uint64_t
sim_random(struct sim *sim)
{
	(void)sim;
	return 0;
}
uint64_t
sim_wall_ms(const struct sim *sim)
{
	(void)sim;
	return 0;
}
uint64_t
sim_now_us(const struct sim *sim)
{
	(void)sim;
	return 0;
}
void
sim_trace_timer(struct sim *sim, uint32_t io_id, uint64_t at_us)
{
	(void)sim;
	(void)io_id;
	(void)at_us;
}

int
sim_create(uint64_t seed, struct sim **ret_sim)
{
	(void)seed;
	(void)ret_sim;
	return -EOPNOTSUPP;
}
void
sim_destroy(struct sim *sim)
{
	(void)sim;
}

int
sim_device_add(struct sim *sim, const char *name, const struct sim_device_options *options)
{
	(void)sim;
	(void)name;
	(void)options;
	return -EOPNOTSUPP;
}
