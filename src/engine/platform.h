/* OS[/ARCHITECTURE[/VARIANT]], as docker's --platform. */
#ifndef ENGINE_PLATFORM_H
#define ENGINE_PLATFORM_H

#include <base/error.h>
#include <schema/image_worker.h>

/* What this machine runs. Static. */
struct image_worker_platform *platform_own(void);

/* Owned. text NULL or "": this machine's. What it leaves out is this machine's, too. -EINVAL. */
int platform_parse(const char *text, struct image_worker_platform **ret, struct error *err);

#endif
