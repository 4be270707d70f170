#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/clock.h>
#include <base/text.h>

#include "bus.h"

#define DESTINATION "org.freedesktop.systemd1"
#define MANAGER_PATH "/org/freedesktop/systemd1"
#define MANAGER "org.freedesktop.systemd1.Manager"
#define SCOPE "org.freedesktop.systemd1.Scope"
#define ERROR_UNIT_EXISTS "org.freedesktop.systemd1.UnitExists"
#define ERROR_NO_SUCH_UNIT "org.freedesktop.systemd1.NoSuchUnit"
#define PRIVATE_SOCKET "unix:path=/run/systemd/private"

#define _cleanup_bus_error_ _cleanup_(sd_bus_error_free)
#define _cleanup_message_ _cleanup_(sd_bus_message_unrefp)
#define _cleanup_slot_ _cleanup_(sd_bus_slot_unrefp)

struct job {
    const char *path; /* of the answer to the call; borrowed */
    char *result;     /* owned; set when it has ended: "done", "failed", "timeout" ... */
};

/* sd-bus fills the error when systemd, and only returns a number when it or the socket refuses. */
static int report(struct error *err, int r, const sd_bus_error *bus_error, const char *what)
{
    if (bus_error->message && strstr(bus_error->message, "Unexpected message contents"))
        return error_set(err, r, "%s: a property is of another type than systemd wants", what);
    if (sd_bus_error_is_set(bus_error))
        return error_set(err, r, "%s: %s", what,
                         bus_error->message ? bus_error->message : bus_error->name);
    return error_errno(err, -r, "%s", what);
}

static int open_private(sd_bus **ret)
{
    sd_bus *bus = NULL;
    int r = sd_bus_new(&bus);

    if (r >= 0)
        r = sd_bus_set_address(bus, PRIVATE_SOCKET);
    if (r >= 0)
        r = sd_bus_start(bus);
    if (r < 0) {
        sd_bus_unref(bus);
        return r;
    }
    *ret = bus;
    return 0;
}

int bus_open(bool user, sd_bus **ret, struct error *err)
{
    int r = user ? sd_bus_open_user(ret) : sd_bus_open_system(ret);

    if (r < 0 && !user && geteuid() == 0 && open_private(ret) == 0)
        r = 0;
    if (r >= 0)
        return 0;
    error_errno(err, -r, "connect to the %s bus", user ? "user's D-Bus" : "system's D-Bus");
    if (user)
        error_hint(err, "DBUS_SESSION_BUS_ADDRESS or XDG_RUNTIME_DIR must lead to the bus of "
                        "`systemd --user` (package dbus-user-session; log in again)");
    return r;
}

int bus_systemd_version(sd_bus *bus, unsigned *ret, struct error *err)
{
    _cleanup_bus_error_ sd_bus_error bus_error = SD_BUS_ERROR_NULL;
    _cleanup_free_ char *text = NULL;
    int r = sd_bus_get_property_string(bus, DESTINATION, MANAGER_PATH, MANAGER, "Version",
                                       &bus_error, &text);

    if (r < 0)
        return report(err, r, &bus_error, "ask systemd for its version");
    /* "252.39-1~deb12u2", "v245.4-1.fc32" */
    *ret = (unsigned)strtoul(text + strcspn(text, "0123456789"), NULL, 10);
    return 0;
}

/* --- values ----------------------------------------------------------------------------------- */

static int append_value(sd_bus_message *message, const struct gvariant *value);

static int append_items(sd_bus_message *message, char kind, const char *contents,
                        const struct gvariant *value)
{
    int r = sd_bus_message_open_container(message, kind, contents);

    for (size_t i = 0; r >= 0 && i < value->count; i++)
        r = append_value(message, value->items[i]);
    return r < 0 ? r : sd_bus_message_close_container(message);
}

static int append_tuple(sd_bus_message *message, const struct gvariant *value)
{
    char contents[sizeof(value->signature)];
    size_t length = strlen(value->signature);

    memcpy(contents, value->signature + 1, length - 2);
    contents[length - 2] = '\0';
    return append_items(message, SD_BUS_TYPE_STRUCT, contents, value);
}

static int append_value(sd_bus_message *message, const struct gvariant *value)
{
    const char *type = value->signature;

    switch (*type) {
    case 'a':
        return append_items(message, SD_BUS_TYPE_ARRAY, type + 1, value);
    case '(':
        return append_tuple(message, value);
    case 'v':
        return append_items(message, SD_BUS_TYPE_VARIANT, value->items[0]->signature, value);
    case 's':
    case 'o':
    case 'g':
        return sd_bus_message_append(message, type, value->text);
    case 'b':
        return sd_bus_message_append(message, type, (int)value->boolean);
    case 'd':
        return sd_bus_message_append(message, type, value->real);
    case 'n':
    case 'i':
        return sd_bus_message_append(message, type, (int)value->integer);
    case 'x':
        return sd_bus_message_append(message, type, value->integer);
    case 'y':
    case 'q':
    case 'u':
        return sd_bus_message_append(message, type, (unsigned)value->unsigned_integer);
    default:
        return sd_bus_message_append(message, type, value->unsigned_integer);
    }
}

