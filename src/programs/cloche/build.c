#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <base/alloc.h>
#include <base/buffer.h>
#include <base/file.h>
#include <base/text.h>
#include <schema/management.h>

#include "build_context.h"
#include "cli.h"
#include "credentials.h"

enum { DOCKERFILE_MAX_BYTES = 4 * 1024 * 1024, READ_SIZE = 64 * 1024 };

struct build_options {
    char **add_host, **arguments, **cache_from, **labels, **security, **names, **ulimits;
    const char *cgroup_parent, *cpuset_cpus, *cpuset_mems, *file, *iidfile, *isolation, *network,
        *platform, *target;
    struct option_number cpu_period, cpu_quota, cpu_shares;
    uint64_t memory, memory_swap, shm_size;
    bool compress, trust, force_rm, no_cache, pull, quiet, rm, squash;
};

#define FIELD(name) offsetof(struct build_options, name)
#define TEXT(option, field, argument_, help_)                                                      \
    {                                                                                              \
        .name = option, .kind = OPTION_TEXT, .offset = FIELD(field), .argument = argument_,        \
        .help = help_,                                                                             \
    }
#define LIST(option, field, argument_, help_)                                                      \
    {                                                                                              \
        .name = option, .kind = OPTION_LIST, .offset = FIELD(field), .argument = argument_,        \
        .help = help_,                                                                             \
    }
#define FLAG(option, field, help_)                                                                 \
    {                                                                                              \
        .name = option, .kind = OPTION_FLAG, .offset = FIELD(field), .help = help_,                \
    }
#define NUMBER(option, letter, field, help_)                                                       \
    {                                                                                              \
        .name = option, .short_name = letter, .kind = OPTION_NUMBER, .offset = FIELD(field),       \
        .argument = "int", .minimum = -1, .maximum = INT64_MAX, .help = help_,                     \
    }

static int parse_bytes(const char *text, void *value, struct error *err)
{
    if (text_equal(text, "-1")) {
        *(uint64_t *)value = UINT64_MAX;
        return 0;
    }
    return text_to_size(text, value) < 0 ? error_set(err, -EINVAL, "invalid size: '%s'", text) : 0;
}

#define BYTES(option, letter, field, help_)                                                        \
    {                                                                                              \
        .name = option, .short_name = letter, .kind = OPTION_PARSED, .offset = FIELD(field),       \
        .argument = "bytes", .parse = parse_bytes, .help = help_,                                  \
    }

static const struct option build_table[] = {
    LIST("add-host", add_host, "list", "Add a line to /etc/hosts while it is built: HOST:IP"),
    LIST("build-arg", arguments, "list", "Set an ARG: NAME=value, or NAME to pass ours on"),
    LIST("cache-from", cache_from, "strings", "Use the cache only if one of these images is here"),
    TEXT("cgroup-parent", cgroup_parent, "string", "Parent cgroup of what RUN starts"),
    FLAG("compress", compress, "Accepted; nothing is sent over a network"),
    NUMBER("cpu-period", 0, cpu_period, "Period of the CPU quota in microseconds"),
    NUMBER("cpu-quota", 0, cpu_quota, "CPU time in each period in microseconds"),
    NUMBER("cpu-shares", 'c', cpu_shares, "Relative weight of its CPU time"),
    TEXT("cpuset-cpus", cpuset_cpus, "string", "CPUs it may use: 0-3, 0,1"),
    TEXT("cpuset-mems", cpuset_mems, "string", "Memory nodes it may use: 0-3, 0,1"),
    FLAG("disable-content-trust", trust, "Accepted; there is no such trust (default true)"),
    {
        .name = "file",
        .short_name = 'f',
        .kind = OPTION_TEXT,
        .offset = FIELD(file),
        .argument = "string",
        .help = "The Dockerfile; - for standard input (default PATH/Dockerfile)",
        .complete = COMPLETE_FILES,
    },
    FLAG("force-rm", force_rm, "Remove the container of a RUN that failed, too"),
    TEXT("iidfile", iidfile, "string", "Write the image's ID into this file"),
    TEXT("isolation", isolation, "string", "Only default"),
    LIST("label", labels, "list", "Give the image a label: KEY=value"),
    BYTES("memory", 'm', memory, "Most memory of what RUN starts"),
    BYTES("memory-swap", 0, memory_swap, "Most memory and swap together; -1: no limit"),
    TEXT("network", network, "string", "Network of what RUN starts (default \"default\")"),
    FLAG("no-cache", no_cache, "Do every step anew"),
    TEXT("platform", platform, "string", "Build for this platform: OS/ARCH"),
    FLAG("pull", pull, "Pull images also when they are there"),
    {
        .name = "quiet",
        .short_name = 'q',
        .kind = OPTION_FLAG,
        .offset = FIELD(quiet),
        .help = "Print the image's ID alone",
    },
    FLAG("rm", rm, "Remove the containers of RUN (default true)"),
    LIST("security-opt", security, "strings", "Security options of what RUN starts"),
    BYTES("shm-size", 0, shm_size, "Size of /dev/shm of what RUN starts"),
    FLAG("squash", squash, "Make one layer of all that the build adds"),
    {
        .name = "tag",
        .short_name = 't',
        .kind = OPTION_LIST,
        .offset = FIELD(names),
        .argument = "list",
        .help = "Name of the image: NAME[:TAG]",
    },
    TEXT("target", target, "string", "The last stage to build"),
    LIST("ulimit", ulimits, "list", "A limit of what RUN starts: NAME=SOFT[:HARD]"),
    {.name = NULL},
};

