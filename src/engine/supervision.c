#include "supervision.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include <base/alloc.h>
#include <base/clock.h>
#include <base/file.h>
#include <base/log.h>
#include <base/text.h>

#include "logconfig.h"

enum {
    /* docker's; its documentation, "Start containers automatically" */
    RESTART_DELAY_MS = 100,
    RESTART_DELAY_MAX_MS = 60 * 1000,
    RESTART_RESET_MS = 10 * 1000,
    BOOT_STEP_MS = 10, /* from one container's start to the next, after the machine's */
    /* docker's; its documentation of HEALTHCHECK */
    CHECK_INTERVAL_MS = 30 * 1000,
    CHECK_TIMEOUT_MS = 30 * 1000,
    CHECK_START_INTERVAL_MS = 5 * 1000,
    CHECK_RETRIES = 3,
    MILLISECOND = 1000 * 1000,
};

const char supervision_check_file[] = "health.json";

/* --- checks ----------------------------------------------------------------------------------- */

static bool is_on_failure(const struct api_restart_policy *policy)
{
    return text_equal(policy->name, "on-failure");
}

static bool is_none(const struct api_restart_policy *policy)
{
    return !policy || text_empty(policy->name) || text_equal(policy->name, "no");
}

int supervision_check_policy(const struct api_restart_policy *policy, struct error *err)
{
    if (!policy)
        return 0;
    if (policy->maximum_retry_count < 0)
        return error_set(err, -EINVAL,
                         "invalid restart policy: maximum retry count cannot be negative");
    if (policy->maximum_retry_count && !is_on_failure(policy))
        return error_set(err, -EINVAL,
                         "invalid restart policy: maximum retry count cannot be used with restart "
                         "policy '%s'",
                         is_none(policy) ? "no" : policy->name);
    return 0;
}

static int check_duration(const char *name, int64_t nanoseconds, struct error *err)
{
    if (nanoseconds != 0 && nanoseconds < MILLISECOND)
        return error_set(err, -EINVAL, "%s in Healthcheck cannot be less than 1ms", name);
    return 0;
}

static int check_test(const struct api_healthcheck *check, struct error *err)
{
    const char *kind = check->test_count ? check->test[0] : "";

    if (check->test_count == 0 || (text_equal(kind, "NONE") && check->test_count == 1) ||
        (text_equal(kind, "CMD") && check->test_count > 1) ||
        (text_equal(kind, "CMD-SHELL") && check->test_count == 2))
        return 0;
    return error_set(err, -EINVAL,
                     "Unknown healthcheck type '%s': expected NONE, CMD with a program, or "
                     "CMD-SHELL with one command",
                     kind);
}

static int check_healthcheck(const struct api_healthcheck *check, struct error *err)
{
    int r = check_test(check, err);

    if (r == 0)
        r = check_duration("Interval", check->interval, err);
    if (r == 0)
        r = check_duration("Timeout", check->timeout, err);
    if (r == 0 && check->retries < 0)
        r = error_set(err, -EINVAL, "Retries in Healthcheck cannot be negative");
    if (r == 0)
        r = check_duration("StartPeriod", check->start_period, err);
    if (r == 0)
        r = check_duration("StartInterval", check->start_interval, err);
    return r;
}

int supervision_check(const struct api_container_spec *spec, struct error *err)
{
    int r = supervision_check_policy(spec->restart_policy, err);

    if (r == 0 && spec->auto_remove &&
        (!is_none(spec->restart_policy) ||
         (spec->restart_policy && spec->restart_policy->when_unhealthy)))
        r = error_set(err, -EINVAL, "can't create 'AutoRemove' container with restart policy");
    if (r == 0 && spec->healthcheck)
        r = check_healthcheck(spec->healthcheck, err);
    if (r == 0)
        r = log_config_check(spec->log_config, err);
    return r;
}

void supervision_warnings(const struct api_container_spec *spec, char ***warnings)
{
    log_config_warnings(spec->log_config, warnings);
    if (spec->restart_policy && spec->restart_policy->when_unhealthy && spec->healthcheck &&
        spec->healthcheck->test_count == 1)
        strv_append(warnings, "The container is not restarted when it is unhealthy: its health "
                              "check is switched off");
}

/* --- what the monitor is told ----------------------------------------------------------------- */

static bool has_check(const struct api_container_spec *effective)
{
    const struct api_healthcheck *check = effective->healthcheck;

    return check && check->test_count > 1;
}

char **supervision_check_command(const struct api_container_spec *effective)
{
    char **command = NULL;

    if (!has_check(effective))
        return NULL;
    const struct api_healthcheck *check = effective->healthcheck;
    if (text_equal(check->test[0], "CMD-SHELL")) {
        strv_append(&command, "/bin/sh");
        strv_append(&command, "-c");
    }
    for (size_t i = 1; i < check->test_count; i++)
        strv_append(&command, check->test[i]);
    return command;
}

