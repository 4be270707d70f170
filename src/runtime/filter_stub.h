/*
 * What stands before a filter: system calls newer than every one that the profile names fail with
 * ENOSYS. The author of a profile that refuses by default could not know them, and libc falls back
 * to an older call only after ENOSYS (with EPERM clone3 and faccessat2 broke programs in
 * containers; runc has the same since 1.0.0-rc93).
 */
#ifndef RUNTIME_FILTER_STUB_H
#define RUNTIME_FILTER_STUB_H

#include <stdbool.h>
#include <stdint.h>

#include <base/buffer.h>

/* Not where the default is to let pass (the kernel answers for itself) nor where it is ENOSYS. */
bool filter_stub_is_wanted(uint32_t default_action);

/* Appends the instructions (struct sock_filter) for one architecture. token: libseccomp's; last:
 * the highest number that the profile names there. What does not match falls through. */
void filter_stub_append(uint32_t token, uint32_t last, struct buffer *out);

#endif
