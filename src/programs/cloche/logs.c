#include <errno.h>
#include <limits.h>
#include <string.h>
#include <time.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>
#include <schema/management.h>

#include "cli.h"
#include "human.h"
#include "log_lines.h"

struct logs_options {
    bool details, follow, timestamps;
    const char *tail, *since, *until;
};

static const struct option logs_table[] = {
    {
        .name = "details",
        .kind = OPTION_FLAG,
        .offset = offsetof(struct logs_options, details),
        .help = "Leave room before each line for what a log driver adds (ours adds nothing)",
    },
    {
        .name = "follow",
        .short_name = 'f',
        .kind = OPTION_FLAG,
        .offset = offsetof(struct logs_options, follow),
        .help = "Go on with what is written from now on, until the container ends",
    },
    {
        .name = "since",
        .kind = OPTION_TEXT,
        .offset = offsetof(struct logs_options, since),
        .argument = "string",
        .help = "Only what was written since a time (2026-11-20T10:00:00Z) or for so long (42m)",
    },
    {
        .name = "tail",
        .short_name = 'n',
        .kind = OPTION_TEXT,
        .offset = offsetof(struct logs_options, tail),
        .argument = "string",
        .help = "Only the last N lines (default \"all\")",
    },
    {
        .name = "timestamps",
        .short_name = 't',
        .kind = OPTION_FLAG,
        .offset = offsetof(struct logs_options, timestamps),
        .help = "Show when each line was written",
    },
    {
        .name = "until",
        .kind = OPTION_TEXT,
        .offset = offsetof(struct logs_options, until),
        .argument = "string",
        .help = "Only what was written before a time, or longer ago than so long",
    },
    {.name = NULL},
};

static const struct option_group logs_groups[] = {{.options = logs_table}, {.options = NULL}};

enum { CHUNK = 64 * 1024 };

static int describe(const struct logs_options *options, struct api_container_logs *params,
                    struct error *err)
{
    int64_t now = time(NULL);
    int r = 0;

    params->follow = params->has_follow = options->follow;
    if (options->tail && !text_equal(options->tail, "all")) {
        if (text_to_i64(options->tail, -1, INT64_MAX, &params->tail) < 0)
            return error_set(err, -EINVAL,
                             "invalid tail value \"%s\": a number of lines or \"all\"",
                             options->tail);
        params->has_tail = params->tail >= 0;
    }
    if (options->since)
        r = human_point_in_time(options->since, now, &params->since, err);
    if (r < 0)
        return error_context(err, "invalid value for \"since\"");
    if (options->until)
        r = human_point_in_time(options->until, now, &params->until, err);
    return r < 0 ? error_context(err, "invalid value for \"until\"") : 0;
}

static int write_out(int fd, struct buffer *text)
{
    int r = text->length ? file_write_all(fd, text->data, text->length) : 0;

    buffer_clear(text);
    return r;
}

/* Writes what came, in the order in which it was written, also where both outputs are one file
 * (2>&1): what was said on the other stream before goes out first. */
static int pass_on(struct log_reader *reader, const char *data, size_t length, struct buffer *out,
                   struct buffer *err_out)
{
    int r = 0;

    while (length && r >= 0) {
        const char *newline = memchr(data, '\n', length);
        size_t take = newline ? (size_t)(newline - data) + 1 : length;
        size_t had_out = out->length;
        log_reader_feed(reader, data, take, out, err_out);
        if (out->length && err_out->length)
            r = out->length > had_out ? write_out(STDERR_FILENO, err_out)
                                      : write_out(STDOUT_FILENO, out);
        data += take;
        length -= take;
    }
    if (r >= 0)
        r = write_out(STDOUT_FILENO, out);
    return r >= 0 ? write_out(STDERR_FILENO, err_out) : r;
}

/* From the stream to our outputs, to its end or to the time asked for. */
static int copy(int fd, struct log_reader *reader, struct error *err)
{
    _cleanup_buffer_ struct buffer out = BUFFER_INIT, err_out = BUFFER_INIT;
    _cleanup_free_ char *data = xmalloc(CHUNK);

    while (!reader->ended) {
        ssize_t length = read(fd, data, CHUNK);
        if (length < 0 && errno == EINTR)
            continue;
        if (length < 0 && errno != ECONNRESET)
            return error_errno(err, errno, "read the log");
        if (length <= 0)
            break;
        int r = pass_on(reader, data, (size_t)length, &out, &err_out);
        if (r < 0)
            return error_errno(err, -r, "write the log");
    }
    return 0;
}

static int run(struct cli *cli, const void *values, char *const *operands)
{
    const struct logs_options *options = values;
    _cleanup_api_attached_ struct api_attached *attached = NULL;
    _cleanup_error_ struct error err = ERROR_INIT;
    _cleanup_free_ char *since = NULL, *until = NULL;
    _cleanup_close_ int fd = -1;
    struct api_container_logs params = {.container = operands[0]};

    int r = describe(options, &params, &err);
    since = params.since;
    until = params.until;
    if (r < 0)
        return cli_fail(&err);
    r = cli_call_for_fd(cli, "container.logs", &params, &attached, &fd, &err);
    if (r >= 0) {
        const char *details = attached->attributes ? attached->attributes : "";
        struct log_reader reader = {.timestamps = options->timestamps,
                                    .details = options->details ? details : NULL,
                                    .since = since,
                                    .until = until};
        r = copy(fd, &reader, &err);
        log_reader_finish(&reader);
    }
    return r < 0 ? cli_fail(&err) : EXIT_DONE;
}

const struct command logs_command = {
    .name = "logs",
    .usage = "[OPTIONS] CONTAINER",
    .summary = "Show what a container wrote",
    .options = logs_groups,
    .values_size = sizeof(struct logs_options),
    .minimum_operands = 1,
    .maximum_operands = 1,
    .complete = COMPLETE_CONTAINERS,
    .run = run,
};
