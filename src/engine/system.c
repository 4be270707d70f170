#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <base/log.h>
#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>

#include "apparmor.h"
#include "build.h"
#include "cgroup.h"
#include "folders.h"
#include "internal.h"
#include "usb.h"
#include "pause.h"
#include "transfer.h"
#include "remove.h"
#include "userns.h"

enum { OS_RELEASE_MAX = 64 * 1024, QUIET_POLL_MS = 20 };

#ifndef CLOCHE_VERSION
#error "the build says which version this is"
#endif

/* --- info ------------------------------------------------------------------------------------- */

/* PRETTY_NAME of os-release(5). Owned by the caller; NULL when unknown. */
static char *operating_system(void)
{
    _cleanup_free_ char *text = NULL;
    char name[128];

    if (file_read_at(AT_FDCWD, "/etc/os-release", OS_RELEASE_MAX, &text, NULL, NULL) < 0)
        return NULL;
    const char *at = strstr(text, "PRETTY_NAME=\"");
    return at && sscanf(at, "PRETTY_NAME=\"%127[^\"]", name) == 1 ? xstrdup(name) : NULL;
}

static void count_containers(const struct engine *engine, struct api_system_info *info)
{
    for (size_t i = 0; i < engine->containers_count; i++) {
        const struct container *container = engine->containers[i];
        if (container->hidden)
            continue;
        info->containers++;
        if (container_is_paused(container))
            info->containers_paused++;
        else if (container->state == CONTAINER_RUNNING || container->state == CONTAINER_RESTARTING)
            info->containers_running++;
        else
            info->containers_stopped++;
    }
    info->has_containers_stopped = info->has_containers_paused = true;
}

static void fill_machine(const struct engine *engine, struct api_system_info *info)
{
    struct utsname system;
    struct sysinfo memory;

    uname(&system);
    sysinfo(&memory);
    info->kernel_version = xstrdup(system.release);
    info->operating_system = operating_system();
    info->os_type = xstrdup("linux");
    info->architecture = xstrdup(system.machine);
    info->name = xstrdup(system.nodename);
    info->cpus = engine->cpus;
    info->has_cpus = true;
    info->memory = (uint64_t)memory.totalram * memory.mem_unit;
    info->has_memory = true;
    info->cgroup_version = engine->cgroup_v2 ? 2 : 1;
    info->has_cgroup_version = true;
    info->cgroup_driver = xstrdup(engine->cgroup_parent ? "cgroupfs" : "none");
}

/* "http://user:secret@host:1" without whoever it is. Owned by the caller. */
static char *without_user(const char *url)
{
    const char *start = strstr(url, "://");
    const char *host = start ? start + 3 : url;
    const char *at = memrchr(host, '@', strcspn(host, "/"));

    return at ? xasprintf("%.*s%s", (int)(host - url), url, at + 1) : xstrdup(url);
}

static void fill_registries(const struct registries_settings *settings,
                            struct api_system_info *info)
{
    const struct registries_hosts *hosts = settings ? settings->hosts : NULL;

    if (settings && settings->proxy)
        info->proxy = without_user(settings->proxy);
    if (!hosts || !hosts->count)
        return;
    info->registries = xnew_array(struct api_registry_settings *, hosts->count + 1);
    for (size_t i = 0; i < hosts->count; i++) {
        const struct registries_host *host = hosts->values[i];
        struct api_registry_settings *entry = xnew(struct api_registry_settings);
        entry->name = xstrdup(hosts->keys[i]);
        for (size_t j = 0; j < host->mirrors_count; j++)
            strv_take(&entry->mirrors, without_user(host->mirrors[j]));
        entry->mirrors_count = host->mirrors_count;
        entry->insecure = host->insecure || host->plain_http;
        entry->has_insecure = true;
        info->registries[info->registries_count++] = entry;
    }
}

static const char *no_cgroups(const struct engine *engine)
{
    if (!engine->rootless)
        return "there are no cgroups: no limits, no pause";
    if (!cgroup_is_v2())
        return "there are no cgroups: no limits, no pause: an ordinary user has them on cgroup v2 "
               "alone";
    return "there are no cgroups: no limits, no pause: the user's systemd has given none; a daemon "
           "that "
           "starts when no container runs asks it again";
}