static int append_property(sd_bus_message *message, const struct property *property)
{
    int r = sd_bus_message_open_container(message, SD_BUS_TYPE_STRUCT, "sv");

    if (r >= 0)
        r = sd_bus_message_append(message, "s", property->name);
    if (r >= 0)
        r = sd_bus_message_open_container(message, SD_BUS_TYPE_VARIANT, property->value->signature);
    if (r >= 0)
        r = append_value(message, property->value);
    if (r >= 0)
        r = sd_bus_message_close_container(message);
    return r < 0 ? r : sd_bus_message_close_container(message);
}

/* Asks for systemd's version only when something depends on it. */
static int append_properties(sd_bus *bus, sd_bus_message *message,
                             const struct property *properties, size_t count, struct error *err)
{
    unsigned version = 0;
    int r = 0;

    for (size_t i = 0; i < count; i++) {
        if (properties[i].min_version && !version)
            r = bus_systemd_version(bus, &version, err);
        if (r < 0)
            return r;
        if (properties[i].min_version > version)
            continue;
        r = append_property(message, &properties[i]);
        if (r < 0)
            return error_errno(err, -r, "property %s", properties[i].name);
    }
    return 0;
}

/* --- jobs ------------------------------------------------------------------------------------- */

static int on_job_removed(sd_bus_message *message, void *context, sd_bus_error *ret_error _unused_)
{
    struct job *job = context;
    const char *path, *unit, *result;
    uint32_t id;

    if (sd_bus_message_read(message, "uoss", &id, &path, &unit, &result) >= 0 && !job->result &&
        text_equal(path, job->path))
        job->result = xstrdup(result);
    return 0;
}

/* Before the call that makes the job: it may have ended before the answer is read. */
static int watch_jobs(sd_bus *bus, struct job *job, sd_bus_slot **ret, struct error *err)
{
    int r = sd_bus_match_signal(bus, ret, DESTINATION, MANAGER_PATH, MANAGER, "JobRemoved",
                                on_job_removed, job);

    return r < 0 ? error_errno(err, -r, "watch the jobs of systemd") : 0;
}

static int wait_for_job(sd_bus *bus, struct job *job, const char *unit, struct error *err)
{
    int64_t end = clock_milliseconds() + BUS_JOB_TIMEOUT_S * 1000;

    while (!job->result) {
        int64_t left = end - clock_milliseconds();
        int r = sd_bus_process(bus, NULL);
        if (r == 0 && left > 0)
            r = sd_bus_wait(bus, (uint64_t)left * 1000);
        if (r < 0 && r != -EINTR)
            return error_errno(err, -r, "wait for systemd's job for %s", unit);
        if (left <= 0 && !job->result)
            return error_set(err, -ETIMEDOUT, "systemd's job for %s did not end within %d s", unit,
                             BUS_JOB_TIMEOUT_S);
    }
    return 0;
}

/* Calls a method whose answer is a job's path, and waits for the job. */
static int run_job(sd_bus *bus, sd_bus_message *call, const char *unit, const char *what,
                   char **ret_result, sd_bus_error *bus_error, struct error *err)
{
    _cleanup_message_ sd_bus_message *answer = NULL;
    _cleanup_slot_ sd_bus_slot *slot = NULL;
    struct job job = {0};
    int r = watch_jobs(bus, &job, &slot, err);

    if (r < 0)
        return r;
    r = sd_bus_call(bus, call, 0, bus_error, &answer);
    if (r >= 0)
        r = sd_bus_message_read(answer, "o", &job.path);
    if (r < 0)
        return report(err, r, bus_error, what);
    r = wait_for_job(bus, &job, unit, err);
    *ret_result = job.result;
    return r;
}

static void reset_failed(sd_bus *bus, const char *unit)
{
    sd_bus_call_method(bus, DESTINATION, MANAGER_PATH, MANAGER, "ResetFailedUnit", NULL, NULL, "s",
                       unit);
}

/* --- units ------------------------------------------------------------------------------------ */

static int new_start_call(sd_bus *bus, const char *unit, const char *slice, pid_t pid,
                          const struct property *properties, size_t count, sd_bus_message **ret,
                          struct error *err)
{
    _cleanup_message_ sd_bus_message *call = NULL;
    int r = sd_bus_message_new_method_call(bus, &call, DESTINATION, MANAGER_PATH, MANAGER,
                                           "StartTransientUnit");

    if (r >= 0)
        r = sd_bus_message_append(call, "ss", unit, "replace");
    if (r >= 0)
        r = sd_bus_message_open_container(call, SD_BUS_TYPE_ARRAY, "(sv)");
    if (r >= 0 && !text_empty(slice))
        r = sd_bus_message_append(call, "(sv)", "Slice", "s", slice);
    if (r >= 0)
        r = sd_bus_message_append(call, "(sv)", "PIDs", "au", 1, (uint32_t)pid);
    if (r < 0)
        return error_errno(err, -r, "prepare a call of systemd");
    r = append_properties(bus, call, properties, count, err);
    if (r < 0)
        return r;
    r = sd_bus_message_close_container(call);
    if (r >= 0)
        r = sd_bus_message_append(call, "a(sa(sv))", 0);
    if (r < 0)
        return error_errno(err, -r, "prepare a call of systemd");
    *ret = steal_ptr(call);
    return 0;
}

