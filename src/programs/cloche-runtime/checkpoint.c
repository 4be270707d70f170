/* checkpoint and restore */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include <cloche/runtime.h>

#include <base/alloc.h>
#include <base/text.h>

#include "options.h"
#include "program.h"

enum { PORT_MAX = 65535, SHARED_OPTIONS = 11 };

struct criu_arguments {
    struct cloche_runtime_criu_options options;
    const char *page_server, *status_fd;
    int status;         /* the descriptor */
    char *page_address; /* owned */
    char **empty_ns;    /* owned */
    bool ignored;       /* no_subreaper, no_pivot: what criu makes has neither */
};

/* Fills the first SHARED_OPTIONS of specs. */
static void share_options(struct option_spec *specs, struct criu_arguments *arguments)
{
    struct cloche_runtime_criu_options *options = &arguments->options;
    const struct option_spec shared[SHARED_OPTIONS] = {
        {.name = "image-path", .value = &options->image_path},
        {.name = "work-path", .value = &options->work_path},
        {.name = "tcp-established", .flag = &options->tcp_established},
        {.name = "ext-unix-sk", .flag = &options->ext_unix_sk},
        {.name = "shell-job", .flag = &options->shell_job},
        {.name = "lazy-pages", .flag = &options->lazy_pages},
        {.name = "file-locks", .flag = &options->file_locks},
        {.name = "manage-cgroups-mode", .value = &options->manage_cgroups},
        {.name = "empty-ns", .list = &arguments->empty_ns},
        {.name = "auto-dedup", .flag = &options->auto_dedup},
        {.name = "no-pivot", .flag = &arguments->ignored},
    };

    memcpy(specs, shared, sizeof(shared));
}

static int check_shared(struct criu_arguments *arguments, struct error *err)
{
    static const char *const modes[] = {"soft", "full", "strict", "ignore"};
    const char *mode = arguments->options.manage_cgroups;
    bool known = text_empty(mode);

    for (size_t i = 0; i < ARRAY_SIZE(modes); i++)
        known = known || text_equal(mode, modes[i]);
    if (!known)
        return error_set(err, -EINVAL, "Invalid manage-cgroups-mode value: %s", mode);
    /* A network namespace comes back empty anyhow. */
    for (char **name = arguments->empty_ns; name && *name; name++) {
        if (!text_equal(*name, "network"))
            return error_set(err, -EINVAL, "namespace \"%s\" is not supported", *name);
    }
    return 0;
}

static int take_page_server(struct criu_arguments *arguments, struct error *err)
{
    const char *text = arguments->page_server, *colon = text ? strrchr(text, ':') : NULL;

    if (text_empty(text))
        return 0;
    if (!colon || colon == text || !colon[1])
        return error_set(err, -EINVAL, "Use --page-server ADDRESS:PORT to specify page server");
    bool bracketed = text[0] == '[' && colon[-1] == ']';
    arguments->page_address =
        xasprintf("%.*s", (int)(colon - text) - 2 * bracketed, text + bracketed);
    arguments->options.page_address = arguments->page_address;
    return options_number("page-server", colon + 1, PORT_MAX, &arguments->options.page_port, err);
}

static int parse_id(const struct option_spec *specs, int argc, char **argv,
                    struct criu_arguments *arguments, struct error *err)
{
    int rest = options_parse(specs, true, argc, argv, err);

    if (rest < 0)
        return rest;
    if (rest != 1)
        return error_set(err, -1, "needs one argument: the container's ID");
    arguments->options.id = argv[1];
    return check_shared(arguments, err);
}

