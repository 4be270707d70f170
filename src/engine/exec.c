/*
 * Further processes in a running container.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>

#include "apparmor.h"
#include "bundle.h"
#include "events.h"
#include "linked.h"
#include "internal.h"
#include "pause.h"

enum { EXIT_CODE_KILLED = 137, EXIT_CODE_NOT_EXECUTED = 126 };

struct exec_call {
    struct disk_job job;
    struct container *container; /* a reference */
    struct api_container_exec *how;
    bool known; /* the session was prepared before */
    struct monitor_exec request;
    char *rootfs_path; /* owned; through the monitor's mount namespace */
    char *run_path;    /* owned */
    char **linked;     /* owned */
    int client_fd;
    engine_done done;
    void *data;
    struct error err;
};

static void call_free(struct exec_call *call)
{
    close_fd(call->client_fd);
    api_container_exec_free(call->how);
    error_finish(&call->err);
    free(call->rootfs_path);
    free(call->run_path);
    strv_free(call->linked);
    container_unref(call->container);
    free(call);
}

static void call_fail(struct exec_call *call)
{
    engine_fail(call->done, call->data, &call->err);
    call_free(call);
}

/* --- sessions --------------------------------------------------------------------------------- */

struct exec_session *exec_session_find(struct engine *engine, const char *id,
                                       struct container **ret_container)
{
    for (size_t i = 0; i < engine->containers_count; i++) {
        struct container *container = engine->containers[i];
        for (struct exec_session *at = container->execs; at; at = at->next) {
            if (!text_equal(at->id, id))
                continue;
            if (ret_container)
                *ret_container = container;
            return at;
        }
    }
    return NULL;
}

static void session_free(struct exec_session *session)
{
    api_container_exec_free(session->how);
    free(session);
}

/* The oldest sessions that do not run make room. */
static void forget_old(struct container *container)
{
    struct exec_session **oldest = NULL;
    size_t count = 0;

    for (struct exec_session **at = &container->execs; *at; at = &(*at)->next) {
        count++;
        if (!(*at)->running)
            oldest = at;
    }
    if (count >= ENGINE_EXECS_MAX && oldest) {
        struct exec_session *old = *oldest;
        *oldest = old->next;
        session_free(old);
    }
}

/* how: taken over; NULL: not known. */
static struct exec_session *add_session(struct container *container, const char *id,
                                        struct api_container_exec *how)
{
    struct exec_session *session = xnew(struct exec_session);

    forget_old(container);
    memcpy(session->id, id, sizeof(session->id));
    session->how = how;
    session->next = container->execs;
    container->execs = session;
    return session;
}

static void remove_session(struct container *container, const char *id)
{
    for (struct exec_session **at = &container->execs; *at; at = &(*at)->next) {
        struct exec_session *session = *at;
        if (!text_equal(session->id, id))
            continue;
        *at = session->next;
        session_free(session);
        return;
    }
}

static struct exec_session *find_or_add(struct container *container, const char *id)
{
    struct exec_session *session = container->execs;

    while (session && !text_equal(session->id, id))
        session = session->next;
    if (!session && text_is_hex(id, EXEC_ID_DIGITS))
        session = add_session(container, id, NULL);
    return session;
}

static void session_begins(struct exec_session *session, int pid)
{
    session->started = session->running = true;
    session->pid = pid;
}

void exec_adopt(struct container *container, const char *id, int pid)
{
    struct exec_session *session = find_or_add(container, id);

    if (session)
        session_begins(session, pid);
}

static void tell_exec_ended(const struct container *container, const struct exec_session *session)
{
    _cleanup_free_ char *code = xasprintf("%d", session->exit_code);

    event_exec(container, "exec_die", session->id, code);
}

/* An end that comes for a session that an earlier daemon started makes the session known. */
void exec_ended(struct container *container, const char *id, int exit_code)
{
    struct exec_session *session = find_or_add(container, id);

    if (!session)
        return;
    session->started = true;
    session->running = false;
    session->pid = 0;
    session->exit_code = exit_code;
    tell_exec_ended(container, session);
    waiters_exec_ended(container->engine, session);
}

void exec_end_all(struct container *container)
{
    for (struct exec_session *session = container->execs; session; session = session->next) {
        if (!session->running)
            continue;
        session->running = false;
        session->pid = 0;
        session->exit_code = EXIT_CODE_KILLED;
        tell_exec_ended(container, session);
        waiters_exec_ended(container->engine, session);
    }
}

