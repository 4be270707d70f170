/*
 * Restart policy, health checks and log.
 */
#include <errno.h>
#include <limits.h>
#include <string.h>

#include <base/alloc.h>
#include <base/text.h>

#include "human.h"
#include "spec.h"

enum { NANO = 1000000000 };

/* docker wants at least a millisecond, or 0 for the default. */
static int parse_time(const char *text, void *value, struct error *err)
{
    double seconds;

    if (text_equal(text, "0")) {
        *(int64_t *)value = 0;
        return 0;
    }
    if (!text[0] || human_parse_duration(text, &seconds) < 0 || seconds > (double)INT32_MAX)
        return error_set(err, -EINVAL, "time: invalid duration \"%s\"", text);
    *(int64_t *)value = (int64_t)(seconds * NANO);
    if (*(int64_t *)value < NANO / 1000)
        return error_set(err, -EINVAL, "a duration cannot be less than 1ms");
    return 0;
}

static const char *const restart_words[] = {"no", "always", "unless-stopped", "on-failure", NULL};
static const char *const log_words[] = {"json-file", "local", "none", NULL};

const struct option supervision_option_table[] = {
    {
        .name = "health-cmd",
        .kind = OPTION_TEXT,
        .offset = offsetof(struct supervision_options, health_cmd),
        .argument = "string",
        .help = "Command that says whether it does its work",
    },
    {
        .name = "health-interval",
        .kind = OPTION_PARSED,
        .offset = offsetof(struct supervision_options, health_interval),
        .argument = "duration",
        .help = "From one check to the next (default 30s)",
        .parse = parse_time,
    },
    {
        .name = "health-retries",
        .kind = OPTION_NUMBER,
        .offset = offsetof(struct supervision_options, health_retries),
        .argument = "int",
        .help = "Failures in a row that make it unhealthy (default 3)",
        .minimum = 0,
        .maximum = INT32_MAX,
    },
    {
        .name = "health-start-interval",
        .kind = OPTION_PARSED,
        .offset = offsetof(struct supervision_options, health_start_interval),
        .argument = "duration",
        .help = "From check to check while it starts (default 5s)",
        .parse = parse_time,
    },
    {
        .name = "health-start-period",
        .kind = OPTION_PARSED,
        .offset = offsetof(struct supervision_options, health_start_period),
        .argument = "duration",
        .help = "Time to start, in which failures do not count",
        .parse = parse_time,
    },
    {
        .name = "health-timeout",
        .kind = OPTION_PARSED,
        .offset = offsetof(struct supervision_options, health_timeout),
        .argument = "duration",
        .help = "How long a check may take (default 30s)",
        .parse = parse_time,
    },
    {
        .name = "log-driver",
        .kind = OPTION_TEXT,
        .offset = offsetof(struct supervision_options, log_driver),
        .argument = "string",
        .help = "Where its output goes: json-file, local or none",
        .complete = COMPLETE_EXAMPLES,
        .choices = log_words,
    },
    {
        .name = "log-opt",
        .kind = OPTION_LIST,
        .offset = offsetof(struct supervision_options, log_opt),
        .argument = "list",
        .help = "max-size=BYTES, max-file=N, compress=true",
    },
    {
        .name = "no-healthcheck",
        .kind = OPTION_FLAG,
        .offset = offsetof(struct supervision_options, no_healthcheck),
        .help = "No health checks, also if the image has some",
    },
    {
        .name = "restart",
        .kind = OPTION_TEXT,
        .offset = offsetof(struct supervision_options, restart),
        .argument = "string",
        .help = "no, always, unless-stopped or on-failure[:N] (default \"no\")",
        .complete = COMPLETE_EXAMPLES,
        .choices = restart_words,
    },
    {
        .name = "restart-unhealthy",
        .kind = OPTION_FLAG,
        .offset = offsetof(struct supervision_options, restart_unhealthy),
        .help = "Restart it also when its checks say unhealthy",
    },
    {.name = NULL},
};

/* ---- restart */

