/*
 * Compiles a profile without waiting for ever.
 */
#ifndef RUNTIME_FILTER_GUARD_H
#define RUNTIME_FILTER_GUARD_H

#include "filter.h"

/* As filter_compile(), and -ETIME for a profile that libseccomp does not come to an end with. Makes
 * a process, which is gone when it returns, where the profile has conditions. */
int filter_compile_guarded(const struct oci_seccomp *config, struct filter **ret, size_t *ret_size,
                           struct error *err);

#endif
