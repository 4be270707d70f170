/*
 * The process of an ordinary user's engine that stays outside of its namespaces, to open the ports
 * that are published there.
 */
#ifndef CLOCHED_ROOTLESS_PORTS_H
#define CLOCHED_ROOTLESS_PORTS_H

#include <sys/types.h>

#include <base/error.h>
#include <base/instance.h>

/* Outside, by one launcher at a time: when this returns it serves at RUN/outside.sock. It ends with
 * the holder. */
int rootless_ports_ensure(const struct instance *instance, pid_t holder, struct error *err);

#endif
