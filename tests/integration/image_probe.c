/*
 * Drives src/store and src/image for test_image.py, as the engine does.
 *
 *     image_probe ROOT load < ARCHIVE               id and names, one image a line
 *     image_probe ROOT save NAME... > ARCHIVE
 *     image_probe ROOT prepare CONTAINER IMAGE      makes a snapshot
 *     image_probe ROOT enter CONTAINER PROGRAM...   runs it with the snapshot's root as its folder
 *     image_probe ROOT commit CONTAINER IMAGE NAME
 *     image_probe ROOT remove CONTAINER             the snapshot
 *     image_probe ROOT list | tag IMAGE NAME | rmi [-f] IMAGE | config IMAGE
 */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/text.h>
#include <image/worker.h>
#include <store/snapshot.h>
#include <store/staging.h>
#include <store/store.h>

struct probe {
    struct store *store;
    const char *root;
    char *worker;
    char **arguments;
    struct error err;
};

static int probe_load(struct probe *probe)
{
    _cleanup_store_staging_ struct store_staging *staging = NULL;
    _cleanup_image_worker_result_ struct image_worker_result *result = NULL;
    struct image_worker_platform platform = {.os = "linux", .architecture = "amd64"};
    struct image_worker_load load = {.platform = &platform};
    struct image_worker_request request = {.load = &load};
    struct image_worker_spec spec = IMAGE_WORKER_SPEC_INIT;
    struct store_loaded *loaded;
    struct utsname machine;
    size_t count;

    uname(&machine);
    if (text_equal(machine.machine, "aarch64"))
        platform.architecture = "arm64";
    int r = store_staging_create(probe->store, &staging, &probe->err);
    if (r < 0)
        return r;
    spec.program = probe->worker;
    spec.request = &request;
    spec.archive_fd = STDIN_FILENO;
    spec.staging_fd = store_staging_fd(staging);
    spec.log_fd = STDERR_FILENO;
    r = image_worker_run(&spec, NULL, NULL, -1, &result, &probe->err);
    if (r == 0)
        r = store_staging_import(staging, result, &loaded, &count, &probe->err);
    if (r < 0)
        return r;
    for (size_t i = 0; i < count; i++) {
        _cleanup_free_ char *names = strv_join(loaded[i].names, " ");
        printf("%s %s\n", loaded[i].id, names);
    }
    store_loaded_free(loaded, count);
    return 0;
}

static int probe_save(struct probe *probe)
{
    _cleanup_image_worker_result_ struct image_worker_result *result = NULL;
    struct image_worker_request *request = NULL;
    struct image_worker_spec spec = IMAGE_WORKER_SPEC_INIT;
    int r = store_save_prepare(probe->store, probe->arguments, &request, &probe->err);

    if (r < 0)
        return r;
    spec.program = probe->worker;
    spec.request = request;
    spec.archive_fd = STDOUT_FILENO;
    spec.content_fd = store_content_fd(probe->store);
    spec.log_fd = STDERR_FILENO;
    r = image_worker_run(&spec, NULL, NULL, -1, &result, &probe->err);
    store_save_finish(probe->store, request);
    return r;
}

static int find_id(struct probe *probe, const char *name, char **ret)
{
    _cleanup_store_image_ struct store_image *image = NULL;
    int r = store_image_find(probe->store, name, &image, &probe->err);

    if (r == 0)
        *ret = xstrdup(image->id);
    return r;
}

static int probe_prepare(struct probe *probe)
{
    _cleanup_free_ char *id = NULL;
    int r = find_id(probe, probe->arguments[1], &id);

    return r < 0 ? r
                 : store_snapshot_prepare(probe->store, id, probe->arguments[0], NULL, &probe->err);
}

static int probe_enter(struct probe *probe)
{
    _cleanup_free_ char *target = xasprintf("%s/staging", probe->root); /* any folder */
    int fd = -1;
    int r = store_snapshot_mount_image(probe->store, probe->arguments[0], &fd, &probe->err);

    if (r < 0)
        return r;
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        move_mount(fd, "", AT_FDCWD, target, MOVE_MOUNT_F_EMPTY_PATH) < 0 || chdir(target) < 0)
        return error_errno(&probe->err, errno, "attach the root");
    execvp(probe->arguments[1], probe->arguments + 1);
    return error_errno(&probe->err, errno, "execute %s", probe->arguments[1]);
}

