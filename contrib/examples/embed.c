/*
 * Runs the program of a bundle in a container and says how it ended: libcloche-runtime(3).
 *
 *     cc embed.c $(pkg-config --cflags --libs libcloche-runtime) -o embed
 *     ./embed /srv/shop shop
 */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cloche/runtime.h>

static void check(struct cloche_runtime *runtime, int result, const char *what)
{
    if (result >= 0)
        return;
    const char *hint = cloche_runtime_hint(runtime);
    fprintf(stderr, "%s: %s\n", what, cloche_runtime_error(runtime));
    if (hint)
        fprintf(stderr, "%s\n", hint);
    exit(EXIT_FAILURE);
}

static void print_warning(void *context, enum cloche_runtime_level level, const char *text)
{
    (void)context;
    if (level == CLOCHE_RUNTIME_WARNING)
        fprintf(stderr, "warning: %s\n", text);
}

/* Statistics every second until the container's process has ended. */
static void wait_and_watch(struct cloche_runtime *runtime, const char *id)
{
    struct pollfd ended = {.fd = cloche_runtime_pidfd(runtime, id), .events = POLLIN};
    char *statistics;

    check(runtime, ended.fd, "watch");
    while (poll(&ended, 1, 1000) == 0) {
        if (cloche_runtime_statistics(runtime, id, &statistics) == 0) {
            puts(statistics);
            free(statistics);
        }
    }
    close(ended.fd);
}

int main(int argc, char **argv)
{
    /* Before anything else: no container gets at this program's own file. */
    if (argc != 3 || cloche_runtime_seal(argv, 0) < 0)
        return EXIT_FAILURE;

    const struct cloche_runtime_settings settings = {.size = sizeof(settings),
                                                     .log = print_warning};
    const struct cloche_runtime_create_options options = {
        .size = sizeof(options), .bundle = argv[1], .id = argv[2]};
    struct cloche_runtime_info *info;
    struct cloche_runtime *runtime;
    int status;

    /* The container's process becomes our child, so that its exit status comes to us. */
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    if (cloche_runtime_open(&settings, &runtime) < 0)
        return EXIT_FAILURE;
    check(runtime, cloche_runtime_create(runtime, &options), "create");
    check(runtime, cloche_runtime_state(runtime, options.id, &info), "state");
    printf("%s: process %d, %s\n", info->id, (int)info->pid,
           cloche_runtime_status_name(info->status));
    check(runtime, cloche_runtime_start(runtime, options.id, NULL), "start");
    wait_and_watch(runtime, options.id);
    waitpid(info->pid, &status, 0);
    printf("%s: exit status %d\n", info->id, WEXITSTATUS(status));
    cloche_runtime_info_free(info);
    check(runtime, cloche_runtime_delete(runtime, options.id, 0), "delete");
    cloche_runtime_close(runtime);
    return WEXITSTATUS(status);
}
