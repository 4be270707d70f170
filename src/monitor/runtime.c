/*
 * Calling cloche-runtime (or any other OCI runtime with the same command line). It is started with
 * the sandbox's descriptors as its own, and watched by SIGCHLD like every child.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>

#include "monitor_internal.h"

enum {
    RUNTIME_ARGUMENTS_MAX = 24,
    RUNTIME_LOG_MAX = 256 * 1024, /* bytes of it that are looked at */
    FAILURE_TEXT_MAX = 2048,
    PID_FILE_MAX = 32,
};

struct command {
    const char *arguments[RUNTIME_ARGUMENTS_MAX];
    size_t count;
};

static void add(struct command *command, const char *argument)
{
    if (command->count + 1 >= RUNTIME_ARGUMENTS_MAX)
        abort();
    command->arguments[command->count++] = argument;
}

static void add_option(struct command *command, const char *name, const char *value)
{
    add(command, name);
    add(command, value);
}

static int start(struct monitor *monitor, struct command *command, struct session_stdio *stdio,
                 struct process *ret, struct error *err)
{
    const struct process_spec spec = {
        .path = monitor->options->runtime,
        .argv = (char *const *)(uintptr_t)command->arguments,
        .fds = stdio->fds,
        .fds_count = ARRAY_SIZE(stdio->fds),
        .directory = monitor->options->bundle,
        /* One that goes on alone makes a container that nobody knows of. */
        .parent_death_signal = SIGKILL,
    };

    isolate_begin_child();
    int r = process_spawn(&spec, ret, err);
    isolate_end_child();
    session_stdio_close(stdio);
    if (r == 0)
        close_fd(steal_fd(&ret->pidfd));
    return r;
}

static void begin_command(const struct monitor *monitor, struct command *command, const char *log)
{
    add(command, monitor->options->runtime);
    add_option(command, "--root", monitor->options->runtime_root);
    add_option(command, "--log", log);
    add_option(command, "--log-format", "json");
}

static int start_session(struct monitor *monitor, struct session *session, const char *verb,
                         struct session_stdio *stdio, struct error *err)
{
    _cleanup_free_ char *log = session_file(monitor, session, "log");
    _cleanup_free_ char *pid_file = session_file(monitor, session, "pid");
    _cleanup_free_ char *console = session_file(monitor, session, "tty");
    struct command command = {.count = 0};

    unlink(log);
    unlink(pid_file);
    begin_command(monitor, &command, log);
    add(&command, verb);
    add(&command, "--detach");
    add_option(&command, "--pid-file", pid_file);
    if (session->tty)
        add_option(&command, "--console-socket", console);
    if (session->document) {
        if (session->tty)
            add(&command, "--tty");
        add_option(&command, "--process", session->document);
    } else {
        add_option(&command, "--bundle", monitor->options->bundle);
    }
    add(&command, monitor->options->id);
    return start(monitor, &command, stdio, &session->helper, err);
}

int runtime_run(struct monitor *monitor, struct session *session, struct session_stdio *stdio,
                struct error *err)
{
    return start_session(monitor, session, "run", stdio, err);
}

int runtime_exec(struct monitor *monitor, struct session *session, struct session_stdio *stdio,
                 struct error *err)
{
    return start_session(monitor, session, "exec", stdio, err);
}

int runtime_delete(struct monitor *monitor, struct error *err)
{
    _cleanup_free_ char *log = session_file(monitor, &monitor->container, "log");
    struct session_stdio stdio = {{-1, -1, -1}};
    struct command command = {.count = 0};

    begin_command(monitor, &command, log);
    add(&command, "delete");
    add(&command, "--force");
    add(&command, monitor->options->id);
    return start(monitor, &command, &stdio, &monitor->deleting, err);
}

bool runtime_knows_container(const struct monitor *monitor)
{
    _cleanup_free_ char *path =
        xasprintf("%s/%s", monitor->options->runtime_root, monitor->options->id);

    return access(path, F_OK) == 0;
}

