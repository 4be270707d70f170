/*
 * linux.seccomp, compiled by libseccomp into a program for the kernel.
 */
#ifndef RUNTIME_FILTER_H
#define RUNTIME_FILTER_H

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

/* Refuses by name what cannot be expressed. Cheap: no compilation. */
int filter_check(const struct oci_seccomp *config, struct error *err);

/* config may be NULL. The filter is owned by the caller. System calls that libseccomp does not know
 * are left out, as other runtimes do: profiles list those of many kernels. */
int filter_compile(const struct oci_seccomp *config, struct filter **ret, size_t *ret_size,
                   struct error *err);

/* Installs it in the calling process. Needs no_new_privs or CAP_SYS_ADMIN. size is checked. */
int filter_install(const struct filter *filter, size_t size, struct error *err);

#endif
