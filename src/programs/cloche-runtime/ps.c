#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cloche/runtime.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/process.h>
#include <base/text.h>

#include "options.h"
#include "program.h"

enum { PS_OUTPUT_MAX = 16 << 20 };

static bool is_member(const pid_t *pids, size_t count, long pid)
{
    for (size_t i = 0; i < count; i++) {
        if (pids[i] == pid)
            return true;
    }
    return false;
}

/* The word in column `index` of a line of ps. */
static const char *word_at(const char *line, int index)
{
    line += strspn(line, " ");
    for (; index > 0 && *line; index--) {
        line += strcspn(line, " ");
        line += strspn(line, " ");
    }
    return line;
}

static int pid_column(const char *header)
{
    for (int i = 0;; i++) {
        const char *word = word_at(header, i);
        if (!*word)
            return -1;
        if (strncmp(word, "PID", 3) == 0 && (word[3] == ' ' || !word[3]))
            return i;
    }
}

/* The machine's own ps, and of its lines those of the container. */
static int run_ps(char **arguments, char **ret, struct error *err)
{
    char *plain[] = {(char[]){"ps"}, (char[]){"-ef"}, NULL};
    char **argv = plain;
    int fds[2], status;
    struct process process;

    _cleanup_free_ char **with_arguments = NULL;
    if (arguments[0]) {
        size_t count = strv_length(arguments);
        with_arguments = xnew_array(char *, count + 2);
        with_arguments[0] = plain[0];
        memcpy(with_arguments + 1, arguments, count * sizeof(char *));
        argv = with_arguments;
    }
    if (pipe(fds) < 0)
        return error_errno(err, errno, "create a pipe");
    _cleanup_close_ int read_fd = fds[0], write_fd = fds[1];
    struct process_spec spec = {
        .path = "ps",
        .argv = argv,
        .fds = (int[]){-1, write_fd, STDERR_FILENO},
        .fds_count = 3,
    };
    int r = process_spawn(&spec, &process, err);
    if (r < 0)
        return r;
    close_fd(steal_fd(&write_fd));
    r = file_read_fd(read_fd, PS_OUTPUT_MAX, ret, NULL, err);
    int waited = process_wait(&process, &status, r < 0 ? NULL : err);
    if (r < 0 || waited < 0)
        return r < 0 ? r : waited;
    return process_exit_code(status) ? error_set(err, -EIO, "ps failed") : 0;
}

static int print_lines(char *text, const pid_t *pids, size_t count, struct error *err)
{
    char *line = strsep(&text, "\n");
    int column = pid_column(line);

    if (column < 0)
        return error_set(err, -EINVAL, "couldn't find PID field in ps output");
    puts(line);
    while ((line = strsep(&text, "\n"))) {
        if (is_member(pids, count, strtol(word_at(line, column), NULL, 10)))
            puts(line);
    }
    return 0;
}

static void print_json(const pid_t *pids, size_t count)
{
    putchar('[');
    for (size_t i = 0; i < count; i++)
        printf("%s%d", i ? "," : "", pids[i]);
    puts("]");
}

static int ps_main(const struct program *program, int argc, char **argv)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    _cleanup_free_ pid_t *pids = NULL;
    _cleanup_free_ char *text = NULL;
    const char *format = "table";
    size_t count;
    const struct option_spec specs[] = {{.name = "format", .letter = 'f', .value = &format}, {0}};
    int rest = options_parse(specs, false, argc, argv, &err);

    if (rest == 0)
        rest = error_set(&err, -1, "needs the container's ID");
    if (rest > 0 && !text_equal(format, "table") && !text_equal(format, "json"))
        rest = error_set(&err, -1, "invalid format option: %s", format);
    if (rest < 0)
        return program_usage_error(&command_ps, &err);
    if (cloche_runtime_processes(program->runtime, argv[1], &pids, &count) < 0)
        return program_failed(program);
    if (text_equal(format, "json")) {
        print_json(pids, count);
        return EXIT_CODE_OK;
    }
    int r = run_ps(argv + 2, &text, &err);
    if (r == 0)
        r = print_lines(text, pids, count, &err);
    return r < 0 ? program_fail(&err) : EXIT_CODE_OK;
}

const struct command command_ps = {
    .name = "ps",
    .usage = "[--format table|json] ID [ps options]",
    .summary = "list the processes of a container",
    .main = ps_main,
};
