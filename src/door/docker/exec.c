#include <base/alloc.h>
#include <base/detach_keys.h>
#include <base/text.h>
#include <rpc/server.h>
#include <schema/docker.h>
#include <schema/management.h>

#include "../fields.h"
#include "handlers.h"

/* ---- create */

static void on_created(struct exchange *exchange, const struct rpc_outcome *outcome)
{
    const struct api_exec_ref *exec = outcome->result;
    struct buffer out = BUFFER_INIT;
    struct json_writer writer;

    json_writer_init(&writer, &out, JSON_COMPACT);
    json_writer_object_begin(&writer);
    field_text(&writer, "Id", exec->exec_id);
    json_writer_object_end(&writer);
    answer_json(exchange, 201, &out);
}

void docker_exec_create(struct exchange *exchange)
{
    _cleanup_docker_exec_config_ struct docker_exec_config *config = NULL;
    void *document;

    if (!exchange_document(exchange, &docker_exec_config_type, &document))
        return;
    config = document;
    if (!config->cmd_count) {
        answer_fail(exchange, 400, "No exec command specified");
        return;
    }
    const struct api_exec_create how = {
        .container = exchange->words[0],
        .command = config->cmd,
        .command_count = config->cmd_count,
        .tty = config->tty,
        .has_tty = true,
        .stdin_ = config->attach_stdin,
        .has_stdin = true,
        .stdout_ = config->attach_stdout,
        .has_stdout = true,
        .stderr_ = config->attach_stderr,
        .has_stderr = true,
        .env = config->env,
        .env_count = config->env_count,
        .user = config->user,
        .working_dir = config->working_dir,
        .privileged = config->privileged,
        .has_privileged = true,
        .detach_keys = config->detach_keys ? config->detach_keys : (char *)DETACH_KEYS_DEFAULT,
    };
    if (check_detach_keys(exchange, how.detach_keys))
        call(exchange, "container.execCreate", &how, on_created, NULL);
}

/* ---- start */

struct start {
    bool detach, tty;
};

static void on_ended(struct exchange *exchange, const struct rpc_outcome *outcome _unused_)
{
    answer_hang_up(exchange);
}

/* Clients ask for the exit code when they see the end of the stream: it has to be known by then.
 * Whom the detach keys have parted from a process that runs on is told at once. */
static void on_output_ended(struct exchange *exchange)
{
    const struct api_exec_ref which = {.exec_id = exchange->words[0]};

    if (exchange->detached) {
        answer_hang_up(exchange);
        return;
    }
    call(exchange, "container.execWait", &which, on_ended, &(struct call_options){.errors = true});
    if (!exchange->calls)
        answer_hang_up(exchange);
}

static bool could_not_run(const struct rpc_outcome *outcome)
{
    return outcome->fault == RPC_PROGRAM_NOT_FOUND || outcome->fault == RPC_PROGRAM_NOT_EXECUTABLE;
}

/* Whether a terminal's stream has frames is said by the request to start, not by the one to create
 * the session: docker-py starts those of a terminal without saying so, and unpacks frames. */
static void begin_stream(struct exchange *exchange, const struct rpc_outcome *outcome, bool tty)
{
    const struct api_exec_started *started = outcome->result;

    exchange->dry = on_output_ended;
    exchange->framed = started->tty && !tty;
    detach_keys_parse(started->detach_keys ? started->detach_keys : "", &exchange->detach_keys,
                      NULL); /* the daemon has read them */
    answer_hijack(exchange, steal_fd(&outcome->fds[0]), tty);
}

/* dockerd has given the stream away by then, and writes into it; the exit code is the session's. */
static void on_started(struct exchange *exchange, const struct rpc_outcome *outcome)
{
    const struct start *start = exchange->state;

    if (outcome->code < 0 && could_not_run(outcome) && !start->detach)
        answer_last_words(exchange, error_message(outcome->error), start->tty);
    else if (outcome->code < 0)
        call_answer_error(exchange, outcome);
    else if (start->detach || outcome->fds_count != 1)
        answer_empty(exchange, 200);
    else
        begin_stream(exchange, outcome, start->tty);
}