static uint32_t milliseconds(int64_t nanoseconds, uint32_t otherwise)
{
    int64_t value = nanoseconds / MILLISECOND;

    if (value <= 0)
        return otherwise;
    return value > INT32_MAX ? INT32_MAX : (uint32_t)value;
}

static void set_check(const struct api_container_spec *effective, struct monitor_check *ret)
{
    const struct api_healthcheck *check = effective->healthcheck;

    if (!has_check(effective))
        return;
    memcpy(ret->process, supervision_check_file, sizeof(supervision_check_file));
    ret->interval_ms = milliseconds(check->interval, CHECK_INTERVAL_MS);
    ret->timeout_ms = milliseconds(check->timeout, CHECK_TIMEOUT_MS);
    ret->start_period_ms = milliseconds(check->start_period, 0);
    ret->start_interval_ms = milliseconds(check->start_interval, CHECK_START_INTERVAL_MS);
    ret->retries = check->retries > 0 ? (uint32_t)check->retries : CHECK_RETRIES;
}

static enum monitor_restart kind_of(const struct api_restart_policy *policy)
{
    if (is_none(policy))
        return MONITOR_RESTART_NO;
    return is_on_failure(policy) ? MONITOR_RESTART_ON_FAILURE : MONITOR_RESTART_ALWAYS;
}

void supervision_policy(const struct container *container, struct monitor_policy *ret)
{
    const struct api_container_spec *effective = container->effective;
    const struct api_restart_policy *policy = effective->restart_policy;

    *ret = (struct monitor_policy){
        .restart = kind_of(policy),
        .flags = policy && policy->when_unhealthy ? MONITOR_POLICY_WHEN_UNHEALTHY : 0,
        .maximum_retries = policy ? (uint32_t)policy->maximum_retry_count : 0,
        .restarts = container->record->restart_count,
        .delay_ms = RESTART_DELAY_MS,
        .delay_max_ms = RESTART_DELAY_MAX_MS,
        .delay_reset_ms = RESTART_RESET_MS,
    };
    log_config_limits(effective->log_config, &ret->log_size, &ret->log_files);
    set_check(effective, &ret->check);
}

/* --- starting again without a monitor --------------------------------------------------------- */

/* Of a start that will come. */
struct revival {
    uv_timer_t timer;
    struct container *container; /* a reference */
};

static void revival_closed(uv_handle_t *handle)
{
    struct revival *revival = handle->data;

    container_unref(revival->container);
    free(revival);
}

void supervision_finish(struct container *container)
{
    struct revival *revival = steal_ptr(container->supervision.revival);

    if (revival)
        uv_close((uv_handle_t *)&revival->timer, revival_closed);
}

void supervision_wanted(struct container *container)
{
    struct record_container *record = container->record;

    supervision_finish(container);
    container->supervision.losses = 0;
    record->manually_stopped = record->has_manually_stopped = false;
    record->restart_count = 0;
    record->has_restart_count = false;
    record->restart_due = record->has_restart_due = false;
}

void supervision_health_reset(struct container *container)
{
    free(container->record->health);
    container->record->health = has_check(container->effective) ? xstrdup("starting") : NULL;
}

void supervision_unwanted(struct container *container)
{
    supervision_finish(container);
    container->record->manually_stopped = container->record->has_manually_stopped = true;
    container->record->restart_due = container->record->has_restart_due = false;
}

bool supervision_cancel(struct container *container)
{
    if (!container->supervision.revival)
        return false;
    supervision_unwanted(container);
    container_commit_record(container);
    return true;
}

bool supervision_take_restart(struct container *container)
{
    bool ours = container->supervision.restarting;

    container->supervision.restarting = false;
    return ours;
}

static void on_started(const struct engine_result *result, void *data)
{
    struct container *container = data;

    if (result->err) {
        log_failure(LOG_WARNING, result->err, "container %.12s cannot be started again",
                    container->id);
        if (!container->engine->ending && container->state <= CONTAINER_EXITED &&
            !container_is_active(container))
            supervision_lost(container);
    }
    container_unref(container);
}

static void restart_now(struct container *container)
{
    if (container->engine->ending || container_is_active(container) ||
        container->state > CONTAINER_EXITED)
        return;
    container->supervision.restarting = true;
    engine_container_start(container, on_started, container_ref(container));
}

static void on_due(uv_timer_t *timer)
{
    struct revival *revival = timer->data;
    struct container *container = container_ref(revival->container);

    supervision_finish(container);
    restart_now(container);
    container_unref(container);
}

/* As the monitor does it: longer each time, until it has run for a while. */
static uint64_t next_delay(struct container *container)
{
    const struct record_container *record = container->record;
    unsigned *losses = &container->supervision.losses;
    int64_t ran = record->finished_at - record->started_at;
    uint64_t delay = RESTART_DELAY_MS;

    if (ran >= (int64_t)RESTART_RESET_MS * MILLISECOND)
        *losses = 0;
    for (unsigned i = 0; i < *losses && delay < RESTART_DELAY_MAX_MS; i++)
        delay *= 2;
    (*losses)++;
    return delay < RESTART_DELAY_MAX_MS ? delay : RESTART_DELAY_MAX_MS;
}

