#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <base/alloc.h>
#include <base/text.h>

#include "status.h"

#define SECOND INT64_C(1000000000)

char *status_duration(int64_t nanoseconds)
{
    int64_t seconds = nanoseconds / SECOND;
    int64_t minutes = seconds / 60;
    int64_t hours = (seconds + 1800) / 3600;

    if (seconds < 1)
        return xstrdup("Less than a second");
    if (seconds == 1)
        return xstrdup("1 second");
    if (seconds < 60)
        return xasprintf("%jd seconds", (intmax_t)seconds);
    if (minutes == 1)
        return xstrdup("About a minute");
    if (minutes < 60)
        return xasprintf("%jd minutes", (intmax_t)minutes);
    if (hours == 1)
        return xstrdup("About an hour");
    if (hours < 48)
        return xasprintf("%jd hours", (intmax_t)hours);
    if (hours < 24 * 7 * 2)
        return xasprintf("%jd days", (intmax_t)(hours / 24));
    if (hours < 24 * 30 * 2)
        return xasprintf("%jd weeks", (intmax_t)(hours / 24 / 7));
    if (hours < 24 * 365 * 2)
        return xasprintf("%jd months", (intmax_t)(hours / 24 / 30));
    return xasprintf("%jd years", (intmax_t)(hours / 24 / 365));
}

static const char *health_text(const char *health)
{
    if (!health)
        return "";
    if (text_equal(health, "starting"))
        return " (health: starting)";
    return text_equal(health, "healthy") ? " (healthy)" : " (unhealthy)";
}

char *status_text(const struct status_facts *facts, int64_t now)
{
    if (text_equal(facts->state, "running") || text_equal(facts->state, "paused")) {
        _cleanup_free_ char *since = status_duration(now - facts->started_at);
        return xasprintf("Up %s%s", since,
                         text_equal(facts->state, "paused") ? " (Paused)"
                                                            : health_text(facts->health));
    }
    if (text_equal(facts->state, "removing"))
        return xstrdup("Removal In Progress");
    if (text_equal(facts->state, "dead"))
        return xstrdup("Dead");
    bool restarting = text_equal(facts->state, "restarting");
    if ((!text_equal(facts->state, "exited") && !restarting) || facts->finished_at == 0)
        return xstrdup("Created");
    _cleanup_free_ char *ago = status_duration(now - facts->finished_at);
    return xasprintf("%s (%d) %s ago", restarting ? "Restarting" : "Exited", facts->exit_code, ago);
}
