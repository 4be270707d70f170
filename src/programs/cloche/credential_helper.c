#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/buffer.h>
#include <base/file.h>
#include <base/process.h>
#include <base/text.h>
#include <schema/docker_config.h>

#include "credential_helper.h"

enum { ANSWER_MAX = 256 * 1024 };

/* In place of a user's name: the secret is an identity token. */
static const char token_user[] = "<token>";

static int check_name(const char *helper, struct error *err)
{
    if (!text_empty(helper) && !strchr(helper, '/'))
        return 0;
    return error_set(err, -EINVAL, "'%s' cannot be the name of a credential helper", helper);
}

/* Requests and answers are short: neither waits for the other in the middle. */
static int talk(const char *path, const char *verb, const char *request, char **ret_answer,
                int *ret_code, struct error *err)
{
    char *const argv[] = {(char *)path, (char *)verb, NULL};
    int in[2], out[2], status = 0;
    struct process process;

    if (pipe2(in, O_CLOEXEC) < 0)
        return error_errno(err, errno, "make a pipe");
    _cleanup_close_ int request_fd = in[1], its_input = in[0];
    if (pipe2(out, O_CLOEXEC) < 0)
        return error_errno(err, errno, "make a pipe");
    _cleanup_close_ int answer_fd = out[0], its_output = out[1];
    const int fds[3] = {its_input, its_output, STDERR_FILENO};
    const struct process_spec spec = {.path = path, .argv = argv, .fds = fds, .fds_count = 3};
    int r = process_spawn(&spec, &process, err);
    if (r < 0)
        return r;
    close_fd(steal_fd(&its_input));
    close_fd(steal_fd(&its_output));
    void (*before)(int) = signal(SIGPIPE, SIG_IGN); /* one that does not read */
    file_write_all(request_fd, request, strlen(request));
    signal(SIGPIPE, before);
    close_fd(steal_fd(&request_fd));
    r = file_read_fd(answer_fd, ANSWER_MAX, ret_answer, NULL, err);
    int waited = process_wait(&process, &status, err);
    *ret_code = process_exit_code(status);
    return r < 0 ? r : waited;
}

static int ask(const char *helper, const char *verb, const char *request, char **ret_answer,
               int *ret_code, struct error *err)
{
    _cleanup_free_ char *path = xasprintf("docker-credential-%s", helper);
    int r = check_name(helper, err);

    if (r == 0)
        r = talk(path, verb, request, ret_answer, ret_code, err);
    if (r == -ENOENT)
        error_hint(err, "the credential file names it (credsStore or credHelpers); it has to be in "
                        "PATH");
    return r < 0 ? error_context(err, "%s", path), r : 0;
}

static int failed(const char *helper, const char *verb, const char *answer, int code,
                  struct error *err)
{
    return error_set(err, -EIO, "docker-credential-%s %s: %.*s (exit code %d)", helper, verb,
                     (int)strcspn(answer ? answer : "", "\n"), answer ? answer : "", code);
}

int credential_helper_get(const char *helper, const char *server, struct api_credentials **ret,
                          struct error *err)
{
    _cleanup_docker_config_helper_ struct docker_config_helper *parsed = NULL;
    _cleanup_free_ char *answer = NULL;
    int code = 0;
    int r = ask(helper, "get", server, &answer, &code, err);

    if (r < 0)
        return r;
    /* The words that every helper has for it (docker-credential-helpers, credentials/error.go). */
    if (code && strstr(answer, "credentials not found"))
        return 0;
    if (code)
        return failed(helper, "get", answer, code, err);
    r = docker_config_helper_parse(answer, strlen(answer), helper, &parsed, err);
    if (r < 0)
        return r;
    if (text_empty(parsed->secret))
        return 0;
    *ret = xnew(struct api_credentials);
    if (text_equal(parsed->username, token_user)) {
        (*ret)->identity_token = steal_ptr(parsed->secret);
    } else {
        (*ret)->username = steal_ptr(parsed->username);
        (*ret)->password = steal_ptr(parsed->secret);
    }
    return 0;
}

int credential_helper_store(const char *helper, const char *server,
                            const struct api_credentials *credentials, struct error *err)
{
    _cleanup_buffer_ struct buffer request = BUFFER_INIT;
    _cleanup_free_ char *answer = NULL;
    bool token = !text_empty(credentials->identity_token);
    const struct docker_config_helper what = {
        .server_url = (char *)server,
        .username = token ? (char *)token_user : credentials->username,
        .secret = token ? credentials->identity_token : credentials->password,
    };
    int code = 0;

    docker_config_helper_write(&what, &request);
    int r = ask(helper, "store", buffer_text(&request), &answer, &code, err);
    return r < 0 ? r : code ? failed(helper, "store", answer, code, err) : 0;
}

int credential_helper_erase(const char *helper, const char *server, struct error *err)
{
    _cleanup_free_ char *answer = NULL;
    int code = 0;
    int r = ask(helper, "erase", server, &answer, &code, err);

    if (r < 0)
        return r;
    return code && !strstr(answer, "credentials not found")
               ? failed(helper, "erase", answer, code, err)
               : 0;
}
