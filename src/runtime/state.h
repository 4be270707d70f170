/*
 * What is known of a container between two commands: a folder ROOT/ID with its record (record.h)
 * and, until it is started, exec.fifo.
 */
#ifndef RUNTIME_STATE_H
#define RUNTIME_STATE_H

#include <runtime/runtime.h>
#include <schema/oci_config.h>
#include <schema/runtime_state.h>

#include "cgroup.h"
#include "container.h"
#include "record.h"

#define STATE_FIFO "exec.fifo"

enum { CONFIG_FILE_MAX = RECORD_CONFIG_MAX };

/* A container that exists. */
struct stored {
    struct record record;        /* owned */
    struct runtime_state *state; /* owned */
    int fd;                      /* owned; its folder */
    int root_fd;                 /* owned; the folder with all of them */
    int pidfd;                   /* owned; of its init when that lives, else -1 */
    enum cloche_runtime_status status;
};

int state_check_id(const char *id, struct error *err);

/* Makes ROOT/ID; -EEXIST when it is there. Returns its descriptor. */
int state_create(const char *root, const char *id, struct error *err);

/* Writes the state of a container whose init is pid, with its configuration. First of all with 0:
 * being created. */
int state_write(struct container *container, pid_t pid, struct error *err);

/* "container does not exist" is -ENOENT. */
int state_load(struct stored *stored, const char *root, const char *id, struct error *err);
/* For who writes files into the folder: one after the other, until state_finish. Blocks. */
int state_load_locked(struct stored *stored, const char *root, const char *id, struct error *err);
int state_load_config(const struct stored *stored, struct oci_config **ret, struct error *err);
int state_open_cgroup(const struct stored *stored, struct cgroup *ret, struct error *err);
void state_finish(struct stored *stored);

/* Removes the folder. */
int state_remove(const char *root, const char *id, struct error *err);
/* The same, of a container that was never to be started by another command, whose folder (fd)
 * serves the next one: state_create takes it. */
int state_retire(const char *root, const char *id, int fd, struct error *err);

/* Whether a process is still what it was cloned as: it has executed no program, and if it has ended
 * (and was not waited for), it never did. */
bool state_never_executed(pid_t pid);

/* The OCI state document for hooks; one line. */
void state_for_hooks(const struct runtime_state *state, const char *status, pid_t pid,
                     struct buffer *out);

#endif
