#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cloche/runtime.h>
#include <schema/json.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>

#include "options.h"
#include "program.h"

enum { RESOURCES_MAX = 1 << 20 };

/* What becomes of the text of a flag in the JSON. */
enum flag_kind { FLAG_UNSIGNED, FLAG_SIGNED, FLAG_SIZE, FLAG_TEXT };

struct limit_flag {
    const char *name, *group, *field;
    enum flag_kind kind;
};

/* Those of one group stand together. */
static const struct limit_flag limit_flags[] = {
    {"blkio-weight", "blockIO", "weight", FLAG_UNSIGNED},
    {"cpu-period", "cpu", "period", FLAG_UNSIGNED},
    {"cpu-quota", "cpu", "quota", FLAG_SIGNED},
    {"cpu-burst", "cpu", "burst", FLAG_UNSIGNED},
    {"cpu-share", "cpu", "shares", FLAG_UNSIGNED},
    {"cpu-rt-period", "cpu", "realtimePeriod", FLAG_UNSIGNED},
    {"cpu-rt-runtime", "cpu", "realtimeRuntime", FLAG_SIGNED},
    {"cpuset-cpus", "cpu", "cpus", FLAG_TEXT},
    {"cpuset-mems", "cpu", "mems", FLAG_TEXT},
    {"cpu-idle", "cpu", "idle", FLAG_SIGNED},
    {"memory", "memory", "limit", FLAG_SIZE},
    {"memory-reservation", "memory", "reservation", FLAG_SIZE},
    {"memory-swap", "memory", "swap", FLAG_SIZE},
    {"pids-limit", "pids", "limit", FLAG_SIGNED},
};

enum { LIMIT_FLAGS = ARRAY_SIZE(limit_flags) };

struct update_arguments {
    const char *id, *file;
    const char *limits[LIMIT_FLAGS];
    const char *kernel_memory, *kernel_memory_tcp, *l3_cache_schema, *mem_bw_schema;
    char **add, **remove, **allow, **deny;        /* owned */
    char *json;                                   /* owned */
    struct cloche_runtime_device *devices;        /* owned */
    char **device_texts;                          /* owned; the paths and accesses of devices */
    struct cloche_runtime_update_options options; /* borrows from the others */
};

static void finish(struct update_arguments *arguments)
{
    strv_free(arguments->add);
    strv_free(arguments->remove);
    strv_free(arguments->allow);
    strv_free(arguments->deny);
    strv_free(arguments->device_texts);
    free(arguments->devices);
    free(arguments->json);
}

static int parse(int argc, char **argv, struct update_arguments *ret, struct error *err)
{
    struct option_spec specs[LIMIT_FLAGS + 16];
    size_t count = 0;

    for (; count < LIMIT_FLAGS; count++)
        specs[count] =
            (struct option_spec){.name = limit_flags[count].name, .value = &ret->limits[count]};
    const struct option_spec others[] = {
        {.name = "resources", .letter = 'r', .value = &ret->file},
        {.name = "kernel-memory", .value = &ret->kernel_memory},
        {.name = "kernel-memory-tcp", .value = &ret->kernel_memory_tcp},
        {.name = "l3-cache-schema", .value = &ret->l3_cache_schema},
        {.name = "mem-bw-schema", .value = &ret->mem_bw_schema},
        {.name = "device-add", .list = &ret->add},
        {.name = "device-remove", .list = &ret->remove},
        {.name = "device-allow", .list = &ret->allow},
        {.name = "device-deny", .list = &ret->deny},
        {0},
    };
    memcpy(specs + count, others, sizeof(others));
    int rest = options_parse(specs, true, argc, argv, err);

    if (rest >= 0 && rest != 1)
        return error_set(err, -EINVAL, "needs one argument: the container's ID");
    ret->id = argv[1];
    return rest;
}

static int write_value(struct json_writer *writer, const struct limit_flag *flag, const char *text,
                       struct error *err)
{
    uint64_t number;
    int64_t with_sign;

