/*
 * What every command has in hand: the instance, its connection, and the way it reports.
 */
#ifndef CLOCHE_CLI_H
#define CLOCHE_CLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <base/buffer.h>
#include <base/error.h>
#include <base/instance.h>

#include "commands.h"

struct rpc_client;

struct cli {
    struct instance instance;
    struct dial_options dial;
    const struct spelling *spelling; /* as the user called the command; NULL until known */
    struct rpc_client *client;       /* NULL until cli_connect() */
};

/* Connects once to the instance's daemon; starts one when nobody listens. Blocks until it is
 * ready. */
int cli_connect(struct cli *cli, struct error *err);

/* Whether a daemon listens. Never starts one. Connects. */
bool cli_connect_running(struct cli *cli);

/* After a failed call with this code: whether the connection broke without an answer. It is dropped
 * then, so that the next call goes to the next daemon. */
bool cli_daemon_is_gone(struct cli *cli, int code);

/* One call on the connection (made when there is none yet). params and the result are the types
 * that runtime-spec/management.json names for the method. ret_result is NULL or the address of a
 * pointer: the result is owned by the caller. */
int cli_call(struct cli *cli, const char *method, const void *params, void *ret_result,
             struct error *err);

/* As cli_call with one descriptor coming back into *ret_fd (owned); -EPROTO when none does. */
int cli_call_for_fd(struct cli *cli, const char *method, const void *params, void *ret_result,
                    int *ret_fd, struct error *err);

/* As cli_call, with a descriptor (-1: none) that goes along and stays the caller's. While the
 * daemon works, tick(context) is called every TICK_MILLISECONDS (tick may be NULL). */
enum { TICK_MILLISECONDS = 100 };
int cli_call_with_fd(struct cli *cli, const char *method, const void *params, void *ret_result,
                     int fd, void (*tick)(void *context), void *context, struct error *err);

/* A request whose answer is taken later, with cli_receive(). */
int cli_send(struct cli *cli, const char *method, const void *params, uint64_t *ret_id,
             struct error *err);
int cli_receive(struct cli *cli, const char *method, uint64_t id, void *ret_result,
                struct error *err);

/* Writes to standard output what a command has to say, all at once. Returns an exit code. */
int cli_print(const struct buffer *text);

/* "Error: what\nhint" on standard error. Returns EXIT_FAILED. */
int cli_fail(const struct error *err);

/* "cloche: what" and where help is, as docker says what keeps `run` from running. Returns the exit
 * code docker uses: 125, 126 when the program cannot be executed, 127 when there is none. */
int cli_fail_run(const struct cli *cli, const struct error *err);

/* As cli_fail, with the exit codes 126 and 127 for a program that cannot be executed or found. */
int cli_fail_exec(const struct cli *cli, const struct error *err);

/* "cloche: what" and where help is, for operands or values that make no sense. Returns code. */
int cli_fail_usage(const struct cli *cli, int code, const char *format, ...) _printf_(3, 4);

/* "run", or "container run" as the user called it. */
char *cli_command_words(const struct spelling *spelling);

/* Does action for each operand; reports each failure and goes on. With echo each operand for which
 * it returned 0 is printed, as docker's kill, stop, rm ... do. Returns an exit code. */
typedef int (*cli_action)(struct cli *cli, const char *operand, const void *values,
                          struct error *err);
int cli_for_each(struct cli *cli, char *const *operands, const void *values, cli_action action,
                 bool echo);

void cli_finish(struct cli *cli);

#endif