static const struct option_group build_groups[] = {{.options = build_table}, {.options = NULL}};

static void set_defaults(void *values)
{
    struct build_options *options = values;

    options->rm = options->trust = true;
}

/* --- the request ------------------------------------------------------------------------------ */

/* NAME=value; a bare NAME has our own value, when there is one. */
static struct json_string_map *map_of(char *const *list, bool from_environment)
{
    struct json_string_map *map = xnew(struct json_string_map);

    for (size_t i = 0; list && list[i]; i++) {
        const char *equals = strchr(list[i], '=');
        _cleanup_free_ char *name =
            equals ? xstrndup(list[i], (size_t)(equals - list[i])) : xstrdup(list[i]);
        const char *value = equals ? equals + 1 : from_environment ? getenv(name) : "";
        if (value)
            json_string_map_set(&map, name, value);
    }
    return map;
}

static int parse_ulimit(const char *text, struct api_ulimit **ret, struct error *err)
{
    const char *equals = strchr(text, '=');
    _cleanup_free_ char *soft = xstrdup(equals ? equals + 1 : "");
    char *colon = strchr(soft, ':');
    const char *hard = colon ? colon + 1 : soft;
    struct api_ulimit limit = {.name = NULL};

    if (colon)
        *colon = '\0';
    if (!equals || equals == text || text_to_i64(soft, -1, INT64_MAX, &limit.soft) < 0 ||
        text_to_i64(hard, -1, INT64_MAX, &limit.hard) < 0)
        return error_set(err, -EINVAL, "invalid ulimit argument: %s", text);
    *ret = xnew(struct api_ulimit);
    **ret = limit;
    (*ret)->name = xstrndup(text, (size_t)(equals - text));
    return 0;
}

static struct api_resources *resources_of(const struct build_options *options)
{
    struct api_resources *resources = xnew(struct api_resources);

    resources->has_cpu_period = options->cpu_period.set;
    resources->cpu_period = (uint64_t)options->cpu_period.value;
    resources->has_cpu_quota = options->cpu_quota.set;
    resources->cpu_quota = options->cpu_quota.value;
    resources->has_cpu_shares = options->cpu_shares.set;
    resources->cpu_shares = (uint64_t)options->cpu_shares.value;
    resources->cpuset_cpus = xstrdup(options->cpuset_cpus);
    resources->cpuset_mems = xstrdup(options->cpuset_mems);
    resources->has_memory = options->memory != 0;
    resources->memory = options->memory;
    resources->has_memory_swap = options->memory_swap != 0;
    resources->memory_swap = (int64_t)options->memory_swap;
    return resources;
}

static void set_list(char ***list, size_t *count, char *const *from)
{
    *list = strv_copy(from);
    *count = strv_length(from);
}

static int make_request(const struct build_options *options, struct api_build_run *request,
                        struct error *err)
{
    int r = 0;