    json_writer_key(writer, flag->field);
    if (flag->kind == FLAG_TEXT) {
        json_writer_string(writer, text);
        return 0;
    }
    if (flag->kind == FLAG_UNSIGNED && text_to_u64(text, 0, UINT64_MAX, &number) == 0) {
        json_writer_unsigned(writer, number);
        return 0;
    }
    if (flag->kind == FLAG_SIGNED && text_to_i64(text, INT64_MIN, INT64_MAX, &with_sign) == 0) {
        json_writer_integer(writer, with_sign);
        return 0;
    }
    if (flag->kind == FLAG_SIZE && text_equal(text, "-1")) {
        json_writer_integer(writer, -1);
        return 0;
    }
    if (flag->kind == FLAG_SIZE && text_to_size(text, &number) == 0 && number <= INT64_MAX) {
        json_writer_unsigned(writer, number);
        return 0;
    }
    return error_set(err, -EINVAL, "invalid value for %s: '%s'", flag->name, text);
}

/* The flags as a linux.resources object; none when no flag is given. */
static int write_flags(struct update_arguments *arguments, struct error *err)
{
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;
    struct json_writer writer;
    const char *group = NULL;

    json_writer_init(&writer, &text, JSON_COMPACT);
    json_writer_object_begin(&writer);
    for (size_t i = 0; i < LIMIT_FLAGS; i++) {
        if (text_empty(arguments->limits[i]))
            continue;
        if (!text_equal(group, limit_flags[i].group)) {
            if (group)
                json_writer_object_end(&writer);
            group = limit_flags[i].group;
            json_writer_key(&writer, group);
            json_writer_object_begin(&writer);
        }
        int r = write_value(&writer, &limit_flags[i], arguments->limits[i], err);
        if (r < 0)
            return r;
    }
    if (!group)
        return 0;
    json_writer_object_end(&writer);
    json_writer_object_end(&writer);
    arguments->json = buffer_steal(&text);
    return 0;
}

/* A file has the last word, as with runc: the flags of limits are not looked at then. */
static int take_resources(struct update_arguments *arguments, struct error *err)
{
    const char *file = arguments->file;

    if (text_empty(file))
        return write_flags(arguments, err);
    if (text_equal(file, "-"))
        return file_read_fd(STDIN_FILENO, RESOURCES_MAX, &arguments->json, NULL, err);
    return file_read_at(AT_FDCWD, file, RESOURCES_MAX, &arguments->json, NULL, err);
}

static bool take_node_number(const char *text, uint32_t *ret)
{
    uint64_t number;

    if (text_to_u64(text, 0, INT32_MAX, &number) < 0)
        return false;
    *ret = (uint32_t)number;
    return true;
}

/* "c:189:3:/dev/bus/usb/001/004[:rw]": no node outside is looked at. */
static int take_numbered(struct update_arguments *arguments, const char *text, char **parts,
                         struct cloche_runtime_device *ret, struct error *err)
{
    size_t count = strv_length(parts);
    struct cloche_runtime_device device = {0};

    if (count < 4 || count > 5 || !take_node_number(parts[1], &device.major) ||
        !take_node_number(parts[2], &device.minor) || parts[3][0] != '/')
        return error_set(err, -EINVAL, "--device-add: '%s' is not TYPE:MAJOR:MINOR:PATH[:ACCESS]",
                         text);
    device.type = parts[0][0];
    device.path = xstrdup(parts[3]);
    strv_take(&arguments->device_texts, (char *)(uintptr_t)device.path);
    if (count > 4) {
        device.access = xstrdup(parts[4]);
        strv_take(&arguments->device_texts, (char *)(uintptr_t)device.access);
    }
    *ret = device;
    return 0;
}

/* "/dev/ttyUSB0[:/dev/ttyS0[:rw]]", as docker run --device takes it. */
static int take_device(struct update_arguments *arguments, const char *text,
                       struct cloche_runtime_device *ret, struct error *err)
{
    struct stat status;
    _cleanup_strv_ char **parts = strv_split(text, ':');
    size_t count = strv_length(parts);

