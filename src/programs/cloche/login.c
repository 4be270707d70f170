#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>
#include <schema/management.h>

#include "cli.h"
#include "credentials.h"

enum { WORD_MAX = 64 * 1024 };

struct login_options {
    const char *username, *password;
    bool password_stdin;
};

static const struct option login_table[] = {
    {
        .name = "password",
        .short_name = 'p',
        .kind = OPTION_TEXT,
        .offset = offsetof(struct login_options, password),
        .argument = "string",
        .help = "Password (others on this machine may see it: use --password-stdin)",
    },
    {
        .name = "password-stdin",
        .kind = OPTION_FLAG,
        .offset = offsetof(struct login_options, password_stdin),
        .help = "Take the password from standard input",
    },
    {
        .name = "username",
        .short_name = 'u',
        .kind = OPTION_TEXT,
        .offset = offsetof(struct login_options, username),
        .argument = "string",
        .help = "Username",
    },
    {.name = NULL},
};

static const struct option_group login_groups[] = {{.options = login_table}, {.options = NULL}};

/* ---- asking ---- */

static int read_line(const char *prompt, bool hidden, char **ret, struct error *err)
{
    struct termios before;
    char line[4096];

    printf("%s", prompt);
    fflush(stdout);
    hidden = hidden && tcgetattr(STDIN_FILENO, &before) == 0;
    if (hidden) {
        struct termios silent = before;
        silent.c_lflag &= ~(tcflag_t)ECHO;
        tcsetattr(STDIN_FILENO, TCSAFLUSH, &silent);
    }
    bool read = fgets(line, sizeof(line), stdin);
    if (hidden) {
        tcsetattr(STDIN_FILENO, TCSAFLUSH, &before);
        printf("\n");
    }
    if (!read)
        return error_set(err, -ECANCELED, "no answer");
    line[strcspn(line, "\r\n")] = '\0';
    *ret = xstrdup(line);
    explicit_bzero(line, sizeof(line));
    return 0;
}

static int read_password(char **ret, struct error *err)
{
    int r = file_read_fd(STDIN_FILENO, WORD_MAX, ret, NULL, err);

    if (r < 0)
        return error_context(err, "standard input"), r;
    size_t length = strlen(*ret);
    while (length && strchr("\r\n", (*ret)[length - 1]))
        (*ret)[--length] = '\0';
    return 0;
}

static int check_options(const struct login_options *options, struct error *err)
{
    if (options->password)
        fprintf(stderr,
                "WARNING! Using --password via the CLI is insecure. Use --password-stdin.\n");
    if (options->password && options->password_stdin)
        return error_set(err, -EINVAL, "--password and --password-stdin are mutually exclusive");
    if (options->password_stdin && text_empty(options->username))
        return error_set(err, -EINVAL, "Must provide --username with --password-stdin");
    return 0;
}

/* What the command line gives, and the user where it does not. */
static int ask(const struct login_options *options, struct api_credentials *credentials,
               struct error *err)
{
    int r = 0;

    credentials->username = xstrdup(options->username);
    credentials->password = xstrdup(options->password);
    if (options->password_stdin)
        r = read_password(&credentials->password, err);
    if (r == 0 && (!credentials->username || !credentials->password) && !isatty(STDIN_FILENO))
        return error_set(err, -EINVAL, "Cannot perform an interactive login from a non TTY device");
    if (r == 0 && !credentials->username)
        r = read_line("Username: ", false, &credentials->username, err);
    if (r == 0 && text_empty(credentials->username))
        return error_set(err, -EINVAL, "username is required");
    if (r == 0 && !credentials->password)
        r = read_line("Password: ", true, &credentials->password, err);
    if (r == 0 && text_empty(credentials->password))
        return error_set(err, -EINVAL, "password is required");
    return r;
}

/* ---- trying and keeping ---- */

static int try(struct cli *cli, const char *registry, struct api_credentials *credentials,
               struct error *err)
{
    _cleanup_api_registry_logged_in_ struct api_registry_logged_in *answer = NULL;
    const struct api_registry_login params = {
        .registry = (char *)registry,
        .credentials = credentials,
    };
    int r = cli_call(cli, "registry.login", &params, &answer, err);

    if (r >= 0 && !text_empty(answer->identity_token)) {
        free(credentials->identity_token);
        credentials->identity_token = steal_ptr(answer->identity_token);
    }
    return r;
}

/* A login that is kept may still be good: then there is nothing to ask for. */
static bool is_logged_in(struct cli *cli, const char *registry, const struct login_options *options)
{
    _cleanup_api_credentials_ struct api_credentials *kept = NULL;
    _cleanup_error_ struct error err = ERROR_INIT;

    if (options->username || options->password || options->password_stdin)
        return false;
    if (credentials_find(registry, &kept, NULL) < 0 || !kept)
        return false;
    printf("Authenticating with existing credentials...\n");
    fflush(stdout);
    if (try(cli, registry, kept, &err) >= 0)
        return true;
    printf("Login did not succeed, error: %s\n", error_message(&err));
    return false;
}

static int keep(const char *registry, const struct api_credentials *credentials, struct error *err)
{
    _cleanup_free_ char *path = NULL;
    int r = credentials_keep(registry, credentials, &path, err);

    if (r == 0 && path)
        fprintf(stderr,
                "WARNING! Your password will be stored unencrypted in %s.\n"
                "A credential helper (credsStore in that file) keeps it elsewhere.\n",
                path);
    return r;
}

static int run(struct cli *cli, const void *values, char *const *operands)
{
    const struct login_options *options = values;
    _cleanup_api_credentials_ struct api_credentials *credentials = xnew(struct api_credentials);
    _cleanup_free_ char *registry = credentials_server(operands[0]);
    _cleanup_error_ struct error err = ERROR_INIT;
    int r = check_options(options, &err);

    if (r < 0 || !is_logged_in(cli, registry, options)) {
        if (r == 0)
            r = ask(options, credentials, &err);
        if (r == 0)
            r = try(cli, registry, credentials, &err);
        if (r >= 0)
            r = keep(registry, credentials, &err);
    }
    if (r < 0)
        return cli_fail(&err);
    printf("Login Succeeded\n");
    return EXIT_DONE;
}

const struct command login_command = {
    .name = "login",
    .usage = "[OPTIONS] [SERVER]",
    .summary = "Log in to a registry; without SERVER to Docker Hub",
    .options = login_groups,
    .values_size = sizeof(struct login_options),
    .maximum_operands = 1,
    .common = true,
    .run = run,
};

static int run_logout(struct cli *cli, const void *values, char *const *operands)
{
    _cleanup_free_ char *registry = credentials_server(operands[0]);
    _cleanup_error_ struct error err = ERROR_INIT;
    const char *shown =
        text_equal(registry, CREDENTIALS_DOCKER) ? "https://index.docker.io/v1/" : registry;
    int r = credentials_forget(registry, &err);

    if (r < 0)
        return cli_fail(&err);
    if (r == 0)
        printf("Not logged in to %s\n", shown);
    else
        printf("Removing login credentials for %s\n", shown);
    return EXIT_DONE;
}

const struct command logout_command = {
    .name = "logout",
    .usage = "[SERVER]",
    .summary = "Log out from a registry; without SERVER from Docker Hub",
    .maximum_operands = 1,
    .common = true,
    .run = run_logout,
};
