#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/text.h>
#include <rpc/metrics.h>

#include "human.h"
#include "rpc_remote.h"
#include "table.h"
#include "tree.h"

enum { STATS_MILLISECONDS = 10000 };

/* Of histograms, in nanoseconds, each twice the one before; those of a client's metrics, too. */
static const uint64_t BOUND_FIRST = 1024, BOUND_LAST = UINT64_C(1024) << 31;

struct stats_options {
    const char *socket;
    const char *format;
};

static const char *const stats_formats[] = {"json", "openmetrics", "table", NULL};

static const struct option stats_table[] = {
    {
        .name = "format",
        .short_name = 'f',
        .kind = OPTION_TEXT,
        .offset = offsetof(struct stats_options, format),
        .argument = "string",
        .help = "\"table\", \"json\" or \"openmetrics\" (default \"table\")",
        .complete = COMPLETE_CHOICES,
        .choices = stats_formats,
    },
    {
        .name = "socket",
        .kind = OPTION_TEXT,
        .offset = offsetof(struct stats_options, socket),
        .argument = "path",
        .help = "Socket of another server than the instance's daemon",
        .complete = COMPLETE_FILES,
    },
    {.name = NULL},
};

static const struct option_group stats_groups[] = {{.options = stats_table}, {.options = NULL}};

/* ---- what came ---- */

static uint64_t number_in(yajl_val node, const char *key)
{
    yajl_val member = tree_get(node, key);

    return member && member->type == yajl_t_number ? strtoull(member->u.number.r, NULL, 10) : 0;
}

static const char *name_of(yajl_val method)
{
    yajl_val name = tree_get(method, "method");

    return YAJL_IS_STRING(name) ? name->u.string : "";
}

/* The methods that were called; their number in *ret_count. */
static yajl_val *methods_of(yajl_val stats, size_t *ret_count)
{
    yajl_val methods = tree_get(stats, "methods");

    *ret_count = YAJL_IS_ARRAY(methods) ? methods->u.array.len : 0;
    return *ret_count ? methods->u.array.values : NULL;
}

/* All error answers: they are counted by their codes. */
static uint64_t errors_of(yajl_val method)
{
    yajl_val errors = tree_get(method, "errors");
    uint64_t total = 0;

    for (size_t i = 0; YAJL_IS_OBJECT(errors) && i < errors->u.object.len; i++)
        total += number_in(errors, errors->u.object.keys[i]);
    return total;
}

/* ---- a table ---- */

/* "240 us", "1.2 ms", "3.4 s" */
static char *duration_text(uint64_t nanoseconds)
{
    double microseconds = (double)nanoseconds / 1e3;

    if (microseconds < 1e3)
        return xasprintf("%.0f us", microseconds);
    if (microseconds < 1e6)
        return xasprintf("%.1f ms", microseconds / 1e3);
    return xasprintf("%.1f s", microseconds / 1e6);
}

static void add_method(struct table *table, yajl_val method)
{
    yajl_val latency = tree_get(method, "latency");
    _cleanup_free_ char *half = duration_text(number_in(latency, "p50Ns"));
    _cleanup_free_ char *most = duration_text(number_in(latency, "p99Ns"));
    _cleanup_free_ char *longest = duration_text(number_in(latency, "maxNs"));
    _cleanup_free_ char *row =
        xasprintf("%s\t%" PRIu64 "\t%" PRIu64 "\t%" PRIu64 "\t%" PRIu64 "\t%" PRIu64 "\t%s\t%s\t%s",
                  name_of(method), number_in(method, "calls"), errors_of(method),
                  number_in(method, "timeouts"), number_in(method, "cancelled"),
                  number_in(method, "inFlight"), half, most, longest);

    table_add(table, row);
}

