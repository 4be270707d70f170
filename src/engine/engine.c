#include <errno.h>
#include <sched.h>
#include <string.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/log.h>
#include <base/loop.h>

#include "adopt.h"
#include "build.h"
#include "cgroup.h"
#include "cni.h"
#include "folders.h"
#include "garbage_timer.h"
#include "internal.h"
#include "lingering.h"
#include "supervision.h"
#include "watchdog.h"
#include "task.h"
#include "transfer.h"
#include "usb.h"
#include "volume_mount.h"
#include "volumes.h"

static unsigned count_cpus(void)
{
    cpu_set_t set;

    return sched_getaffinity(0, sizeof(set), &set) == 0 ? (unsigned)CPU_COUNT(&set) : 1;
}

static int check_program(const char *path, struct error *err)
{
    return access(path, X_OK) < 0 ? error_errno(err, errno, "%s", path) : 0;
}

static int find_programs(struct engine *engine, const struct engine_config *config,
                         struct error *err)
{
    int r;

    engine->monitor_program = xasprintf("%s/cloche-monitor", config->libexec);
    engine->image_program = xasprintf("%s/cloche-image", config->libexec);
    engine->names_program = xasprintf("%s/cloche-names", config->libexec);
    engine->relay_program = xasprintf("%s/cloche-relay", config->libexec);
    engine->logpack_program = xasprintf("%s/cloche-logpack", config->libexec);
    engine->init_program = xasprintf("%s/cloche-init", config->libexec);
    engine->registry_program = xasprintf("%s/cloche-registry", config->libexec);
    engine->runtime_program = xstrdup(config->runtime);
    r = check_program(engine->monitor_program, err);
    if (r == 0)
        r = check_program(engine->runtime_program, err);
    return r;
}

/* ROOT and RUN are for root only: images, containers' files, and a socket that gives root. */
static int make_folders(const struct instance *instance, struct error *err)
{
    _cleanup_free_ char *containers = xasprintf("%s/containers", instance->run);
    _cleanup_free_ char *runtime = xasprintf("%s/runtime", instance->run);
    int r;

    r = file_mkdir_parents(instance->root, 0700, err);
    if (r == 0)
        r = file_mkdir_parents(containers, 0700, err);
    if (r == 0)
        r = file_mkdir_parents(runtime, 0700, err);
    if (r == 0)
        folders_hold(instance);
    return r;
}

static int open_state(struct engine *engine, struct error *err)
{
    int r;

    r = instance_finish_removal(engine->instance, err);
    if (r == 0)
        r = make_folders(engine->instance, err);
    if (r == 0)
        r = store_open(engine->instance->root, &engine->store, err);
    if (r == 0)
        r = records_migrate(store_database(engine->store), err);
    if (r == 0)
        r = volumes_migrate(store_database(engine->store), err);
    if (r == 0)
        r = usb_migrate(store_database(engine->store), err);
    if (r == 0)
        r = records_load(engine, err);
    if (r == 0)
        r = volumes_load(engine, err);
    if (r == 0)
        r = disk_create(engine->loop, &engine->disk, err);
    return r;
}

/* A machine without nftables or without the right to use it still runs containers without a bridge:
 * the failure is told when somebody wants one. */
static void bring_up(struct engine *engine)
{
    int r = network_open(engine, &engine->net_error);

    volumes_use_settle(engine);
    adopt_connect_all(engine);
    cni_settle(engine);
    if (r >= 0)
        r = network_setup(engine, &engine->net_error);
    engine_settle(&engine->net_error, r);
    if (r < 0)
        log_failure(LOG_ERROR, &engine->net_error, "there is no network");
}

int engine_create(const struct engine_config *config, struct engine **ret, struct error *err)
{
    struct engine *engine = xnew(struct engine);
    int r;

    engine->loop = config->loop;
    engine->instance = config->instance;
    engine->on_event = config->on_event;
    engine->on_event_data = config->on_event_data;
    engine->cni = config->cni;
    engine->usb_settings = config->usb;
    engine->libexec = xstrdup(config->libexec);
    engine->cpus = count_cpus();
    engine->cgroup_v2 = cgroup_is_v2();
    engine->rootless = config->rootless;
    engine->cgroup_parent = config->cgroup_parent;
    r = find_programs(engine, config, err);
    if (r == 0)
        r = open_state(engine, err);
    if (r < 0) {
        engine_end(engine);
        while (uv_run(config->loop, UV_RUN_DEFAULT))
            ;
        engine_free(engine);
        return r;
    }
    usb_open(engine);
    bring_up(engine);
    adopt_settle_all(engine);
    usb_settle(engine);
    supervision_boot(engine);
    *ret = engine;
    return 0;
}

static void drop_links(struct engine *engine)
{
    size_t count = engine->containers_count;
    struct container **all = xnew_array(struct container *, count + 1);

    for (size_t i = 0; i < count; i++)
        all[i] = container_ref(engine->containers[i]);
    for (size_t i = 0; i < count; i++) {
        supervision_finish(all[i]);
        watchdog_stop(all[i]);
        link_destroy(steal_ptr(all[i]->link));
        container_unref(all[i]);
    }
    free(all);
}

void engine_end(struct engine *engine)
{
    if (!engine)
        return;
    engine->ending = true;
    garbage_end(engine);
    lingering_end(engine);
    transfers_end(engine);
    builds_cancel(engine);
    waiters_drop_all(engine);
    task_cancel_all(engine);
    drop_links(engine);
    disk_destroy(steal_ptr(engine->disk));
    cgroup_drop_parent(engine->cgroup_parent);
    folders_release(engine->instance);
    usb_end(engine, false);
    network_close(engine);
    loop_forget_children(engine->loop);
}

void engine_free(struct engine *engine)
{
    if (!engine)
        return;
    while (engine->containers_count)
        container_table_remove(engine->containers[engine->containers_count - 1]);
    free(engine->containers);
    network_free_all(engine);
    volumes_free(engine);
    engine_listed_free(engine->listed);
    usb_free(engine);
    store_close(engine->store);
    error_finish(&engine->net_error);
    free(engine->libexec);
    free(engine->monitor_program);
    free(engine->runtime_program);
    free(engine->image_program);
    free(engine->names_program);
    free(engine->relay_program);
    free(engine->init_program);
    free(engine->logpack_program);
    free(engine->registry_program);
    registries_settings_free(engine->registries);
    userns_settings_free(engine->userns);
    cni_settings_free(engine->cni);
    free(engine);
}