    set_list(&request->names, &request->names_count, options->names);
    request->arguments = map_of(options->arguments, true);
    request->labels = map_of(options->labels, false);
    request->target = xstrdup(options->target);
    request->platform = xstrdup(options->platform);
    request->network_mode =
        text_equal(options->network, "default") ? NULL : xstrdup(options->network);
    request->no_cache = request->has_no_cache = options->no_cache;
    request->pull = request->has_pull = options->pull;
    request->squash = request->has_squash = options->squash;
    request->quiet = request->has_quiet = options->quiet;
    request->keep_containers = request->has_keep_containers = !options->rm;
    request->remove_failed = request->has_remove_failed = options->force_rm;
    request->resources = resources_of(options);
    request->cgroup_parent = xstrdup(options->cgroup_parent);
    request->shm_size = options->shm_size;
    request->has_shm_size = options->shm_size != 0;
    set_list(&request->cache_from, &request->cache_from_count, options->cache_from);
    set_list(&request->extra_hosts, &request->extra_hosts_count, options->add_host);
    set_list(&request->security_opt, &request->security_opt_count, options->security);
    credentials_all(&request->credentials, &request->credentials_count);
    request->ulimits = xnew_array(struct api_ulimit *, strv_length(options->ulimits) + 1);
    for (size_t i = 0; r == 0 && options->ulimits && options->ulimits[i]; i++) {
        r = parse_ulimit(options->ulimits[i], &request->ulimits[i], err);
        request->ulimits_count += r == 0;
    }
    return r;
}

/* --- the context ------------------------------------------------------------------------------ */

struct sending {
    struct context context;
    int archive_fd; /* a tar that is passed on as it is; -1: none */
    bool nothing;   /* the daemon fetches it */
    int socket_fd;
    bool quiet;
    struct error err;
};

static int pass_on(struct sending *sending, struct error *err)
{
    _cleanup_free_ char *block = xmalloc(READ_SIZE);

    if (sending->context.text &&
        file_write_all(sending->socket_fd, sending->context.text, sending->context.text_length) < 0)
        return -EPIPE;
    for (ssize_t n; (n = read(sending->archive_fd, block, READ_SIZE)) != 0;) {
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_errno(err, errno, "read the context");
        for (ssize_t sent = 0; sent < n;) {
            ssize_t s = send(sending->socket_fd, block + sent, (size_t)(n - sent), MSG_NOSIGNAL);
            if (s < 0 && errno != EINTR)
                return -EPIPE;
            sent += s > 0 ? s : 0;
        }
        sending->context.bytes += (uint64_t)n;
    }
    return 0;
}

static void *send_thread(void *data)
{
    struct sending *sending = data;
    int r = sending->nothing ? 0
            : sending->archive_fd >= 0
                ? pass_on(sending, &sending->err)
                : context_write(&sending->context, sending->socket_fd, &sending->err);

    /* The engine says why it does not read any more. */
    if (r < 0 && (sending->err.code == -EPIPE || sending->err.code == -ECONNRESET))
        error_finish(&sending->err), sending->err = (struct error)ERROR_INIT;
    shutdown(sending->socket_fd, SHUT_WR);
    _cleanup_free_ char *size = text_from_size(sending->context.bytes);
    if (r == 0 && !sending->quiet && !sending->nothing) {
        printf("Sending build context to Cloche  %s\n", size);
        fflush(stdout);
    }
    return NULL;
}

/* Standard input is a tar, or a Dockerfile. */
static int take_input(struct sending *sending, char **text, struct error *err)
{
    struct buffer start = BUFFER_INIT;
    ssize_t n = 1;

    while (n > 0 && start.length < FILE_ARCHIVE_LOOK) {
        buffer_reserve(&start, READ_SIZE);
        n = read(STDIN_FILENO, start.data + start.length, FILE_ARCHIVE_LOOK - start.length);
        if (n > 0)
            start.length += (size_t)n;
    }
    sending->context.text_length = start.length;
    if (file_is_archive(start.data, start.length)) {
        sending->archive_fd = STDIN_FILENO;
        sending->context.text = *text = start.data;
        return 0;
    }
    _cleanup_free_ char *rest = NULL;
    size_t length;
    int r = file_read_fd(STDIN_FILENO, DOCKERFILE_MAX_BYTES, &rest, &length, err);
    if (r == 0)
        buffer_append(&start, rest, length);
    sending->context.text_length = start.length;
    sending->context.text = *text = buffer_steal(&start);
    return r;
}

