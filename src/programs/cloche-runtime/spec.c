/* spec, features and version: what needs no container. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cloche/runtime.h>

#include <base/file.h>

#include "options.h"
#include "program.h"

#define RUNC_VERSION "1.4.0" /* whose options and messages ours are */

static int write_spec(const char *bundle, bool rootless, struct error *err)
{
    _cleanup_free_ char *text = cloche_runtime_spec(rootless ? CLOCHE_RUNTIME_SPEC_ROOTLESS : 0);
    _cleanup_close_ int fd = -1;

    if (bundle && chdir(bundle) < 0)
        return error_errno(err, errno, "enter %s", bundle);
    fd = open("config.json", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0 && errno == EEXIST)
        return error_set(err, -EEXIST, "file config.json exists. Remove it first");
    if (fd < 0)
        return error_errno(err, errno, "create config.json");
    int r = file_write_all(fd, text, strlen(text));
    return r < 0 ? error_errno(err, -r, "write config.json") : 0;
}

static int spec_main(const struct program *program _unused_, int argc, char **argv)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    const char *bundle = NULL;
    bool rootless = false;
    const struct option_spec specs[] = {{.name = "bundle", .letter = 'b', .value = &bundle},
                                        {.name = "rootless", .flag = &rootless},
                                        {0}};
    int rest = options_parse(specs, true, argc, argv, &err);

    if (rest > 0)
        rest = error_set(&err, -EINVAL, "takes no arguments");
    if (rest < 0)
        return program_usage_error(&command_spec, &err);
    return write_spec(bundle, rootless, &err) < 0 ? program_fail(&err) : EXIT_CODE_OK;
}

static int features_main(const struct program *program _unused_, int argc, char **argv)
{
    _cleanup_free_ char *text = NULL;
    _cleanup_error_ struct error err = ERROR_INIT;
    const struct option_spec specs[] = {{0}};
    int rest = options_parse(specs, true, argc, argv, &err);

    if (rest > 0)
        rest = error_set(&err, -EINVAL, "takes no arguments");
    if (rest < 0)
        return program_usage_error(&command_features, &err);
    text = cloche_runtime_features();
    puts(text);
    return EXIT_CODE_OK;
}

static int version_main(const struct program *program _unused_, int argc _unused_,
                        char **argv _unused_)
{
    /* Callers look for "runc version" in the first line, and for "commit:". */
    printf("%s version %s, command line of runc version %s\ncommit: v%s\nspec: %s\n", PROGRAM_NAME,
           cloche_runtime_version(), RUNC_VERSION, cloche_runtime_version(),
           cloche_runtime_spec_version());
    /* Callers of crun look for what it was built with, in a line like this. */
    puts(CLOCHE_SYSTEMD "+SELINUX +APPARMOR +CAP +SECCOMP +EBPF +CRIU");
    return EXIT_CODE_OK;
}

const struct command command_spec = {
    .name = "spec",
    .usage = "[--bundle DIR] [--rootless]",
    .summary = "write a config.json to start from",
    .main = spec_main,
};

const struct command command_features = {
    .name = "features",
    .usage = "",
    .summary = "print what this runtime supports as JSON",
    .main = features_main,
};

const struct command command_version = {
    .name = "version",
    .usage = "",
    .summary = "print versions",
    .main = version_main,
};
