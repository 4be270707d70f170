/*
 * Restarts, health checks and limits of the log. The monitor carries them out
 * (<monitor/protocol.h>); here is what it is told, what is known of it, and what only a daemon can
 * do: starting a container again whose monitor is gone too, or the whole machine was.
 */
#ifndef ENGINE_SUPERVISION_H
#define ENGINE_SUPERVISION_H

#include "internal.h"

/* Whether the fields make sense, with docker's messages. -EINVAL, -EOPNOTSUPP. Pure. */
int supervision_check(const struct api_container_spec *spec, struct error *err);
int supervision_check_policy(const struct api_restart_policy *policy, struct error *err);
/* What of a request has no effect; appended to the list of warnings. Pure. */
void supervision_warnings(const struct api_container_spec *spec, char ***warnings);

/* What the monitor of a container that is started is told. */
void supervision_policy(const struct container *container, struct monitor_policy *ret);

/* Arguments of the health check's command; NULL: there is none. Owned by the caller. Pure. */
char **supervision_check_command(const struct api_container_spec *effective);

/* The name of the check's process document in the run folder. */
extern const char supervision_check_file[];

/* What is known of the container's health, for inspect: NULL where nobody checks. Reads a few small
 * files of the run folder, which lies in memory. Owned by the caller. */
struct api_health *supervision_health(const struct container *container);

/* Somebody starts it (not a restart), or stops it, or removes it. */
void supervision_wanted(struct container *container);
void supervision_unwanted(struct container *container);
/* Takes a start back that was to come; whether there was one. */
bool supervision_cancel(struct container *container);
/* A start begins: whether it is one of ours. */
bool supervision_take_restart(struct container *container);

/* A run begins: nothing is known of its health but whether anybody will check. */
void supervision_health_reset(struct container *container);

/* It ended with its monitor, or could not be started again: started again after a while, where its
 * policy says so. */
void supervision_lost(struct container *container);

/* It runs again. */
void supervision_restarted(struct container *container);

/* When every container's state is known: starts those that an earlier daemon was to start again,
 * and after the machine's restart those whose policy wants it. Does not wait. */
void supervision_boot(struct engine *engine);

/* A container's death; also before engine_end(). */
void supervision_finish(struct container *container);

#endif