static bool lost_is_restarted(const struct container *container)
{
    const struct api_restart_policy *policy = container->effective->restart_policy;
    const struct record_container *record = container->record;

    if (is_none(policy) || record->manually_stopped || !record->started_at ||
        container->engine->removing)
        return false;
    return !is_on_failure(policy) || !policy->maximum_retry_count ||
           record->restart_count < (uint32_t)policy->maximum_retry_count;
}

static void schedule(struct container *container, uint64_t delay_ms)
{
    struct revival *revival = xnew(struct revival);
    revival->container = container_ref(container);
    revival->timer.data = revival;
    uv_timer_init(container->engine->loop, &revival->timer);
    uv_timer_start(&revival->timer, on_due, delay_ms, 0);
    container->supervision.revival = revival;
}

void supervision_lost(struct container *container)
{
    struct record_container *record = container->record;

    if (!lost_is_restarted(container) || container->supervision.revival)
        return;
    record->restart_count++;
    record->restart_due = record->has_restart_count = record->has_restart_due = true;
    schedule(container, next_delay(container));
}

void supervision_restarted(struct container *container)
{
    container->record->restart_due = container->record->has_restart_due = false;
}

/* --- after the machine's restart -------------------------------------------------------------- */

static char *boot_id(void)
{
    char *text = NULL;

    if (file_read_at(AT_FDCWD, "/proc/sys/kernel/random/boot_id", 64, &text, NULL, NULL) < 0)
        return NULL;
    text[strcspn(text, "\n")] = '\0';
    return text;
}

/* Whether the last daemon of this instance ran before the machine's start. */
static int is_new_boot(struct engine *engine, const char *id, bool *ret, struct error *err)
{
    _cleanup_store_statement_ struct store_statement *row = NULL;

    int r = store_db_query(store_database(engine->store), &row, err,
                           "SELECT value FROM engine_settings WHERE name = 'boot'", "");
    if (r >= 0)
        r = store_statement_step(row, err);
    if (r < 0)
        return r;
    *ret = r == 0 || !text_equal(store_statement_text(row, 0), id);
    return 0;
}

struct boot_job {
    struct disk_job job;
    struct store_db *db;
    char *id; /* owned */
};

static void boot_work(struct disk_job *job)
{
    struct boot_job *boot = disk_job_of(job, struct boot_job, job);
    _cleanup_error_ struct error err = ERROR_INIT;

    if (store_db_run(boot->db, &err, "INSERT OR REPLACE INTO engine_settings VALUES ('boot', ?)",
                     "t", boot->id) < 0)
        log_failure(LOG_ERROR, &err, "the machine's start is not recorded");
}

static void boot_done(struct disk_job *job)
{
    struct boot_job *boot = disk_job_of(job, struct boot_job, job);

    free(boot->id);
    free(boot);
}

/* After the records of all that are to start, on the same thread: a daemon that dies now leaves
 * either these or a start of the machine that nobody has seen. */
static void remember_boot(struct engine *engine, char *id)
{
    struct boot_job *boot = xnew(struct boot_job);

    boot->db = store_database(engine->store);
    boot->id = id;
    boot->job.work = boot_work;
    boot->job.done = boot_done;
    disk_submit(engine->disk, &boot->job);
}

/* docker's rules. A container that was lost with the machine is settled by supervision_lost(). */
static bool boots(const struct container *container)
{
    const struct api_restart_policy *policy = container->effective->restart_policy;
    const struct record_container *record = container->record;

    if (is_none(policy) || is_on_failure(policy) || !record->started_at ||
        container->state != CONTAINER_EXITED || container->supervision.revival)
        return false;
    return text_equal(policy->name, "always") || !record->manually_stopped;
}

/* An earlier daemon died before it could start it again. */
static bool is_due(const struct container *container)
{
    return container->record->restart_due && !container->supervision.revival &&
           !container_is_active(container) && container->state <= CONTAINER_EXITED;
}

void supervision_boot(struct engine *engine)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    _cleanup_free_ char *id = boot_id();
    size_t count = engine->containers_count, started = 0;
    bool fresh = false;

    if (id && is_new_boot(engine, id, &fresh, &err) < 0)
        log_failure(LOG_ERROR, &err, "whether the machine was restarted is not known");
    struct container **all = xnew_array(struct container *, count + 1);
    for (size_t i = 0; i < count; i++)
        all[i] = container_ref(engine->containers[i]);
    for (size_t i = 0; i < count; i++) {
        if (fresh && boots(all[i])) {
            struct record_container *record = all[i]->record;
            record->restart_due = record->has_restart_due = true;
            container_commit_record(all[i]);
            schedule(all[i], started++ * BOOT_STEP_MS);
        } else if (is_due(all[i])) {
            schedule(all[i], next_delay(all[i]));
        }
        container_unref(all[i]);
    }
    free(all);
    if (fresh)
        remember_boot(engine, steal_ptr(id));
}
