/*
 * The five capability sets of a process (capabilities(7)) as bit masks.
 */
#ifndef RUNTIME_CAPABILITIES_H
#define RUNTIME_CAPABILITIES_H

#include <stdbool.h>
#include <stdint.h>

#include <base/error.h>

struct capability_sets {
    uint64_t bounding, effective, permitted, inheritable, ambient;
};

/* "CAP_CHOWN" -> bit number. -EINVAL for a name that does not exist or that this kernel lacks. */
int capability_from_name(const char *name, struct error *err);

/* The other way round, for numbers up to CAP_LAST_CAP; owned by the caller. */
char *capability_name(int capability);

/* Does the caller have it in force? */
bool capability_is_effective(int capability);

/* Removes everything else from the bounding set. Needs CAP_SETPCAP. */
int capability_limit_bounding(uint64_t bounding, struct error *err);

/* Makes all permitted capabilities effective: between setresuid with PR_SET_KEEPCAPS, which clears
 * them, and capability_apply. ret: which they are. */
int capability_raise_permitted(uint64_t *ret, struct error *err);

/* Sets effective, permitted, inheritable and ambient. have: what the caller has; other capabilities
 * are not given. capset(2) and prctl(2) are all it calls: a seccomp filter may be in force. */
int capability_apply(const struct capability_sets *sets, uint64_t have, struct error *err);

#endif