    if (count && (text_equal(parts[0], "c") || text_equal(parts[0], "b")))
        return take_numbered(arguments, text, parts, ret, err);
    if (count < 1 || count > 3 || parts[0][0] != '/')
        return error_set(err, -EINVAL, "--device-add: '%s' is not HOST_PATH[:PATH[:ACCESS]]", text);
    if (stat(parts[0], &status) < 0)
        return error_errno(err, errno, "--device-add: %s", parts[0]);
    if (!S_ISCHR(status.st_mode) && !S_ISBLK(status.st_mode))
        return error_set(err, -EINVAL, "--device-add: %s is not a device", parts[0]);
    *ret = (struct cloche_runtime_device){
        .path = xstrdup(parts[count > 1 ? 1 : 0]),
        .type = S_ISBLK(status.st_mode) ? 'b' : 'c',
        .major = major(status.st_rdev),
        .minor = minor(status.st_rdev),
        .mode = status.st_mode & 07777,
        .uid = status.st_uid,
        .gid = status.st_gid,
        .access = count > 2 ? xstrdup(parts[2]) : NULL,
    };
    strv_take(&arguments->device_texts, (char *)(uintptr_t)ret->path);
    if (ret->access)
        strv_take(&arguments->device_texts, (char *)(uintptr_t)ret->access);
    return 0;
}

static int take_devices(struct update_arguments *arguments, struct error *err)
{
    size_t count = strv_length(arguments->add);

    arguments->devices = xnew_array(struct cloche_runtime_device, count);
    for (size_t i = 0; i < count; i++) {
        int r = take_device(arguments, arguments->add[i], &arguments->devices[i], err);
        if (r < 0)
            return r;
    }
    arguments->options.add_devices = arguments->devices;
    arguments->options.add_devices_count = count;
    return 0;
}

static void warn_ignored(const struct update_arguments *arguments)
{
    if (!text_empty(arguments->kernel_memory))
        program_warn("Setting --kernel-memory is ignored and will be removed");
    if (!text_empty(arguments->kernel_memory_tcp))
        program_warn("Setting --kernel-memory-tcp is ignored and will be removed");
}

static int update_main(const struct program *program, int argc, char **argv)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    struct update_arguments arguments = {0};
    struct cloche_runtime_update_options *options = &arguments.options;
    int exit_code;

    if (parse(argc, argv, &arguments, &err) < 0) {
        exit_code = program_usage_error(&command_update, &err);
        finish(&arguments);
        return exit_code;
    }
    warn_ignored(&arguments);
    options->size = sizeof(*options);
    int r = take_resources(&arguments, &err);
    if (r == 0)
        r = take_devices(&arguments, &err);
    options->id = arguments.id;
    options->resources = arguments.json;
    options->allow = arguments.allow;
    options->deny = arguments.deny;
    options->remove_devices = arguments.remove;
    options->l3_cache_schema = arguments.l3_cache_schema;
    options->mem_bw_schema = arguments.mem_bw_schema;
    if (r < 0)
        exit_code = program_fail(&err);
    else
        exit_code = cloche_runtime_update(program->runtime, options) < 0 ? program_failed(program)
                                                                         : EXIT_CODE_OK;
    finish(&arguments);
    return exit_code;
}

const struct command command_update = {
    .name = "update",
    .usage = "[-r FILE|-] [--blkio-weight N] [--cpu-period US] [--cpu-quota US] [--cpu-burst US]\n"
             "    [--cpu-share N] [--cpu-rt-period US] [--cpu-rt-runtime US] [--cpu-idle 0|1]\n"
             "    [--cpuset-cpus LIST] [--cpuset-mems LIST] [--memory BYTES]\n"
             "    [--memory-reservation BYTES] [--memory-swap BYTES] [--pids-limit N]\n"
             "    [--kernel-memory BYTES] [--kernel-memory-tcp BYTES]\n"
             "    [--l3-cache-schema TEXT] [--mem-bw-schema TEXT]\n"
             "    [--device-add HOST_PATH[:PATH[:ACCESS]]]...\n"
             "    [--device-add TYPE:MAJOR:MINOR:PATH[:ACCESS]]... [--device-remove PATH]...\n"
             "    [--device-allow RULE]... [--device-deny RULE]... ID",
    .summary = "change limits and devices of a container",
    .main = update_main,
};
