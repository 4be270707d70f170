#include <poll.h>
#include <stdio.h>
#include <string.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>
#include <rpc/client.h>
#include <schema/management.h>

#include "cli.h"
#include "daemon.h"

/* x-errors of runtime-spec/management.json that `run` and `exec` turn into exit codes. */
enum { RPC_PROGRAM_NOT_FOUND = -6, RPC_PROGRAM_NOT_EXECUTABLE = -7 };

int cli_connect(struct cli *cli, struct error *err)
{
    if (cli->client)
        return 0;
    if (cli->dial.host)
        return dial_connect(&cli->dial, &cli->client, err);
    return daemon_connect(&cli->instance, &cli->client, err);
}

bool cli_connect_running(struct cli *cli)
{
    if (!cli->client && cli->dial.host)
        return dial_connect(&cli->dial, &cli->client, NULL) >= 0;
    return cli->client || rpc_client_connect(cli->instance.socket, &cli->client, NULL) >= 0;
}

/* Streams and archives are handed over as descriptors. */
static int need_descriptors(const struct cli *cli, const char *method, struct error *err)
{
    if (dial_has_descriptors(&cli->dial))
        return 0;
    error_set(err, -EOPNOTSUPP, "%s works with a daemon of this machine only", method);
    return error_hint(err, "Its streams go as descriptors, which cannot travel to %s",
                      cli->dial.host),
           -EOPNOTSUPP;
}

/* Every method the CLI uses is in the table: a name that is not is a slip of the pen. */
static const struct json_method *find_method(const char *name)
{
    for (size_t i = 0; i < management_methods_count; i++) {
        if (strcmp(management_methods[i].name, name) == 0)
            return &management_methods[i];
    }
    abort();
}

int cli_send(struct cli *cli, const char *method, const void *params, uint64_t *ret_id,
             struct error *err)
{
    int r = cli_connect(cli, err);
    if (r < 0)
        return r;
    return rpc_client_send(cli->client, method, find_method(method)->params, params, NULL, 0,
                           ret_id, err);
}

int cli_receive(struct cli *cli, const char *method, uint64_t id, void *ret_result,
                struct error *err)
{
    return rpc_client_receive(cli->client, id, ret_result ? find_method(method)->result : NULL,
                              ret_result, NULL, NULL, err);
}

/* A daemon that was killed takes connections until the kernel has done with it, and nobody answers
 * them. What may be asked twice is then asked again, of the next daemon. */
static bool lost_and_repeatable(struct cli *cli, const char *method, int code)
{
    return find_method(method)->idempotent && cli_daemon_is_gone(cli, code);
}

bool cli_daemon_is_gone(struct cli *cli, int code)
{
    if (code != -ECONNRESET && code != -EPIPE && code != -ENOTCONN)
        return false;
    if (!cli->client || rpc_client_error_code(cli->client))
        return false;
    rpc_client_destroy(steal_ptr(cli->client));
    return true;
}

static int call_once(struct cli *cli, const char *method, const void *params, void *ret_result,
                     struct error *err)
{
    uint64_t id;
    int r = cli_send(cli, method, params, &id, err);

    return r < 0 ? r : cli_receive(cli, method, id, ret_result, err);
}

int cli_call(struct cli *cli, const char *method, const void *params, void *ret_result,
             struct error *err)
{
    int r = call_once(cli, method, params, ret_result, err);

    return lost_and_repeatable(cli, method, r) ? call_once(cli, method, params, ret_result, err)
                                               : r;
}

static int call_for_fd_once(struct cli *cli, const char *method, const void *params, void **result,
                            int *ret_fd, size_t *ret_count, struct error *err)
{
    uint64_t id;
    int r = cli_send(cli, method, params, &id, err);

    return r < 0 ? r
                 : rpc_client_receive(cli->client, id, find_method(method)->result, result, ret_fd,
                                      ret_count, err);
}

int cli_call_for_fd(struct cli *cli, const char *method, const void *params, void *ret_result,
                    int *ret_fd, struct error *err)
{
    const struct json_type *result_type = find_method(method)->result;
    void **result = ret_result;
    size_t count = 1;
    int fd = -1;

    int r = need_descriptors(cli, method, err);
    if (r < 0)
        return r;
    r = call_for_fd_once(cli, method, params, result, &fd, &count, err);
    if (lost_and_repeatable(cli, method, r)) {
        count = 1;
        r = call_for_fd_once(cli, method, params, result, &fd, &count, err);
    }
    if (r < 0)
        return r;
    if (count != 1) {
        json_free(result_type, steal_ptr(*result));
        return error_set(err, -EPROTO, "%s: the daemon's answer came without its stream", method);
    }
    *ret_fd = fd;
    return 0;
}