static int get_cgroup(sd_bus *bus, const char *unit, char **ret, struct error *err)
{
    _cleanup_bus_error_ sd_bus_error bus_error = SD_BUS_ERROR_NULL;
    _cleanup_free_ char *path = NULL;
    int r = sd_bus_path_encode("/org/freedesktop/systemd1/unit", unit, &path);

    if (r >= 0)
        r = sd_bus_get_property_string(bus, DESTINATION, path, SCOPE, "ControlGroup", &bus_error,
                                       ret);
    if (r >= 0 && text_empty(*ret))
        return error_set(err, -ESRCH, "systemd's unit %s has no cgroup: its process is gone", unit);
    return r < 0 ? report(err, r, &bus_error, "ask systemd for the scope's cgroup") : 0;
}

int bus_start_scope(sd_bus *bus, const char *unit, const char *slice, pid_t pid,
                    const struct property *properties, size_t count, char **ret_cgroup,
                    struct error *err)
{
    _cleanup_free_ char *result = NULL;
    bool exists = true;
    int r = 0;

    for (int attempt = 0; exists && attempt < 2; attempt++) {
        _cleanup_bus_error_ sd_bus_error bus_error = SD_BUS_ERROR_NULL;
        _cleanup_message_ sd_bus_message *call = NULL;
        if (attempt)
            reset_failed(bus, unit);
        error_finish(err);
        r = new_start_call(bus, unit, slice, pid, properties, count, &call, err);
        if (r < 0)
            return r;
        r = run_job(bus, call, unit, "start a scope", &result, &bus_error, err);
        exists = r < 0 && sd_bus_error_has_name(&bus_error, ERROR_UNIT_EXISTS);
    }
    if (r < 0)
        return r;
    r = text_equal(result, "done") ? get_cgroup(bus, unit, ret_cgroup, err)
                                   : error_set(err, -EIO, "the job that starts it ended as '%s'",
                                               result ? result : "unknown");
    if (r < 0)
        bus_stop(bus, unit, NULL);
    return r;
}

int bus_set_properties(sd_bus *bus, const char *unit, const struct property *properties,
                       size_t count, struct error *err)
{
    _cleanup_bus_error_ sd_bus_error bus_error = SD_BUS_ERROR_NULL;
    _cleanup_message_ sd_bus_message *call = NULL;
    int r = sd_bus_message_new_method_call(bus, &call, DESTINATION, MANAGER_PATH, MANAGER,
                                           "SetUnitProperties");

    if (r >= 0)
        r = sd_bus_message_append(call, "sb", unit, true);
    if (r >= 0)
        r = sd_bus_message_open_container(call, SD_BUS_TYPE_ARRAY, "(sv)");
    if (r < 0)
        return error_errno(err, -r, "prepare a call of systemd");
    r = append_properties(bus, call, properties, count, err);
    if (r < 0)
        return r;
    r = sd_bus_message_close_container(call);
    if (r >= 0)
        r = sd_bus_call(bus, call, 0, &bus_error, NULL);
    return r < 0 ? report(err, r, &bus_error, "set the properties of a scope") : 0;
}

int bus_stop(sd_bus *bus, const char *unit, struct error *err)
{
    _cleanup_bus_error_ sd_bus_error bus_error = SD_BUS_ERROR_NULL;
    _cleanup_message_ sd_bus_message *call = NULL;
    _cleanup_free_ char *result = NULL;
    int r =
        sd_bus_message_new_method_call(bus, &call, DESTINATION, MANAGER_PATH, MANAGER, "StopUnit");

    if (r >= 0)
        r = sd_bus_message_append(call, "ss", unit, "replace");
    if (r < 0)
        return error_errno(err, -r, "prepare a call of systemd");
    r = run_job(bus, call, unit, "stop the scope", &result, &bus_error, err);
    if (r < 0 && sd_bus_error_has_name(&bus_error, ERROR_NO_SUCH_UNIT)) {
        error_finish(err);
        return 0;
    }
    /* A unit that failed (its time was over, its memory) stays known until it is told not to. */
    reset_failed(bus, unit);
    return r;
}

int bus_attach(sd_bus *bus, const char *unit, const char *subgroup, pid_t pid, struct error *err)
{
    _cleanup_bus_error_ sd_bus_error bus_error = SD_BUS_ERROR_NULL;
    int r = sd_bus_call_method(bus, DESTINATION, MANAGER_PATH, MANAGER, "AttachProcessesToUnit",
                               &bus_error, NULL, "ssau", unit, subgroup, 1, (uint32_t)pid);

    return r < 0 ? report(err, r, &bus_error, "put a process into the scope") : 0;
}