struct api_system_info *system_info(struct engine *engine)
{
    struct api_system_info *info = xnew(struct api_system_info);
    const struct instance *instance = engine->instance;
    const struct network *network = network_by_name(engine, "bridge");

    info->instance = xstrdup(instance->name);
    info->version = xstrdup(CLOCHE_VERSION);
    info->root_dir = xstrdup(instance->root);
    info->run_dir = xstrdup(instance->run);
    info->runtime = xstrdup(engine->runtime_program);
    info->bridge = xstrdup(instance->bridge);
    info->subnet = xstrdup(network ? network->record->subnet : "");
    info->storage_driver = xstrdup("overlay");
    if (apparmor_is_there())
        strv_append(&info->security_options, "apparmor");
    strv_append(&info->security_options, "seccomp");
    if (userns_is_default(engine))
        strv_append(&info->security_options, "userns");
    if (engine->rootless)
        strv_append(&info->security_options, "rootless");
    info->security_options_count = strv_length(info->security_options);
    info->pid = getpid();
    info->has_pid = true;
    if (!engine->cgroup_parent)
        strv_append(&info->warnings, no_cgroups(engine));
    if (engine->net_error.code) {
        strv_take(&info->warnings,
                  xasprintf("there is no network: %s", error_message(&engine->net_error)));
    }
    info->warnings_count = strv_length(info->warnings);
    count_containers(engine, info);
    fill_machine(engine, info);
    fill_registries(engine->registries, info);
    return info;
}

/* --- removing the instance -------------------------------------------------------------------- */

struct removal {
    struct engine *engine;
    struct disk_job job;
    uv_timer_t timer;
    size_t pending; /* containers */
    engine_done done;
    void *data;
    struct error err;
};

static void removal_closed(uv_handle_t *handle)
{
    struct removal *removal = handle->data;

    error_finish(&removal->err);
    free(removal);
}

static void removal_finish(struct removal *removal)
{
    struct engine_result result = ENGINE_RESULT_INIT;

    if (removal->err.code < 0 && !removal->engine->gone)
        removal->engine->removing = false;
    result.err = removal->err.code < 0 ? &removal->err : NULL;
    removal->done(&result, removal->data);
    uv_close((uv_handle_t *)&removal->timer, removal_closed);
}

/* In ROOT from the first file that goes to the last: a daemon that finds it goes on. */
static const char mark[] = "removing";

