#include <stdlib.h>

#include <base/text.h>

#include "config_version.h"

/* The minor number of "1.3.0" or "1.0.2-dev"; 0 for what is no such version. */
static unsigned long minor_version(const char *version)
{
    return text_starts_with(version, "1.") ? strtoul(version + 2, NULL, 10) : 0;
}

/* Up to 1.2 a limit of 0 was a limit that is not set, and so podman 4 writes no limit. Since 1.3 it
 * is a limit of nothing (config-linux.md, "PIDs"). */
static void modernize_pids(struct oci_pids *pids)
{
    if (pids && pids->has_limit && pids->limit == 0)
        pids->limit = -1;
}

void config_modernize(struct oci_config *config)
{
    if (minor_version(config->oci_version) < 3 && config->linux && config->linux->resources)
        modernize_pids(config->linux->resources->pids);
}
