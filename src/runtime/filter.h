/*
 * linux.seccomp, compiled into a program for the kernel: what the number of a system call decides
 * by ourselves (filter_plain.h), the rest by libseccomp.
 */
#ifndef RUNTIME_FILTER_H
#define RUNTIME_FILTER_H

#include <linux/seccomp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <schema/oci_config.h>

#include <base/error.h>

/* A filter as it travels from parent to child. */
struct filter {
    uint32_t flags;  /* SECCOMP_FILTER_FLAG_* */
    uint32_t length; /* instructions; 0: no filter */
    uint64_t code[]; /* struct sock_filter */
};

enum { FILTER_MAX = 4096 }; /* BPF_MAXINSNS */

/* What the features document lists. Each list ends with NULL. */
enum filter_names { FILTER_ACTIONS, FILTER_OPERATORS, FILTER_ARCHITECTURES, FILTER_FLAGS };
const char *filter_name(enum filter_names kind, size_t i);
bool filter_flag_is_supported(size_t i); /* by this kernel; i as in filter_name(FILTER_FLAGS, i) */

/* Are there system calls that an agent decides on (SCMP_ACT_NOTIFY)? config may be NULL. */
bool filter_notifies(const struct oci_seccomp *config);

/* Is there an agent to give the filter's listener to? An agent that is named gets one from a
 * profile without SCMP_ACT_NOTIFY, too, as from crun. config may be NULL. */
bool filter_wants_listener(const struct oci_seccomp *config);

/* Refuses by name what cannot be expressed. Cheap: no compilation. */
int filter_check(const struct oci_seccomp *config, struct error *err);

/* Refuses system calls that libseccomp does not know. config may be NULL. */
int filter_check_known(const struct oci_seccomp *config, struct error *err);

/* config may be NULL. The filter is owned by the caller. System calls that libseccomp does not know
 * are left out, as other runtimes do: profiles list those of many kernels. Those that are newer
 * than every one in the profile fail with ENOSYS (filter_stub.h). */
int filter_compile(const struct oci_seccomp *config, struct filter **ret, size_t *ret_size,
                   struct error *err);

/* The same without a part of our own (filter_plain.h), or with; config is there. */
enum filter_compilers { FILTER_LIBRARY, FILTER_LIBRARY_AND_OWN };
int filter_compile_from(const struct oci_seccomp *config, enum filter_compilers compilers,
                        struct filter **ret, size_t *ret_size, struct error *err);

/* Installs it in the calling process. Needs no_new_privs or CAP_SYS_ADMIN. size is checked.
 * ret_listener: what the agent gets (O_CLOEXEC, owned by the caller), -1 without one (flags).
 */
int filter_install(const struct filter *filter, size_t size, int *ret_listener, struct error *err);

static inline bool filter_has_listener(const struct filter *filter)
{
    return filter->flags & SECCOMP_FILTER_FLAG_NEW_LISTENER;
}

#endif
