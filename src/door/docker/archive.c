/*
 * Files of containers: archive, changes, export; and images from archives.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/clock.h>
#include <base/text.h>
#include <schema/management.h>

#include "../fields.h"
#include "base64.h"
#include "handlers.h"

/* ---- X-Docker-Container-Path-Stat */

/* Go's os.FileMode, which is not st_mode: kinds are bits from the top down. */
static uint32_t go_mode(uint32_t mode)
{
    static const struct {
        uint32_t kind, bits;
    } kinds[] = {
        {S_IFDIR, 1U << 31},  {S_IFLNK, 1U << 27}, {S_IFIFO, 1U << 25},
        {S_IFSOCK, 1U << 24}, {S_IFBLK, 1U << 26}, {S_IFCHR, 1U << 26 | 1U << 21},
    };
    uint32_t result = mode & 0777;

    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
        if ((mode & S_IFMT) == kinds[i].kind)
            result |= kinds[i].bits;
    return result | (mode & S_ISUID ? 1U << 23 : 0) | (mode & S_ISGID ? 1U << 22 : 0) |
           (mode & S_ISVTX ? 1U << 20 : 0);
}

static void add_stat_header(struct exchange *exchange, const struct api_path_stat *status)
{
    _cleanup_buffer_ struct buffer json = BUFFER_INIT;
    _cleanup_free_ char *time = clock_format(status->mtime > 0 ? status->mtime : 0);
    struct json_writer writer;

    json_writer_init(&writer, &json, JSON_COMPACT);
    json_writer_object_begin(&writer);
    field_text(&writer, "name", status->name);
    field_integer(&writer, "size", (int64_t)status->size);
    field_unsigned(&writer, "mode", go_mode((uint32_t)status->mode));
    field_text(&writer, "mtime", time);
    field_text(&writer, "linkTarget", status->link_target);
    json_writer_object_end(&writer);
    _cleanup_free_ char *encoded = base64_encode(json.data, json.length);
    answer_header(exchange, "X-Docker-Container-Path-Stat", encoded);
}

/* The path is named; false: it was answered that it is not. */
static bool path_of(struct exchange *exchange, char **ret)
{
    const char *path = target_text(&exchange->target, "path");

    if (text_empty(path)) {
        answer_fail(exchange, 400, "bad parameter: path cannot be empty");
        return false;
    }
    *ret = (char *)(uintptr_t)path;
    return true;
}

static void on_stat(struct exchange *exchange, const struct rpc_outcome *outcome)
{
    add_stat_header(exchange, outcome->result);
    answer_empty(exchange, 200);
}

void docker_archive_stat(struct exchange *exchange)
{
    struct api_archive_path which = {.container = exchange->words[0]};

    if (path_of(exchange, &which.path))
        call(exchange, "container.archiveStat", &which, on_stat, NULL);
}

/* ---- what is packed: the end of the pipe and that of the call make the end of the answer */

struct download {
    bool dry, done;
};

static void end_download(struct exchange *exchange)
{
    const struct download *download = exchange->state;

    if (download->dry && download->done)
        answer_end(exchange);
}

static void on_tar(struct exchange *exchange, const char *data, size_t length)
{
    answer_begin(exchange, 200, "application/x-tar");
    answer_data(exchange, data, length);
}

static void on_tar_dry(struct exchange *exchange)
{
    ((struct download *)exchange->state)->dry = true;
    end_download(exchange);
}

static void on_packed(struct exchange *exchange, const struct rpc_outcome *outcome)
{
    if (outcome->code < 0 && exchange->begun) {
        answer_break(exchange);
    } else if (outcome->code < 0) {
        call_answer_error(exchange, outcome);
    } else {
        ((struct download *)exchange->state)->done = true;
        end_download(exchange);
    }
}

void docker_download(struct exchange *exchange, const char *method, const void *params)
{
    int fds[2];

    if (pipe2(fds, O_CLOEXEC) < 0) {
        answer_fail(exchange, 503, "there is no descriptor left");
        return;
    }
    fcntl(fds[0], F_SETPIPE_SZ, 1 << 20);
    exchange_set_state(exchange, xnew(struct download), free);
    exchange->pumped = on_tar;
    exchange->dry = on_tar_dry;
    call(exchange, method, params, on_packed,
         &(struct call_options){.fds = &fds[1], .fds_count = 1, .errors = true});
    close(fds[1]);
    if (exchange->ended)
        close(fds[0]);
    else
        exchange_pump(exchange, fds[0]);
}

/* The header comes before the archive: what is there is looked at first. */
static void on_stat_for_get(struct exchange *exchange, const struct rpc_outcome *outcome)
{
    struct api_archive_get which = {.container = exchange->words[0]};

    add_stat_header(exchange, outcome->result);
    if (path_of(exchange, &which.path))
        docker_download(exchange, "container.archiveGet", &which);
}