static uint16_t size_at(const struct docker_exec_start_config *config, size_t index)
{
    int64_t size = config->console_size_count == 2 ? config->console_size[index] : 0;

    return size > 0 && size <= UINT16_MAX ? (uint16_t)size : 0;
}

void docker_exec_start(struct exchange *exchange)
{
    _cleanup_docker_exec_start_config_ struct docker_exec_start_config *config = NULL;
    static const struct call_options errors = {.errors = true};
    struct start *start = xnew(struct start);
    void *document;

    exchange_set_state(exchange, start, free);
    if (!exchange_document(exchange, &docker_exec_start_config_type, &document))
        return;
    config = document;
    start->detach = config->detach;
    start->tty = config->tty;
    struct api_exec_start how = {.exec_id = exchange->words[0],
                                 .detach = config->detach,
                                 .has_detach = true,
                                 .rows = size_at(config, 0),
                                 .columns = size_at(config, 1)};
    how.has_rows = how.has_columns = how.rows && how.columns;
    call(exchange, "container.execStart", &how, on_started, &errors);
}

/* ---- inspect */

static void write_process(struct json_writer *writer, const struct api_exec_details *exec)
{
    field_object_begin(writer, "ProcessConfig");
    field_boolean(writer, "tty", exec->tty);
    field_text(writer, "entrypoint", exec->command ? exec->command[0] : "");
    json_writer_key(writer, "arguments");
    json_writer_array_begin(writer);
    for (size_t i = 1; i < exec->command_count; i++)
        json_writer_string(writer, exec->command[i]);
    json_writer_array_end(writer);
    field_boolean(writer, "privileged", exec->privileged);
    if (exec->user)
        field_text(writer, "user", exec->user);
    json_writer_object_end(writer);
}

/* dockerd 20.10 says 126 of every program that could not be run, also of one that is not there. */
static int64_t exit_code_of(const struct api_exec_details *exec)
{
    return exec->exit_code == 127 && !exec->has_pid ? 126 : exec->exit_code;
}

static void on_inspect(struct exchange *exchange, const struct rpc_outcome *outcome)
{
    const struct api_exec_details *exec = outcome->result;
    struct buffer out = BUFFER_INIT;
    struct json_writer writer;

    json_writer_init(&writer, &out, JSON_COMPACT);
    json_writer_object_begin(&writer);
    field_text(&writer, "ID", exec->exec_id);
    field_boolean(&writer, "Running", exec->running);
    if (exec->has_exit_code)
        field_integer(&writer, "ExitCode", exit_code_of(exec));
    else
        field_null(&writer, "ExitCode");
    write_process(&writer, exec);
    field_boolean(&writer, "OpenStdin", exec->stdin_);
    field_boolean(&writer, "OpenStderr", true);
    field_boolean(&writer, "OpenStdout", true);
    field_boolean(&writer, "CanRemove", false);
    field_text(&writer, "ContainerID", exec->container);
    field_text(&writer, "DetachKeys", exec->detach_keys);
    field_integer(&writer, "Pid", exec->pid);
    json_writer_object_end(&writer);
    answer_json(exchange, 200, &out);
}

void docker_exec_inspect(struct exchange *exchange)
{
    const struct api_exec_ref which = {.exec_id = exchange->words[0]};

    call(exchange, "container.execInspect", &which, on_inspect, NULL);
}

/* ---- resize */

static void resize(struct exchange *exchange, const struct rpc_outcome *outcome)
{
    const struct api_exec_details *exec = outcome->result;
    const struct api_container_resize size = {
        .container = exec->container,
        .exec_id = exec->exec_id,
        .rows = (uint16_t)target_number(&exchange->target, "h", 0),
        .columns = (uint16_t)target_number(&exchange->target, "w", 0)};

    call(exchange, "container.resize", &size, call_done_nothing, NULL);
}

void docker_exec_resize(struct exchange *exchange)
{
    const struct api_exec_ref which = {.exec_id = exchange->words[0]};
    int64_t rows = target_number(&exchange->target, "h", -1);
    int64_t columns = target_number(&exchange->target, "w", -1);

    if (rows < 0 || columns < 0 || rows > UINT16_MAX || columns > UINT16_MAX)
        answer_fail(exchange, 400, "invalid size of a terminal: h and w are numbers to 65535");
    else
        call(exchange, "container.execInspect", &which, resize, NULL);
}
