/*
 * The words that `ps` shows for a state, in docker's wording. Pure.
 */
#ifndef ENGINE_STATUS_H
#define ENGINE_STATUS_H

#include <stdbool.h>
#include <stdint.h>

#include <base/buffer.h>

/* "3 seconds", "About a minute", "2 hours" ... for a span in nanoseconds. */
void status_duration(struct buffer *out, int64_t nanoseconds);

/* Times are nanoseconds since 1970, 0: never. state: a state_name of the management API. */
struct status_facts {
    const char *state;
    int64_t started_at;
    int64_t finished_at;
    int exit_code;
    const char *health; /* "starting", "healthy", "unhealthy"; NULL: nobody checks */
};

/* "Created", "Up 3 seconds (healthy)", "Restarting (1) 2 seconds ago", "Exited (0) 2 minutes ago"
 * ... Owned by the caller. */
char *status_text(const struct status_facts *facts, int64_t now);

#endif
