#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include <cloche/runtime.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>

#include "options.h"
#include "program.h"

enum { MOUNTS_FILE_MAX = 1 << 20 };

static int read_list(const char *path, char **ret, struct error *err)
{
    return text_equal(path, "-") ? file_read_fd(STDIN_FILENO, MOUNTS_FILE_MAX, ret, NULL, err)
                                 : file_read_at(AT_FDCWD, path, MOUNTS_FILE_MAX, ret, NULL, err);
}

static int mounts_main(const struct program *program, int argc, char **argv)
{
    static const struct option_spec no_options[] = {{0}};
    _cleanup_error_ struct error err = ERROR_INIT;
    _cleanup_free_ char *list = NULL;
    int rest = options_parse(no_options, true, argc, argv, &err);

    if (rest >= 0 && rest != 3)
        rest = error_set(&err, -EINVAL, "needs add or remove, the container's ID and a file");
    if (rest < 0)
        return program_usage_error(&command_mounts, &err);
    bool add = text_equal(argv[1], "add");
    if (!add && !text_equal(argv[1], "remove")) {
        error_set(&err, -EINVAL, "unknown command %s: it is add or remove", argv[1]);
        return program_usage_error(&command_mounts, &err);
    }
    if (read_list(argv[3], &list, &err) < 0)
        return program_fail(&err);
    int r = add ? cloche_runtime_add_mounts(program->runtime, argv[2], list)
                : cloche_runtime_remove_mounts(program->runtime, argv[2], list);
    return r < 0 ? program_failed(program) : EXIT_CODE_OK;
}

const struct command command_mounts = {
    .name = "mounts",
    .usage = "add|remove ID FILE|-",
    .summary = "mount into a running container, or unmount",
    .enters_container = true,
    .main = mounts_main,
};