static int set_mark(const struct instance *instance, struct error *err)
{
    _cleanup_close_ int root_fd = open(instance->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (root_fd < 0)
        return error_errno(err, errno, "open %s", instance->root);
    return file_replace_at(root_fd, mark, "", 0, 0600, err);
}

/* The folder itself may be where a disk is mounted: it stays then. */
static int remove_root(const struct instance *instance, struct error *err)
{
    _cleanup_closedir_ DIR *root = opendir(instance->root);
    int r = 0;

    for (struct dirent *entry; r == 0 && root && (entry = readdir(root));) {
        const char *name = entry->d_name;
        if (!text_equal(name, ".") && !text_equal(name, "..") && !text_equal(name, mark))
            r = file_remove_tree_at(dirfd(root), name, err);
    }
    if (r < 0)
        return r;
    if (root && unlinkat(dirfd(root), mark, 0) < 0 && errno != ENOENT)
        return error_errno(err, errno, "remove %s/%s", instance->root, mark);
    if (rmdir(instance->root) < 0 && errno != ENOENT && errno != EBUSY)
        return error_errno(err, errno, "remove %s", instance->root);
    return 0;
}

int instance_finish_removal(const struct instance *instance, struct error *err)
{
    _cleanup_free_ char *path = xasprintf("%s/%s", instance->root, mark);

    if (access(path, F_OK) < 0)
        return 0;
    log_info("an earlier removal of the instance goes on");
    int r = remove_root(instance, err);
    if (r == 0)
        return 0;
    error_context(err, "a removal of instance %s has not ended", instance->name);
    return error_hint(err, "unmount what is mounted below %s", instance->root);
}

static void files_work(struct disk_job *job)
{
    struct removal *removal = disk_job_of(job, struct removal, job);
    const struct instance *instance = removal->engine->instance;
    _cleanup_free_ char *containers = xasprintf("%s/containers", instance->run);
    _cleanup_free_ char *runtime = xasprintf("%s/runtime", instance->run);

    int r = cgroup_remove_parent(removal->engine->cgroup_parent, &removal->err);
    folders_remove(instance);
    if (r >= 0)
        r = file_remove_tree_at(AT_FDCWD, containers, &removal->err);
    if (r >= 0)
        r = file_remove_tree_at(AT_FDCWD, runtime, &removal->err);
    if (r >= 0)
        r = set_mark(instance, &removal->err);
    if (r >= 0) {
        store_close(steal_ptr(removal->engine->store));
        r = remove_root(instance, &removal->err);
    }
    engine_settle(&removal->err, r);
}

static void files_done(struct disk_job *job)
{
    removal_finish(disk_job_of(job, struct removal, job));
}

/* No container is left and nobody uses the store. */
static void remove_rest(struct removal *removal)
{
    struct engine *engine = removal->engine;

    /* From here on it cannot be what it was: another daemon has to begin, or to go on. */
    engine->gone = true;
    int r = engine->net ? net_teardown(engine->net, &removal->err) : 0;
    engine_settle(&removal->err, r);
    if (r < 0) {
        removal_finish(removal);
        return;
    }
    usb_end(engine, true);
    network_close(engine);
    removal->job.work = files_work;
    removal->job.done = files_done;
    disk_submit(engine->disk, &removal->job);
}

static void when_quiet(uv_timer_t *timer)
{
    struct removal *removal = timer->data;

    transfers_end(removal->engine);
    if (removal->engine->image_calls)
        uv_timer_start(timer, when_quiet, QUIET_POLL_MS, 0);
    else
        remove_rest(removal);
}

static void containers_removed(struct removal *removal)
{
    if (removal->err.code < 0)
        removal_finish(removal);
    else
        when_quiet(&removal->timer);
}

static void on_container_removed(const struct engine_result *result, void *data)
{
    struct removal *removal = data;

    /* That somebody else removed it in the meantime is just as good. */
    if (result->err && result->err->code != -ENOENT && removal->err.code == 0)
        error_set(&removal->err, result->err->code, "%s", error_message(result->err));
    if (--removal->pending == 0)
        containers_removed(removal);
}

static void remove_containers(struct removal *removal)
{
    struct engine *engine = removal->engine;
    size_t count = engine->containers_count;
    struct container **all = xnew_array(struct container *, count + 1);

    removal->pending = count + 1;
    for (size_t i = 0; i < count; i++)
        all[i] = container_ref(engine->containers[i]);
    for (size_t i = 0; i < count; i++) {
        remove_submit(all[i], true, on_container_removed, removal);
        container_unref(all[i]);
    }
    free(all);
    if (--removal->pending == 0)
        containers_removed(removal);
}

/* Those that are still being made belong to the disk thread. */
static void when_made(uv_timer_t *timer)
{
    struct removal *removal = timer->data;
    const struct engine *engine = removal->engine;

    for (size_t i = 0; i < engine->containers_count; i++) {
        if (engine->containers[i]->hidden) {
            uv_timer_start(timer, when_made, QUIET_POLL_MS, 0);
            return;
        }
    }
    remove_containers(removal);
}

static int may_remove(const struct engine *engine, bool force, struct error *err)
{
    if (engine->removing)
        return error_set(err, -EBUSY, "the instance is being removed already");
    for (size_t i = 0; i < engine->containers_count && !force; i++) {
        if (!container_is_active(engine->containers[i]))
            continue;
        error_set(err, -EBUSY, "container %s runs", engine->containers[i]->name);
        return error_hint(err, "use --force to end what runs");
    }
    return 0;
}

bool engine_is_gone(const struct engine *engine)
{
    return engine->gone;
}

void engine_remove_instance(struct engine *engine, bool force, engine_done done, void *data)
{
    _cleanup_error_ struct error err = ERROR_INIT;

    if (may_remove(engine, force, &err) < 0) {
        engine_fail(done, data, &err);
        return;
    }
    struct removal *removal = xnew(struct removal);
    engine->removing = true;
    builds_cancel(engine);
    archives_cancel(engine);
    removal->engine = engine;
    removal->done = done;
    removal->data = data;
    uv_timer_init(engine->loop, &removal->timer);
    removal->timer.data = removal;
    when_made(&removal->timer);
}