int restart_policy_parse(const char *text, struct api_restart_policy **ret, struct error *err)
{
    static const char *const names[] = {"no", "always", "unless-stopped", "on-failure"};
    size_t length = strcspn(text, ":");
    _cleanup_api_restart_policy_ struct api_restart_policy *policy =
        xnew(struct api_restart_policy);
    int64_t most = 0;
    bool known = false;

    policy->name = xstrndup(text, length);
    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        known = known || text_equal(policy->name, names[i]);
    if (!known)
        return error_set(err, -EINVAL, "invalid restart policy: unknown policy '%s'", text);
    if (text[length]) {
        if (!text_equal(policy->name, "on-failure"))
            return error_set(err, -EINVAL,
                             "invalid restart policy: maximum retry count can only be used with "
                             "'on-failure'");
        if (text_to_i64(text + length + 1, 0, INT32_MAX, &most) < 0)
            return error_set(err, -EINVAL,
                             "invalid restart policy format: maximum retry count must be an "
                             "integer");
        policy->maximum_retry_count = (int32_t)most;
        policy->has_maximum_retry_count = true;
    }
    *ret = steal_ptr(policy);
    return 0;
}

static int build_restart(const struct supervision_options *options, struct api_container_spec *spec,
                         struct error *err)
{
    if (!options->restart && !options->restart_unhealthy)
        return 0;
    int r = restart_policy_parse(options->restart ? options->restart : "no", &spec->restart_policy,
                                 err);
    if (r < 0)
        return r;
    if (spec->auto_remove && !text_equal(spec->restart_policy->name, "no"))
        return error_set(err, -EINVAL,
                         "conflicting options: cannot specify both --restart and --rm");
    spec->restart_policy->when_unhealthy = options->restart_unhealthy;
    spec->restart_policy->has_when_unhealthy = options->restart_unhealthy;
    return 0;
}

/* ---- health */

static bool says_something(const struct supervision_options *options)
{
    return options->health_cmd || options->health_interval || options->health_timeout ||
           options->health_start_period || options->health_start_interval ||
           options->health_retries.set;
}

static void set_test(struct api_healthcheck *check, const char *kind, const char *command)
{
    strv_append(&check->test, kind);
    if (command)
        strv_append(&check->test, command);
    check->test_count = strv_length(check->test);
}

static int build_health(const struct supervision_options *options, struct api_container_spec *spec,
                        struct error *err)
{
    if (options->no_healthcheck && says_something(options))
        return error_set(err, -EINVAL, "--no-healthcheck conflicts with --health-* options");
    if (!options->no_healthcheck && !says_something(options))
        return 0;
    struct api_healthcheck *check = spec->healthcheck = xnew(struct api_healthcheck);
    if (options->no_healthcheck)
        set_test(check, "NONE", NULL);
    else if (!text_empty(options->health_cmd))
        set_test(check, "CMD-SHELL", options->health_cmd);
    check->interval = options->health_interval;
    check->has_interval = check->interval != 0;
    check->timeout = options->health_timeout;
    check->has_timeout = check->timeout != 0;
    check->start_period = options->health_start_period;
    check->has_start_period = check->start_period != 0;
    check->start_interval = options->health_start_interval;
    check->has_start_interval = check->start_interval != 0;
    check->retries = (int32_t)options->health_retries.value;
    check->has_retries = options->health_retries.set;
    return 0;
}

/* ---- log */

static void build_log(const struct supervision_options *options, struct api_container_spec *spec)
{
    if (!options->log_driver && !options->log_opt)
        return;
    spec->log_config = xnew(struct api_log_config);
    spec->log_config->type = xstrdup(options->log_driver);
    spec_fill_map(&spec->log_config->config, options->log_opt);
}

int supervision_build(const struct supervision_options *options, struct api_container_spec *spec,
                      struct error *err)
{
    int r = build_restart(options, spec, err);

    if (r >= 0)
        r = build_health(options, spec, err);
    if (r >= 0)
        build_log(options, spec);
    return r;
}