static void write_table(yajl_val stats, struct buffer *out)
{
    _cleanup_table_ struct table *table = table_create();
    _cleanup_free_ char *uptime = human_duration((int64_t)(number_in(stats, "uptimeMs") / 1000));
    size_t count;
    yajl_val *methods = methods_of(stats, &count);

    buffer_printf(out, "Up:           %s\n", uptime);
    buffer_printf(out,
                  "Connections:  %" PRIu64 " open, %" PRIu64 " accepted, %" PRIu64
                  " refused, %" PRIu64 " ended since their client did not read\n",
                  number_in(stats, "connections"), number_in(stats, "accepted"),
                  number_in(stats, "refused"), number_in(stats, "overflowed"));
    buffer_printf(out, "In flight:    %" PRIu64 "\n", number_in(stats, "inFlight"));
    buffer_printf(out, "Bytes:        %" PRIu64 " in, %" PRIu64 " out\n",
                  number_in(stats, "bytesIn"), number_in(stats, "bytesOut"));
    buffer_printf(out,
                  "Messages:     %" PRIu64 " notifications sent, %" PRIu64 " malformed, %" PRIu64
                  " to unknown methods\n\n",
                  number_in(stats, "notifications"), number_in(stats, "malformed"),
                  number_in(stats, "unknown"));
    table_add(table, "METHOD\tCALLS\tERRORS\tTIMEOUTS\tCANCELLED\tIN FLIGHT\tP50\tP99\tMAX");
    for (size_t i = 0; i < count; i++)
        add_method(table, methods[i]);
    table_write(table, out);
}

/* ---- OpenMetrics ---- */

/* A number of the whole server. */
static void write_plain(yajl_val stats, struct buffer *out)
{
    static const struct {
        const char *key, *name, *type, *help;
    } families[] = {
        {"connections", "cloche_rpc_server_connections", "gauge", "Open connections."},
        {"inFlight", "cloche_rpc_server_in_flight", "gauge", "Calls that are not answered."},
        {"accepted", "cloche_rpc_server_accepted", "counter", "Connections made."},
        {"refused", "cloche_rpc_server_refused", "counter", "Connections beyond a limit."},
        {"overflowed", "cloche_rpc_server_overflowed", "counter",
         "Connections ended since their client did not read."},
        {"malformed", "cloche_rpc_server_malformed", "counter", "Messages that were none."},
        {"unknown", "cloche_rpc_server_unknown", "counter", "Calls of methods that there are not."},
        {"notifications", "cloche_rpc_server_notifications", "counter",
         "Notifications sent to clients."},
        {"bytesIn", "cloche_rpc_server_received_bytes", "counter", "Bytes read."},
        {"bytesOut", "cloche_rpc_server_sent_bytes", "counter", "Bytes written."},
    };

    for (size_t i = 0; i < ARRAY_SIZE(families); i++) {
        rpc_metrics_write_family(out, families[i].name, families[i].type, families[i].help);
        rpc_metrics_write_sample(out, families[i].name, families[i].type, "",
                                 number_in(stats, families[i].key));
    }
}

static char *method_label(yajl_val method)
{
    struct buffer label = BUFFER_INIT;

    rpc_metrics_write_label(&label, "method", name_of(method));
    return buffer_steal(&label);
}

/* A number of each method. */
static void write_by_method(yajl_val stats, struct buffer *out)
{
    static const struct {
        const char *key, *name, *type, *help;
    } families[] = {
        {"calls", "cloche_rpc_server_calls", "counter", "Calls and notifications."},
        {"timeouts", "cloche_rpc_server_timeouts", "counter", "Calls past their deadline."},
        {"cancelled", "cloche_rpc_server_cancelled", "counter", "Calls that were cancelled."},
        {"inFlight", "cloche_rpc_server_method_in_flight", "gauge", "Calls that are not answered."},
    };
    size_t count;
    yajl_val *methods = methods_of(stats, &count);

    for (size_t i = 0; i < ARRAY_SIZE(families); i++) {
        rpc_metrics_write_family(out, families[i].name, families[i].type, families[i].help);
        for (size_t j = 0; j < count; j++) {
            _cleanup_free_ char *label = method_label(methods[j]);
            rpc_metrics_write_sample(out, families[i].name, families[i].type, label,
                                     number_in(methods[j], families[i].key));
        }
    }
}

