#include "client/host.h"
#include <headrace/error.h>
int
host_open(struct hr_client *client, struct errbuf *err)
{
	(void)client;
	return errf(err, -HR_EURL, "file: not in this build");
}
void
host_close(struct host *host)
{
	(void)host;
}
const char *
host_address(const struct host *host)
{
	(void)host;
	return "";
}
void
host_wanted(struct host *host)
{
	(void)host;
}
bool
host_gone(struct host *host)
{
	(void)host;
	return false;
}