int runtime_read_pid(struct monitor *monitor, const struct session *session, pid_t *ret,
                     struct error *err)
{
    _cleanup_free_ char *path = session_file(monitor, session, "pid"), *text = NULL;
    uint64_t pid;

    int r = file_read_at(AT_FDCWD, path, PID_FILE_MAX, &text, NULL, err);
    if (r < 0)
        return r;
    text[strcspn(text, "\n")] = '\0';
    if (text_to_u64(text, 2, INT32_MAX, &pid) < 0)
        return error_set(err, -EPROTO, "%s: not a process id", path);
    *ret = (pid_t)pid;
    return 0;
}

void runtime_remove_files(struct monitor *monitor, const struct session *session)
{
    const char *const suffixes[] = {"pid", "tty", "log"};

    for (size_t i = 0; i < ARRAY_SIZE(suffixes); i++) {
        _cleanup_free_ char *path = session_file(monitor, session, suffixes[i]);
        unlink(path);
    }
    if (session->document && !session->keep_document)
        unlinkat(monitor->bundle_fd, session->document, 0);
}

void runtime_give_up(struct session *session)
{
    /* Our child: its number is not given away before we have reaped it. */
    if (session->helper.pid > 0)
        kill(session->helper.pid, SIGKILL);
    session->helper.pid = 0;
}

/* ---- why it failed ---- */

/* The text of a JSON string that starts behind its quotation mark; escapes other than the short
 * ones become spaces. */
static void unquote(const char *from, char *ret, size_t size)
{
    static const char short_escapes[] = "\"\\/";
    size_t length = 0;

    for (; *from && *from != '"' && length + 1 < size; from++) {
        if (*from != '\\') {
            ret[length++] = *from;
            continue;
        }
        from++;
        if (!*from)
            break;
        ret[length++] = strchr(short_escapes, *from) ? *from : ' ';
        if (*from == 'u' && strnlen(from, 5) == 5)
            from += 4;
    }
    ret[length] = '\0';
}

/* The last line of the log with a message (runc's and crun's JSON lines have "msg"). */
static bool find_message(const char *log, char *ret, size_t size)
{
    static const char key[] = "\"msg\"";
    const char *last = NULL;

    for (const char *at = strstr(log, key); at; at = strstr(at + 1, key))
        last = at;
    if (!last)
        return false;
    last += strlen(key);
    last += strspn(last, " :");
    if (*last != '"')
        return false;
    unquote(last + 1, ret, size);
    return ret[0] != '\0';
}

/* What the runtime printed where the sandbox would have. */
static bool read_stderr(struct session *session, char *ret, size_t size)
{
    int fd = session->output[1].watch.fd;
    ssize_t n = fd < 0 ? -1 : read(fd, ret, size - 1);

    if (n <= 0)
        return false;
    ret[n] = '\0';
    ret[strcspn(ret, "\n")] = '\0';
    return ret[0] != '\0';
}

/* As docker derives them from what the runtime says. */
static int classify(const char *text)
{
    static const struct {
        const char *part;
        int code;
    } signs[] = {
        {"executable file not found", 127},
        {"no such file or directory", 127},
        {"permission denied", 126},
        {"exec format error", 126},
        {"is a directory", 126},
    };

    if (!strcasestr(text, "exec"))
        return 125;
    for (size_t i = 0; i < ARRAY_SIZE(signs); i++) {
        if (strcasestr(text, signs[i].part))
            return signs[i].code;
    }
    return 125;
}

int runtime_failure(struct monitor *monitor, const struct session *session, int status,
                    struct error *err)
{
    _cleanup_free_ char *path = session_file(monitor, session, "log"), *log = NULL;
    char text[FAILURE_TEXT_MAX];
    bool found = file_read_at(AT_FDCWD, path, RUNTIME_LOG_MAX, &log, NULL, NULL) == 0 &&
                 find_message(log, text, sizeof(text));

    if (!found && !read_stderr((struct session *)(uintptr_t)session, text, sizeof(text)))
        snprintf(text, sizeof(text), "%s ended with status %d and no message",
                 monitor->options->runtime, process_exit_code(status));
    error_set(err, -EIO, "%s", text);
    return classify(text);
}