/* The path of the Dockerfile in the folder; NULL: it is outside. */
static const char *path_inside(const char *folder, const char *file)
{
    static char inside[4096];
    _cleanup_free_ char *root = realpath(folder, NULL), *real = realpath(file, NULL);
    size_t length = root ? strlen(root) : 0;

    if (!root || !real || strncmp(real, root, length) != 0 ||
        (real[length] != '/' && !text_equal(root, "/")))
        return NULL;
    snprintf(inside, sizeof(inside), "%s", real + length + (text_equal(root, "/") ? 0 : 1));
    return inside;
}

static int take_dockerfile(struct sending *sending, const char *file, char **text,
                           struct error *err)
{
    static char name[64];
    struct context *context = &sending->context;
    int r;

    context->dockerfile = "Dockerfile";
    if (!file)
        return 0;
    if (!text_equal(file, "-")) {
        context->dockerfile = path_inside(context->folder, file);
        if (context->dockerfile)
            return 0;
        /* Relative to the folder, as older clients had it. */
        _cleanup_free_ char *joined = xasprintf("%s/%s", context->folder, file);
        context->dockerfile = access(file, R_OK) < 0 ? path_inside(context->folder, joined) : NULL;
        if (context->dockerfile)
            return 0;
    }
    if (text_equal(file, "-"))
        r = file_read_fd(STDIN_FILENO, DOCKERFILE_MAX_BYTES, text, &context->text_length, err);
    else
        r = file_read_at(AT_FDCWD, file, DOCKERFILE_MAX_BYTES, text, &context->text_length, err);
    if (r < 0)
        return error_context(err, "unable to prepare context: unable to evaluate the Dockerfile"),
               r;
    memcpy(name, ".dockerfile.", 12);
    text_random_hex(name + 12, 20);
    context->dockerfile = name;
    context->text = *text;
    return 0;
}

static int prepare(struct sending *sending, const struct build_options *options, const char *path,
                   char **text, struct error *err)
{
    struct stat status;

    if (text_equal(path, "-")) {
        sending->context.dockerfile = options->file ? options->file : "Dockerfile";
        if (text_equal(options->file, "-"))
            return error_set(err, -EINVAL,
                             "invalid argument: can't use stdin for both build context and "
                             "dockerfile");
        return take_input(sending, text, err);
    }
    /* The daemon says of others, git:// for instance, that they cannot be fetched. */
    if (strstr(path, "://") || text_starts_with(path, "git@") ||
        text_starts_with(path, "github.com/")) {
        if (text_equal(options->file, "-"))
            return error_set(err, -EINVAL,
                             "invalid argument: the Dockerfile from stdin is for folders only");
        sending->context.dockerfile = options->file ? options->file : "Dockerfile";
        sending->nothing = true;
        return 0;
    }
    if (stat(path, &status) < 0)
        return error_set(err, -errno, "unable to prepare context: path \"%s\" not found", path);
    if (!S_ISDIR(status.st_mode))
        return error_set(err, -ENOTDIR,
                         "unable to prepare context: context must be a directory: %s", path);
    sending->context.folder = path;
    return take_dockerfile(sending, options->file, text, err);
}

/* --- what comes back -------------------------------------------------------------------------- */

struct showing {
    int fd;
    bool quiet, bright;
    bool failed;
    int code; /* of the RUN that failed */
    char *message;
};

static void show_stream(const struct showing *showing, const char *text)
{
    bool step = showing->bright && text_starts_with(text, "Step ");

    if (showing->quiet)
        return;
    fprintf(stdout, "%s%s%s", step ? "\033[1m" : "", text, step ? "\033[0m" : "");
    fflush(stdout);
}

static void show_line(struct showing *showing, const char *line, size_t length)
{
    _cleanup_api_build_message_ struct api_build_message *message = NULL;

    if (api_build_message_parse(line, length, "progress", &message, NULL) < 0)
        return;
    if (message->stream)
        show_stream(showing, message->stream);
    if (!message->error)
        return;
    showing->failed = true;
    showing->code = message->error_detail ? message->error_detail->code : 0;
    free(showing->message);
    showing->message = xstrdup(message->error);
}

