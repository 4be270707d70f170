#include <base/alloc.h>
#include <base/buffer.h>
#include <base/text.h>

#include "status.h"

#define SECOND INT64_C(1000000000)

static void put_count(struct buffer *out, int64_t count, const char *what)
{
    buffer_append_decimal(out, (uint64_t)count);
    buffer_append_text(out, what);
}

void status_duration(struct buffer *out, int64_t nanoseconds)
{
    int64_t seconds = nanoseconds / SECOND;
    int64_t minutes = seconds / 60;
    int64_t hours = (seconds + 1800) / 3600;

    if (seconds < 1)
        buffer_append_text(out, "Less than a second");
    else if (seconds == 1)
        buffer_append_text(out, "1 second");
    else if (seconds < 60)
        put_count(out, seconds, " seconds");
    else if (minutes == 1)
        buffer_append_text(out, "About a minute");
    else if (minutes < 60)
        put_count(out, minutes, " minutes");
    else if (hours == 1)
        buffer_append_text(out, "About an hour");
    else if (hours < 48)
        put_count(out, hours, " hours");
    else if (hours < 24 * 7 * 2)
        put_count(out, hours / 24, " days");
    else if (hours < 24 * 30 * 2)
        put_count(out, hours / 24 / 7, " weeks");
    else if (hours < 24 * 365 * 2)
        put_count(out, hours / 24 / 30, " months");
    else
        put_count(out, hours / 24 / 365, " years");
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
    struct buffer out = BUFFER_INIT;
    bool paused = text_equal(facts->state, "paused");
    bool restarting = text_equal(facts->state, "restarting");

    if (paused || text_equal(facts->state, "running")) {
        buffer_append_text(&out, "Up ");
        status_duration(&out, now - facts->started_at);
        buffer_append_text(&out, paused ? " (Paused)" : health_text(facts->health));
        return buffer_steal(&out);
    }
    if (text_equal(facts->state, "removing"))
        return xstrdup("Removal In Progress");
    if (text_equal(facts->state, "dead"))
        return xstrdup("Dead");
    if ((!text_equal(facts->state, "exited") && !restarting) || facts->finished_at == 0)
        return xstrdup("Created");
    buffer_printf(&out, "%s (%d) ", restarting ? "Restarting" : "Exited", facts->exit_code);
    status_duration(&out, now - facts->finished_at);
    buffer_append_text(&out, " ago");
    return buffer_steal(&out);
}