void docker_archive_get(struct exchange *exchange)
{
    struct api_archive_path which = {.container = exchange->words[0]};

    if (path_of(exchange, &which.path))
        call(exchange, "container.archiveStat", &which, on_stat_for_get, NULL);
}

void docker_container_export(struct exchange *exchange)
{
    const struct api_container_ref which = {.container = exchange->words[0]};

    docker_download(exchange, "container.export", &which);
}

/* ---- what is unpacked */

static void on_unpacked(struct exchange *exchange, const struct rpc_outcome *outcome _unused_)
{
    answer_empty(exchange, 200);
}

void docker_archive_put(struct exchange *exchange)
{
    struct api_archive_put how = {
        .container = exchange->words[0],
        .no_overwrite_dir_non_dir = target_flag(&exchange->target, "noOverwriteDirNonDir"),
        .has_no_overwrite_dir_non_dir = true,
        .copy_uid_gid = target_flag(&exchange->target, "copyUIDGID"),
        .has_copy_uid_gid = true,
    };
    _cleanup_error_ struct error err = ERROR_INIT;

    if (!path_of(exchange, &how.path))
        return;
    _cleanup_close_ int fd = exchange_take_body(exchange, &err);
    if (fd < 0)
        answer_error(exchange, 503, &err);
    else
        call(exchange, "container.archivePut", &how, on_unpacked,
             &(struct call_options){.fds = &fd, .fds_count = 1});
}

/* ---- changes */

static int kind_of(const char *kind)
{
    return text_equal(kind, "modified") ? 0 : text_equal(kind, "added") ? 1 : 2;
}

static void on_changes(struct exchange *exchange, const struct rpc_outcome *outcome)
{
    const struct api_container_changes *changes = outcome->result;
    struct buffer out = BUFFER_INIT;
    struct json_writer writer;

    json_writer_init(&writer, &out, JSON_COMPACT);
    if (!changes->changes_count)
        json_writer_null(&writer);
    else
        json_writer_array_begin(&writer);
    for (size_t i = 0; i < changes->changes_count; i++) {
        json_writer_object_begin(&writer);
        field_text(&writer, "Path", changes->changes[i]->path);
        field_integer(&writer, "Kind", kind_of(changes->changes[i]->kind));
        json_writer_object_end(&writer);
    }
    if (changes->changes_count)
        json_writer_array_end(&writer);
    answer_json(exchange, 200, &out);
}

void docker_container_changes(struct exchange *exchange)
{
    const struct api_container_ref which = {.container = exchange->words[0]};

    call(exchange, "container.changes", &which, on_changes, NULL);
}

/* ---- import */

static void on_imported(struct exchange *exchange, const struct rpc_outcome *outcome)
{
    const struct api_image_id *image = outcome->result;
    _cleanup_buffer_ struct buffer line = BUFFER_INIT;
    struct json_writer writer;

    json_writer_init(&writer, &line, JSON_COMPACT);
    json_writer_object_begin(&writer);
    field_text(&writer, "status", image->id);
    json_writer_object_end(&writer);
    answer_line(exchange, &line);
    answer_end(exchange);
}

void docker_image_import(struct exchange *exchange)
{
    const struct target *target = &exchange->target;
    const char *repository = target_text(target, "repo"), *tag = target_text(target, "tag");
    _cleanup_strv_ char **changes = target_list(target, "changes");
    _cleanup_error_ struct error err = ERROR_INIT;
    _cleanup_free_ char *name = text_empty(repository)
                                    ? NULL
                                    : xasprintf("%s%s%s", repository, text_empty(tag) ? "" : ":",
                                                text_empty(tag) ? "" : tag);
    const char *platform = target_text(target, "platform"), *said = target_text(target, "message");
    const char *source = target_text(target, "fromSrc");
    _cleanup_free_ char *message =
        text_empty(said) ? xasprintf("Imported from %s", source) : xstrdup(said);
    struct api_image_import how = {
        .name = name,
        .message = message,
        .changes = changes,
        .changes_count = strv_length(changes),
        .platform = text_empty(platform) ? NULL : (char *)(uintptr_t)platform,
    };

    /* An address without a scheme is one of http, as docker has it. */
    _cleanup_free_ char *url =
        text_equal(source, "-") ? NULL
                                : xasprintf("%s%s", strstr(source, "://") ? "" : "http://", source);
    how.url = url;
    _cleanup_close_ int fd = exchange_take_body(exchange, &err);
    if (fd < 0)
        answer_error(exchange, 503, &err);
    else
        call(exchange, "image.import", &how, on_imported,
             &(struct call_options){.fds = &fd, .fds_count = 1});
}