static int probe_commit(struct probe *probe)
{
    _cleanup_store_staging_ struct store_staging *staging = NULL;
    _cleanup_image_worker_result_ struct image_worker_result *result = NULL;
    _cleanup_free_ char *parent = NULL, *id = NULL;
    _cleanup_close_ int upper_fd = -1;
    struct image_worker_commit commit_request = {0};
    struct image_worker_request request = {.commit = &commit_request};
    struct image_worker_spec spec = IMAGE_WORKER_SPEC_INIT;
    int r = find_id(probe, probe->arguments[1], &parent);

    if (r == 0)
        r = store_staging_create(probe->store, &staging, &probe->err);
    if (r == 0)
        r = store_snapshot_open_upper(probe->store, probe->arguments[0], &upper_fd, &probe->err);
    if (r < 0)
        return r;
    spec.program = probe->worker;
    spec.request = &request;
    spec.staging_fd = store_staging_fd(staging);
    spec.upper_fd = upper_fd;
    spec.log_fd = STDERR_FILENO;
    r = image_worker_run(&spec, NULL, NULL, -1, &result, &probe->err);
    const struct store_commit commit = {
        .parent = parent, .name = probe->arguments[2], .author = "probe", .created_by = "/bin/sh"};
    if (r == 0)
        r = store_staging_commit(staging, result, &commit, &id, &probe->err);
    if (r == 0)
        puts(id);
    return r;
}

static int probe_remove(struct probe *probe)
{
    return store_snapshot_remove(probe->store, probe->arguments[0], &probe->err);
}

static int probe_list(struct probe *probe)
{
    struct store_image **images;
    size_t count;
    int r = store_image_list(probe->store, &images, &count, &probe->err);

    if (r < 0)
        return r;
    for (size_t i = 0; i < count; i++) {
        _cleanup_free_ char *names = strv_join(images[i]->names, " ");
        printf("%s %s\n", images[i]->id, names);
    }
    store_image_list_free(images, count);
    return 0;
}

static int probe_tag(struct probe *probe)
{
    return store_image_tag(probe->store, probe->arguments[0], probe->arguments[1], NULL,
                           &probe->err);
}

static int probe_rmi(struct probe *probe)
{
    _cleanup_store_removed_ struct store_removed removed = {0};
    bool force = text_equal(probe->arguments[0], "-f");
    int r = store_image_remove(probe->store, probe->arguments[force], force, &removed, &probe->err);

    for (size_t i = 0; removed.untagged && removed.untagged[i]; i++)
        printf("Untagged: %s\n", removed.untagged[i]);
    for (size_t i = 0; removed.deleted && removed.deleted[i]; i++)
        printf("Deleted: %s\n", removed.deleted[i]);
    return r;
}

static int probe_config(struct probe *probe)
{
    _cleanup_store_image_ struct store_image *image = NULL;
    int r = store_image_find(probe->store, probe->arguments[0], &image, &probe->err);

    if (r == 0)
        puts(image->config_text);
    return r;
}

static const struct {
    const char *name;
    int arguments; /* at least */
    int (*run)(struct probe *probe);
} commands[] = {
    {"load", 0, probe_load},     {"save", 1, probe_save},     {"prepare", 2, probe_prepare},
    {"enter", 2, probe_enter},   {"commit", 3, probe_commit}, {"remove", 1, probe_remove},
    {"list", 0, probe_list},     {"tag", 2, probe_tag},       {"rmi", 1, probe_rmi},
    {"config", 1, probe_config},
};

int main(int argc, char **argv)
{
    struct probe probe = {.arguments = argv + 3, .err = ERROR_INIT};
    const char *worker = getenv("IMAGE_WORKER");
    int r = -EINVAL;

    probe.root = argc > 1 ? argv[1] : "";
    probe.worker = xstrdup(worker ? worker : "cloche-image");
    if (argc < 3 || store_open(argv[1], &probe.store, &probe.err) < 0)
        goto fail;
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
        if (text_equal(argv[2], commands[i].name) && argc - 3 >= commands[i].arguments)
            r = commands[i].run(&probe);
fail:
    if (r < 0)
        fprintf(stderr, "image_probe: %s\n", error_message(&probe.err));
    store_close(probe.store);
    free(probe.worker);
    error_finish(&probe.err);
    return r < 0 ? 1 : 0;
}