void exec_free_all(struct container *container)
{
    while (container->execs) {
        struct exec_session *session = container->execs;
        container->execs = session->next;
        session_free(session);
    }
}

static struct api_container_exec *copy_exec(const struct api_container_exec *how)
{
    struct api_container_exec *copy = xnew(struct api_container_exec);

    *copy = *how;
    copy->container = xstrdup(how->container);
    copy->command = strv_copy(how->command);
    copy->env = strv_copy(how->env);
    copy->user = xstrdup(how->user);
    copy->working_dir = xstrdup(how->working_dir);
    copy->detach_keys = xstrdup(how->detach_keys);
    return copy;
}

/* --- starting one ----------------------------------------------------------------------------- */

static int write_process(struct exec_call *call, const struct user *user, struct error *err)
{
    const struct api_container_exec *how = call->how;
    struct bundle_exec exec = {
        .command = how->command,
        .env = how->env,
        .linked = call->linked,
        .working_dir = how->working_dir,
        .user = user,
        .tty = how->tty,
        .privileged = how->privileged,
        .rows = how->rows,
        .columns = how->columns,
    };
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;
    _cleanup_close_ int run_fd = open(call->run_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (run_fd < 0)
        return error_errno(err, errno, "open %s", call->run_path);
    int r = apparmor_load_default(call->container->effective, &exec.apparmor, err);
    if (r < 0)
        return r;
    bundle_write_process(call->container->effective, &exec, &text);
    return file_replace_at(run_fd, call->request.process, text.data, text.length, 0600, err);
}

static void exec_work(struct disk_job *job)
{
    struct exec_call *call = disk_job_of(job, struct exec_call, job);
    const char *name =
        text_empty(call->how->user) ? call->container->effective->user : call->how->user;
    const struct user_question question = {name, call->container->effective->group_add};
    _cleanup_(user_finish) struct user user = {0};

    _cleanup_close_ int root_fd = open(call->rootfs_path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (root_fd < 0) {
        error_errno(&call->err, errno, "open the root of container %.12s", call->container->id);
        return;
    }
    int r = user_resolve(root_fd, &question, &user, &call->err);
    if (r < 0) /* as docker has it: it is the exec's end, with 126 */
        r = call->err.code = ENGINE_PROGRAM_NOT_EXECUTABLE;
    else
        r = write_process(call, &user, &call->err);
    engine_settle(&call->err, r);
}

/* docker makes an exec session and starts it in two steps. */
static void tell_exec(const struct container *container, const struct api_container_exec *how,
                      const char *id, const char *action)
{
    _cleanup_free_ char *command = strv_join(how->command, " ");

    event_container(container, action,
                    (struct event_attribute[]){{"execID", id}, {"command", command}, {NULL, NULL}});
}

static struct exec_session *session_of(const struct exec_call *call)
{
    return find_or_add(call->container, call->request.id);
}

static void start_failed(struct exec_call *call, const struct link_message *message)
{
    struct exec_session *session = session_of(call);
    int code = link_error(message, &call->err);

    if (code == 126)
        call->err.code = ENGINE_PROGRAM_NOT_EXECUTABLE;
    else if (code == 127)
        call->err.code = ENGINE_PROGRAM_NOT_FOUND;
    else if (code > 0)
        call->err.code = -EIO;
    if (!call->known)
        remove_session(call->container, call->request.id);
    else if (session)
        session->running = false;
    if (call->known && session)
        session->exit_code = code > 0 ? code : EXIT_CODE_NOT_EXECUTED;
    call_fail(call);
}

static void on_exec_reply(const struct link_message *message, void *data)
{
    struct exec_call *call = data;
    struct engine_result result = ENGINE_RESULT_INIT;
    const struct monitor_pid *started =
        link_payload(message, MONITOR_OK, sizeof(struct monitor_pid));

    if (!started) {
        start_failed(call, message);
        return;
    }
    struct exec_session *session = session_of(call);
    if (session && session->running)
        session->pid = started->pid;
    tell_exec(call->container, call->how, call->request.id, "exec_start");
    result.id = call->request.id;
    result.fd = steal_fd(&call->client_fd);
    result.pid = started->pid;
    result.tty = call->how->tty;
    result.detach_keys = call->how->detach_keys;
    call->done(&result, call->data);
    call_free(call);
}

static void exec_prepared(struct disk_job *job)
{
    struct exec_call *call = disk_job_of(job, struct exec_call, job);
    struct container *container = call->container;
    int pair[2] = {-1, -1};

    if (call->err.code == 0 && !container->link)
        error_set(&call->err, -EBUSY, "container %s is not running", container->id);
    if (call->err.code == 0 && !call->how->detach &&
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        error_errno(&call->err, errno, "make a stream");
    if (call->err.code < 0) {
        if (call->known && session_of(call)) {
            session_of(call)->running = false;
            session_of(call)->exit_code = EXIT_CODE_NOT_EXECUTED;
        }
        call_fail(call);
        return;
    }
    call->client_fd = pair[0];
    if (!call->known) {
        session_begins(add_session(container, call->request.id, copy_exec(call->how)), 0);
        tell_exec(container, call->how, call->request.id, "exec_create");
    }
    bool old = link_version(container->link) < MONITOR_PROTOCOL_VERSION;
    link_request(container->link, MONITOR_EXEC, &call->request,
                 old ? MONITOR_EXEC_SIZE_1 : sizeof(call->request), &pair[1], pair[1] >= 0 ? 1 : 0,
                 on_exec_reply, call);
    close_fd(pair[1]);
}

static int check_exec(const struct container *container, const struct api_container_exec *how,
                      struct error *err)
{
    if (container->state == CONTAINER_RESTARTING)
        return error_set(err, -EBUSY,
                         "Container %s is restarting, wait until the container is running",
                         container->id);
    if (container->state != CONTAINER_RUNNING || !container->link ||
        !container->record->has_monitor_pid)
        return error_set(err, -EBUSY, "container %s is not running", container->id);
    if (container_is_paused(container))
        return error_set(err, -EBUSY, "Container %s is paused, unpause the container before exec",
                         container->name);
    struct monitor_detach keys;
    if (how->tty && detach_parse(how->detach_keys, &keys, err) < 0)
        return -EINVAL;
    if (how->command_count == 0 || !how->command[0][0])
        return error_set(err, -EINVAL, "no exec command specified");
    if (!text_empty(how->working_dir) && how->working_dir[0] != '/')
        return error_set(err, -EINVAL,
                         "the working directory '%s' is invalid, it needs to be an absolute path",
                         how->working_dir);
    return 0;
}

static uint32_t exec_flags(const struct api_container_exec *how)
{
    return (how->tty ? (uint32_t)MONITOR_EXEC_TTY : 0) |
           (how->stdin_ ? (uint32_t)MONITOR_EXEC_STDIN : 0) |
           (how->has_stdout && !how->stdout_ ? (uint32_t)MONITOR_EXEC_NO_STDOUT : 0) |
           (how->has_stderr && !how->stderr_ ? (uint32_t)MONITOR_EXEC_NO_STDERR : 0) |
           (how->detach ? (uint32_t)MONITOR_EXEC_DETACH : 0);
}

static void begin(struct container *container, const struct api_container_exec *how,
                  const char *known_id, engine_done done, void *data)
{
    struct exec_call *call = xnew(struct exec_call);

    call->container = container_ref(container);
    call->how = copy_exec(how);
    call->known = known_id != NULL;
    call->client_fd = -1;
    call->done = done;
    call->data = data;
    call->run_path = container_run_path(container, NULL);
    call->linked = linked_environment(container);
    call->rootfs_path = xasprintf("/proc/%jd/root%s/rootfs",
                                  (intmax_t)container->record->monitor_pid, call->run_path);
    if (known_id)
        memcpy(call->request.id, known_id, EXEC_ID_DIGITS + 1);
    else
        text_random_hex(call->request.id, EXEC_ID_DIGITS);
    snprintf(call->request.process, sizeof(call->request.process), "process-%.16s.json",
             call->request.id);
    call->request.flags = exec_flags(how);
    if (how->tty)
        detach_parse(how->detach_keys, &call->request.detach, NULL); /* check_exec() has read it */
    call->request.rows = how->rows;
    call->request.columns = how->columns;
    call->job.work = exec_work;
    call->job.done = exec_prepared;
    disk_submit(container->engine->disk, &call->job);
}

void engine_container_exec(struct container *container, const struct api_container_exec *how,
                           engine_done done, void *data)
{
    _cleanup_error_ struct error err = ERROR_INIT;

    if (check_exec(container, how, &err) < 0)
        engine_fail(done, data, &err);
    else
        begin(container, how, NULL, done, data);
}

/* --- in two steps, as docker's clients do it -------------------------------------------------- */

void engine_exec_create(struct container *container, const struct api_exec_create *what,
                        engine_done done, void *data)
{
    struct engine_result result = ENGINE_RESULT_INIT;
    _cleanup_error_ struct error err = ERROR_INIT;
    const struct api_container_exec how = {
        .container = container->id,
        .command = what->command,
        .command_count = what->command_count,
        .tty = what->tty,
        .has_tty = what->has_tty,
        .stdin_ = what->stdin_,
        .has_stdin = what->has_stdin,
        .stdout_ = what->stdout_,
        .has_stdout = what->has_stdout,
        .stderr_ = what->stderr_,
        .has_stderr = what->has_stderr,
        .env = what->env,
        .env_count = what->env_count,
        .user = what->user,
        .working_dir = what->working_dir,
        .privileged = what->privileged,
        .has_privileged = what->has_privileged,
        .detach_keys = what->detach_keys,
    };
    char id[EXEC_ID_DIGITS + 1];

    if (check_exec(container, &how, &err) < 0) {
        engine_fail(done, data, &err);
        return;
    }
    text_random_hex(id, EXEC_ID_DIGITS);
    struct exec_session *session = add_session(container, id, copy_exec(&how));
    tell_exec(container, session->how, session->id, "exec_create");
    result.id = session->id;
    done(&result, data);
}

static int check_start(const struct exec_session *session, const struct container *container,
                       struct error *err)
{
    if (session->started)
        return error_set(err, -EBUSY, "exec session %s has already run", session->id);
    return check_exec(container, session->how, err);
}

void engine_exec_start(struct engine *engine, const struct api_exec_start *how, engine_done done,
                       void *data)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    struct container *container = NULL;
    struct exec_session *session = exec_session_find(engine, how->exec_id, &container);

    if (!session)
        error_set(&err, -ENOENT, "No such exec instance: %.80s", how->exec_id);
    else
        check_start(session, container, &err);
    if (err.code < 0) {
        engine_fail(done, data, &err);
        return;
    }
    session_begins(session, 0);
    session->how->detach = session->how->has_detach = how->detach;
    session->how->rows = how->rows;
    session->how->has_rows = how->has_rows;
    session->how->columns = how->columns;
    session->how->has_columns = how->has_columns;
    begin(container, session->how, session->id, done, data);
}

struct container *engine_exec_container(struct engine *engine, const char *exec_id)
{
    struct container *container = NULL;

    return exec_session_find(engine, exec_id, &container) ? container : NULL;
}

struct api_exec_details *engine_exec_inspect(struct engine *engine, const char *exec_id)
{
    struct container *container = NULL;
    const struct exec_session *session = exec_session_find(engine, exec_id, &container);

    if (!session)
        return NULL;
    struct api_exec_details *details = xnew(struct api_exec_details);
    details->exec_id = xstrdup(session->id);
    details->container = xstrdup(container->id);
    details->running = session->running;
    details->started = session->started;
    details->pid = session->pid;
    details->has_pid = session->pid > 0;
    details->exit_code = session->exit_code;
    details->has_exit_code = session->started && !session->running;
    if (!session->how)
        return details;
    details->command = strv_copy(session->how->command);
    details->command_count = strv_length(details->command);
    details->tty = details->has_tty = session->how->tty;
    details->stdin_ = details->has_stdin = session->how->stdin_;
    details->privileged = details->has_privileged = session->how->privileged;
    details->user = xstrdup(session->how->user);
    details->working_dir = xstrdup(session->how->working_dir);
    details->detach_keys = xstrdup(session->how->detach_keys);
    return details;
}

/* One that could not be started has a code, and never was. */
static bool is_prepared(const struct container *container, const struct exec_session *session)
{
    return container->state == CONTAINER_RUNNING && !session->started && session->exit_code == 0;
}

char **exec_live_ids(const struct container *container)
{
    char **ids = NULL;

    for (const struct exec_session *at = container->execs; at; at = at->next) {
        if (at->running || is_prepared(container, at))
            strv_append(&ids, at->id);
    }
    return ids;
}