static int parse_checkpoint(int argc, char **argv, struct criu_arguments *ret, struct error *err)
{
    struct cloche_runtime_criu_options *options = &ret->options;
    struct option_spec specs[SHARED_OPTIONS + 9] = {{0}};
    const struct option_spec own[] = {
        {.name = "parent-path", .value = &options->parent_path},
        {.name = "leave-running", .flag = &options->leave_running},
        {.name = "tcp-skip-in-flight", .flag = &options->tcp_skip_in_flight},
        {.name = "link-remap", .flag = &options->link_remap},
        {.name = "status-fd", .value = &ret->status_fd},
        {.name = "page-server", .value = &ret->page_server},
        {.name = "pre-dump", .flag = &options->pre_dump},
    };
    unsigned status_fd;

    share_options(specs, ret);
    memcpy(specs + SHARED_OPTIONS, own, sizeof(own));
    int r = parse_id(specs, argc, argv, ret, err);
    if (r == 0)
        r = take_page_server(ret, err);
    if (r < 0 || !ret->status_fd || text_equal(ret->status_fd, "-1"))
        return r;
    r = options_number("status-fd", ret->status_fd, INT_MAX, &status_fd, err);
    if (r == 0) {
        ret->status = (int)status_fd;
        options->status_fd = &ret->status;
    }
    return r;
}

static int parse_restore(int argc, char **argv, struct criu_arguments *ret, struct error *err)
{
    struct cloche_runtime_criu_options *options = &ret->options;
    struct option_spec specs[SHARED_OPTIONS + 9] = {{0}};
    const struct option_spec own[] = {
        {.name = "bundle", .letter = 'b', .value = &options->bundle},
        {.name = "detach", .letter = 'd', .flag = &options->detach},
        {.name = "console-socket", .value = &options->console_socket},
        {.name = "pid-file", .value = &options->pid_file},
        {.name = "no-subreaper", .flag = &ret->ignored},
        {.name = "lsm-profile", .value = &options->lsm_profile},
        {.name = "lsm-mount-context", .value = &options->lsm_mount_context},
    };

    share_options(specs, ret);
    memcpy(specs + SHARED_OPTIONS, own, sizeof(own));
    return parse_id(specs, argc, argv, ret, err);
}

static void finish(struct criu_arguments *arguments)
{
    free(arguments->page_address);
    strv_free(arguments->empty_ns);
}

static int checkpoint_main(const struct program *program, int argc, char **argv)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    struct criu_arguments arguments = {
        .options = {.size = sizeof(arguments.options), .criu = program->criu}};
    int code = EXIT_CODE_OK;

    if (parse_checkpoint(argc, argv, &arguments, &err) < 0)
        code = program_usage_error(&command_checkpoint, &err);
    else if (cloche_runtime_checkpoint(program->runtime, &arguments.options) < 0)
        code = program_failed(program);
    finish(&arguments);
    return code;
}

static int restore_main(const struct program *program, int argc, char **argv)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    struct criu_arguments arguments = {.options = {.size = sizeof(arguments.options),
                                                   .criu = program->criu,
                                                   .systemd_cgroup = program->systemd_cgroup}};
    int code;

    if (parse_restore(argc, argv, &arguments, &err) < 0)
        code = program_usage_error(&command_restore, &err);
    else if (cloche_runtime_restore(program->runtime, &arguments.options, &code) < 0)
        code = program_failed(program);
    finish(&arguments);
    return code;
}

const struct command command_checkpoint = {
    .name = "checkpoint",
    .usage = "[--image-path DIR] [--work-path DIR] [--parent-path DIR] [--pre-dump] "
             "[--leave-running] [--tcp-established] [--tcp-skip-in-flight] [--link-remap] "
             "[--ext-unix-sk] [--shell-job] [--file-locks] [--lazy-pages] [--status-fd N] "
             "[--page-server ADDRESS:PORT] [--manage-cgroups-mode MODE] [--empty-ns network] "
             "[--auto-dedup] ID",
    .summary = "save the processes of a container with criu",
    .main = checkpoint_main,
};

const struct command command_restore = {
    .name = "restore",
    .usage = "[-b DIR] [-d] [--console-socket SOCKET] [--pid-file FILE] [--image-path DIR] "
             "[--work-path DIR] [--tcp-established] [--ext-unix-sk] [--shell-job] [--file-locks] "
             "[--lazy-pages] [--manage-cgroups-mode MODE] [--empty-ns network] [--auto-dedup] "
             "[--lsm-profile TYPE:NAME] [--lsm-mount-context CONTEXT] [--no-subreaper] "
             "[--no-pivot] ID",
    .summary = "make a container of what checkpoint saved",
    .main = restore_main,
};