int cli_call_with_fd(struct cli *cli, const char *method, const void *params, void *ret_result,
                     int fd, void (*tick)(void *context), void *context, struct error *err)
{
    uint64_t id;

    int r = fd >= 0 ? need_descriptors(cli, method, err) : 0;
    if (r >= 0)
        r = cli_connect(cli, err);
    if (r >= 0)
        r = rpc_client_send(cli->client, method, find_method(method)->params, params, &fd,
                            fd >= 0 ? 1 : 0, &id, err);
    while (r >= 0 && tick) {
        struct pollfd answer = {.fd = rpc_client_fd(cli->client), .events = POLLIN};
        tick(context);
        if (poll(&answer, 1, TICK_MILLISECONDS) < 0 && errno != EINTR)
            return error_errno(err, errno, "wait for the daemon's answer");
        r = answer.revents ? rpc_client_ready(cli->client, id, err) : 0;
        if (r > 0)
            break;
    }
    return r < 0 ? r : cli_receive(cli, method, id, ret_result, err);
}

int cli_print(const struct buffer *text)
{
    if (file_write_all(STDOUT_FILENO, text->data, text->length) < 0) {
        fprintf(stderr, "cloche: write to standard output: %s\n", strerror(errno));
        return EXIT_FAILED;
    }
    return EXIT_DONE;
}

static void print_error(const char *prefix, const struct error *err)
{
    _cleanup_free_ char *message = text_make_harmless(xstrdup(error_message(err)), "\n");
    _cleanup_free_ char *hint = text_make_harmless(xstrdup(err->hint), "\n");

    fprintf(stderr, "%s: %s\n", prefix, message);
    if (hint)
        fprintf(stderr, "%s\n", hint);
}

int cli_fail(const struct error *err)
{
    print_error("Error", err);
    return EXIT_FAILED;
}

/* The last answer's code, as an exit code; otherwise when it says nothing of the program. */
static int program_code(const struct cli *cli, int otherwise)
{
    int code = cli->client ? rpc_client_error_code(cli->client) : 0;

    if (code == RPC_PROGRAM_NOT_FOUND)
        return EXIT_NOT_FOUND;
    return code == RPC_PROGRAM_NOT_EXECUTABLE ? EXIT_NOT_EXECUTED : otherwise;
}

int cli_fail_run(const struct cli *cli, const struct error *err)
{
    _cleanup_free_ char *words = cli_command_words(cli->spelling);

    print_error("cloche", err);
    fprintf(stderr, "\nRun 'cloche %s --help' for more information\n", words);
    return program_code(cli, EXIT_ENGINE);
}

int cli_fail_exec(const struct cli *cli, const struct error *err)
{
    print_error("Error", err);
    return program_code(cli, EXIT_FAILED);
}

int cli_fail_usage(const struct cli *cli, int code, const char *format, ...)
{
    _cleanup_free_ char *words = cli_command_words(cli->spelling);
    _cleanup_free_ char *message = NULL;
    va_list args;

    va_start(args, format);
    message = xvasprintf(format, args);
    va_end(args);
    fprintf(stderr, "cloche: %s\nSee 'cloche %s --help'.\n", message, words);
    return code;
}

char *cli_command_words(const struct spelling *spelling)
{
    if (!spelling->group)
        return xstrdup(spelling->name);
    return xasprintf("%s %s", spelling->group, spelling->name);
}

int cli_for_each(struct cli *cli, char *const *operands, const void *values, cli_action action,
                 bool echo)
{
    int code = EXIT_DONE;

    for (; *operands; operands++) {
        _cleanup_error_ struct error err = ERROR_INIT;
        int r = action(cli, *operands, values, &err);
        if (r < 0)
            code = cli_fail(&err);
        else if (echo && r == 0)
            printf("%s\n", *operands);
        fflush(stdout); /* before a later one's error: the order tells which is which */
    }
    return ferror(stdout) ? EXIT_FAILED : code;
}

void cli_finish(struct cli *cli)
{
    rpc_client_destroy(steal_ptr(cli->client));
    instance_finish(&cli->instance);
}