static void *show_thread(void *data)
{
    _cleanup_buffer_ struct buffer input = BUFFER_INIT;
    struct showing *showing = data;

    for (;;) {
        char *newline;
        buffer_reserve(&input, READ_SIZE);
        ssize_t n = read(showing->fd, input.data + input.length, READ_SIZE - 1);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return NULL;
        input.length += (size_t)n;
        while ((newline = memchr(input.data, '\n', input.length))) {
            size_t length = (size_t)(newline - input.data);
            show_line(showing, input.data, length);
            buffer_consume(&input, length + 1);
        }
    }
}

/* --- the command ------------------------------------------------------------------------------ */

static int call(struct cli *cli, struct sending *sending, struct showing *showing, int theirs,
                const struct api_build_run *request, struct api_build_result **ret,
                struct error *err)
{
    pthread_t sender, shower;

    pthread_create(&sender, NULL, send_thread, sending);
    pthread_create(&shower, NULL, show_thread, showing);
    int r = cli_call_with_fd(cli, "build.run", request, ret, theirs, NULL, NULL, err);
    close(theirs); /* else ours never ends when the call failed */
    pthread_join(shower, NULL);
    shutdown(sending->socket_fd, SHUT_RDWR);
    pthread_join(sender, NULL);
    if (r >= 0 && sending->err.code)
        r = error_move(err, &sending->err);
    return r;
}

static int write_id(const char *path, const char *id, struct error *err)
{
    int r = file_replace_at(AT_FDCWD, path, id, strlen(id), 0644, err);

    return r < 0 ? error_context(err, "%s", path), r : 0;
}

static int check_options(const struct build_options *options, struct error *err)
{
    if (!text_empty(options->isolation) && !text_equal(options->isolation, "default"))
        return error_set(err, -EOPNOTSUPP, "invalid isolation (%s) on linux: only default is known",
                         options->isolation);
    return 0;
}

static int build(struct cli *cli, const struct build_options *options, const char *path,
                 struct showing *showing, struct error *err)
{
    _cleanup_api_build_result_ struct api_build_result *result = NULL;
    struct api_build_run *request = xnew(struct api_build_run);
    struct sending sending = {.archive_fd = -1, .quiet = options->quiet};
    _cleanup_free_ char *text = NULL;
    int pair[2];
    int r = check_options(options, err);

    if (r == 0)
        r = prepare(&sending, options, path, &text, err);
    if (r == 0)
        r = make_request(options, request, err);
    if (r == 0 && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        r = error_errno(err, errno, "make a socket");
    if (r == 0) {
        request->dockerfile = xstrdup(sending.context.dockerfile);
        request->remote = sending.nothing ? xstrdup(path) : NULL;
        sending.socket_fd = showing->fd = pair[0];
        r = call(cli, &sending, showing, pair[1], request, &result, err);
        close(pair[0]);
    }
    api_build_run_free(request);
    if (r >= 0 && options->iidfile)
        r = write_id(options->iidfile, result->id, err);
    if (r >= 0 && options->quiet)
        printf("%s\n", result->id);
    return r;
}

static int run(struct cli *cli, const void *values, char *const *operands)
{
    const struct build_options *options = values;
    _cleanup_error_ struct error err = ERROR_INIT;
    struct showing showing = {.quiet = options->quiet, .bright = isatty(STDOUT_FILENO)};
    int r = build(cli, options, operands[0], &showing, &err);
    _cleanup_free_ char *message = showing.message;

    if (r >= 0)
        return EXIT_DONE;
    if (!showing.failed)
        return cli_fail(&err);
    fprintf(stderr, "%s\n", message);
    return showing.code ? showing.code : EXIT_FAILED;
}

const struct command build_command = {
    .name = "build",
    .usage = "[OPTIONS] PATH | URL | -",
    .summary = "Build an image from a Dockerfile",
    .options = build_groups,
    .values_size = sizeof(struct build_options),
    .set_defaults = set_defaults,
    .minimum_operands = 1,
    .maximum_operands = 1,
    .complete = COMPLETE_FILES,
    .common = true,
    .run = run,
};
