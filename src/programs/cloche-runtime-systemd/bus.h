/*
 * What the runtime asks of systemd (org.freedesktop.systemd1(5)), over D-Bus. All of it blocks, at
 * most BUS_JOB_TIMEOUT_S for a job; a call without answer fails after libsystemd's 25 s.
 */
#ifndef CLOCHE_RUNTIME_SYSTEMD_BUS_H
#define CLOCHE_RUNTIME_SYSTEMD_BUS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <systemd/sd-bus.h>

#include <base/error.h>

#include "gvariant.h"

enum {
    BUS_JOB_TIMEOUT_S = 30,
    PROPERTIES_MAX = 4096,
};

struct property {
    const char *name; /* borrowed */
    struct gvariant *value;
    unsigned min_version; /* left out when systemd is older */
};

/* Opens the system bus or that of the user's systemd. Released by sd_bus_flush_close_unref. As root
 * without a D-Bus daemon, systemd's own socket. */
int bus_open(bool user, sd_bus **ret, struct error *err);

/* The major version of systemd. */
int bus_systemd_version(sd_bus *bus, unsigned *ret, struct error *err);

/* Starts a scope with the process in it, below the slice ("": systemd's choice), and waits until it
 * is there; on failure nothing is left of it. A failed unit that a former one of the name left
 * behind is removed. *ret_cgroup, owned: the scope's cgroup as systemd names it
 * ("/machine.slice/a.scope"). */
int bus_start_scope(sd_bus *bus, const char *unit, const char *slice, pid_t pid,
                    const struct property *properties, size_t count, char **ret_cgroup,
                    struct error *err);

/* Until the unit ends or the machine does. */
int bus_set_properties(sd_bus *bus, const char *unit, const struct property *properties,
                       size_t count, struct error *err);

/* Stops the unit, waits, and lets systemd forget a failure of it. No such unit is success. */
int bus_stop(sd_bus *bus, const char *unit, struct error *err);

/* Moves a process into the unit's cgroup, which the caller may not have the right to write to. */
int bus_attach(sd_bus *bus, const char *unit, const char *subgroup, pid_t pid, struct error *err);

#endif
