/*
 * BUNDLE/status: what became of a container, for a daemon that finds no monitor any more. A text
 * file of NAME=VALUE lines, replaced atomically by the monitor when the container runs and when it
 * has ended or could not be started; before that there is none:
 *
 *     version=1
 *     state=exited                  running, restarting or exited
 *     monitor=4711                  its process id
 *     monitor_started=812345        when it began, as process_start_time() tells: the number of one
 *                                   that is gone may be another's
 *     pid=0
 *     started=1795514400123456789   nanoseconds since the epoch
 *     finished=1795514401123456789  of the last run, as the next two: where one has ended
 *     exit_code=137
 *     oom=0
 *     restarts=2                    how often it was restarted; not when never
 *     health=healthy                starting, healthy or unhealthy; not when nobody checks
 *     failing_streak=0
 *     next_start=...                when it will be tried, where it waits for a restart
 *     error=...                     why it could not be started; one line
 */
#ifndef MONITOR_STATUS_H
#define MONITOR_STATUS_H

#include <base/buffer.h>
#include <base/error.h>
#include <monitor/protocol.h>

enum { MONITOR_STATUS_VERSION = 1, MONITOR_STATUS_FILE_MAX = 8192 };

/* "none", "starting", "healthy", "unhealthy". */
const char *monitor_health_name(uint32_t status);

/* monitor_started: 0: not known. error: NULL or a text; control characters in it become spaces. */
void monitor_status_format(const struct monitor_status *status, uint64_t monitor_started,
                           const char *error, struct buffer *out);

/* Reads dir_fd/status. -ENOENT: there is none; -EPROTONOSUPPORT: a newer version; -EBADMSG: not
 * such a file. *ret_error: NULL or owned by the caller. log_size is 0. */
int monitor_status_read(int dir_fd, struct monitor_status *ret, char **ret_error,
                        struct error *err);
/* The same without the error, and when the monitor began; 0: one of an engine that did not say. */
int monitor_status_read_monitor(int dir_fd, struct monitor_status *ret, uint64_t *ret_started,
                                struct error *err);

#endif