static void write_errors(yajl_val stats, struct buffer *out)
{
    static const char name[] = "cloche_rpc_server_errors";
    size_t count;
    yajl_val *methods = methods_of(stats, &count);

    rpc_metrics_write_family(out, name, "counter", "Calls answered with an error, by its code.");
    for (size_t i = 0; i < count; i++) {
        yajl_val errors = tree_get(methods[i], "errors");
        _cleanup_free_ char *label = method_label(methods[i]);
        for (size_t j = 0; YAJL_IS_OBJECT(errors) && j < errors->u.object.len; j++) {
            const char *code = errors->u.object.keys[j];
            _cleanup_buffer_ struct buffer labels = BUFFER_INIT;
            buffer_printf(&labels, "%s,", label);
            rpc_metrics_write_label(&labels, "code", code);
            rpc_metrics_write_sample(out, name, "counter", labels.data, number_in(errors, code));
        }
    }
}

static void write_histogram(yajl_val method, struct buffer *out)
{
    static const char name[] = "cloche_rpc_server_latency_seconds";
    _cleanup_free_ char *label = method_label(method);
    yajl_val latency = tree_get(method, "latency"), buckets = tree_get(latency, "buckets");
    size_t count = YAJL_IS_ARRAY(buckets) ? buckets->u.array.len : 0;
    uint64_t below = 0;

    /* Always the same bounds: rates of a series that appears with its first call begin too late. */
    for (uint64_t i = 0, bound = BOUND_FIRST; bound <= BOUND_LAST; bound *= 2) {
        for (; i < count && number_in(buckets->u.array.values[i], "belowNs") <= bound; i++)
            below += number_in(buckets->u.array.values[i], "count");
        buffer_printf(out, "%s_bucket{%s,le=\"%.9g\"} %" PRIu64 "\n", name, label,
                      (double)bound / 1e9, below);
    }
    buffer_printf(out, "%s_bucket{%s,le=\"+Inf\"} %" PRIu64 "\n", name, label,
                  number_in(latency, "count"));
    buffer_printf(out, "%s_sum{%s} %.9f\n", name, label, (double)number_in(latency, "sumNs") / 1e9);
    buffer_printf(out, "%s_count{%s} %" PRIu64 "\n", name, label, number_in(latency, "count"));
}

static void write_metrics(yajl_val stats, struct buffer *out)
{
    size_t count;
    yajl_val *methods = methods_of(stats, &count);

    write_plain(stats, out);
    write_by_method(stats, out);
    write_errors(stats, out);
    rpc_metrics_write_family(out, "cloche_rpc_server_latency_seconds", "histogram",
                             "From reading a call to its answer.");
    for (size_t i = 0; i < count; i++)
        write_histogram(methods[i], out);
    buffer_append_text(out, "# EOF\n");
}

static void write_stats(yajl_val stats, const char *format, struct buffer *out)
{
    if (text_equal(format, "json")) {
        tree_write(stats, TREE_COMPACT, out);
        buffer_append_char(out, '\n');
    } else if (text_equal(format, "openmetrics")) {
        write_metrics(stats, out);
    } else {
        write_table(stats, out);
    }
}

static int run(struct cli *cli, const void *values, char *const *operands)
{
    const struct stats_options *options = values;
    _cleanup_rpc_remote_answer_ struct rpc_remote_answer answer = {0};
    _cleanup_tree_arena_ struct tree_arena arena = TREE_ARENA_INIT;
    _cleanup_rpc_remote_ struct rpc_remote *remote = NULL;
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;
    _cleanup_error_ struct error err = ERROR_INIT;
    const struct rpc_remote_call call = {
        .method = "rpc.stats", .params = "{}", .timeout_ms = STATS_MILLISECONDS, .fd = -1};
    yajl_val stats = NULL;

    int r = rpc_remote_open(cli, options->socket, true, NULL, NULL, &remote, &err);
    if (r == 0)
        r = rpc_remote_call(remote, &call, &answer, &err);
    if (r == 0)
        r = tree_parse(&arena, answer.result, &stats, &err);
    if (r < 0)
        return rpc_remote_fail(&err, answer.fault, call.method, false);
    write_stats(stats, options->format, &text);
    return cli_print(&text);
}

const struct command rpc_stats_command = {
    .name = "stats",
    .usage = "[OPTIONS]",
    .summary = "Show what the server of the management socket has counted",
    .options = stats_groups,
    .values_size = sizeof(struct stats_options),
    .run = run,
};
