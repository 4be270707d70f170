/*
 * Making and removing networks: the bridge on the loop's thread, where net lives, the record on the
 * disk thread. A network is seen by others when its record is committed.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <base/alloc.h>
#include <base/clock.h>
#include <base/log.h>
#include <base/text.h>

#include "bridge_notes.h"
#include "cni.h"
#include "events.h"
#include "names.h"
#include "networks.h"

struct network_change {
    struct disk_job job;
    struct engine *engine;
    struct network *network; /* create: in the table, hidden; remove: out of it */
    char *bridge;            /* owned; remove: the link to delete */
    char **warnings;         /* owned */
    engine_document_done done;
    void *data;
    struct error err;
};

static void change_free(struct network_change *change)
{
    strv_free(change->warnings);
    free(change->bridge);
    error_finish(&change->err);
    free(change);
}

/* --- create ----------------------------------------------------------------------------------- */

static void insert_work(struct disk_job *job)
{
    struct network_change *change = disk_job_of(job, struct network_change, job);

    engine_settle(&change->err,
                  network_record_insert(store_database(change->engine->store), change->network->id,
                                        change->network->record, &change->err));
}

static void take_back(struct network_change *change)
{
    struct network *network = change->network;

    network_table_remove(change->engine, network);
    if (network->bridge && change->engine->net)
        (void)net_bridge_remove(change->engine->net, network->bridge, NULL);
    if (network->record->bridge && net_link_delete(network->record->bridge, NULL) == 0)
        bridge_note_remove(change->engine, network->record->bridge);
    network_free(network);
}

static void insert_done(struct disk_job *job)
{
    struct network_change *change = disk_job_of(job, struct network_change, job);
    struct api_network_created created = {
        .id = change->network->id,
        .warnings = change->warnings,
        .warnings_count = strv_length(change->warnings),
    };

    if (change->err.code < 0) {
        take_back(change);
        change->done(&change->err, NULL, change->data);
    } else {
        change->network->hidden = false;
        event_network(change->engine, change->network, "create");
        change->done(NULL, &created, change->data);
    }
    change_free(change);
}

static bool is_name(const char *name)
{
    static const char first[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    size_t length = strlen(name);

    return length > 0 && length <= CONTAINER_NAME_MAX && strchr(first, name[0]) &&
           name[length - 1] != ' ' &&
           strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.- ") ==
               length;
}

static bool has_name(const struct engine *engine, const char *name)
{
    for (size_t i = 0; i < engine->networks_count; i++) {
        if (text_equal(engine->networks[i]->record->name, name))
            return true;
    }
    return false;
}

static int check_name(struct engine *engine, const struct api_network_create *how,
                      struct error *err)
{
    bool unique = !how->has_check_duplicate || how->check_duplicate;
    const char *name = how->name;

    if (!is_name(name))
        return error_set(
            err, -EINVAL,
            "invalid network name: only [a-zA-Z0-9][a-zA-Z0-9_. -] are allowed, and at "
            "most %d of them",
            CONTAINER_NAME_MAX);
    if (network_is_builtin(name) || text_equal(name, "default"))
        return error_set(err, -EPERM, "operation is not permitted on predefined %s network", name);
    if (unique && has_name(engine, name))
        return error_set(err, -EEXIST, "network with name %s already exists", name);
    if (engine->networks_count >= ENGINE_NETWORKS_MAX)
        return error_set(err, -ENOBUFS, "there are %d networks already", ENGINE_NETWORKS_MAX);
    return 0;
}

static int make(struct engine *engine, const struct api_network_create *how, struct network **ret,
                struct error *err)
{
    struct record_stored_network *record = NULL;
    struct network *network = NULL;
    char id[NETWORK_ID_DIGITS + 1];
    int r;

    r = check_name(engine, how, err);
    if (r < 0)
        return r;
    text_random_hex(id, NETWORK_ID_DIGITS);
    r = network_plan(engine, how, id, &record, err);
    if (r == 0)
        r = network_new(id, record, &network, err);
    if (r < 0)
        return r;
    if (record->bridge)
        r = bridge_note(engine, record->bridge, err);
    if (r == 0) {
        r = network_bring_up(engine, network, err);
        if (r < 0 && record->bridge && net_link_delete(record->bridge, NULL) == 0)
            bridge_note_remove(engine, record->bridge);
    }
    if (r < 0) {
        network_free(network);
        return r;
    }
    network->hidden = true;
    network_table_add(engine, network);
    *ret = network;
    return 0;
}

static void create(struct engine *engine, const struct api_network_create *how,
                   engine_document_done done, void *data)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    struct network *network = NULL;

    if (make(engine, how, &network, &err) < 0) {
        done(&err, NULL, data);
        return;
    }
    struct network_change *change = xnew(struct network_change);
    *change =
        (struct network_change){.engine = engine, .network = network, .done = done, .data = data};
    change->job.work = insert_work;
    change->job.done = insert_done;
    disk_submit(engine->disk, &change->job);
}

/* Its list and plug-ins are looked at before it is made. */
struct looked_create {
    struct engine *engine;
    struct api_network_create *how; /* owned */
    engine_document_done done;
    void *data;
};

static void looked_free(struct looked_create *looked)
{
    api_network_create_free(looked->how);
    free(looked);
}

static void on_looked(const struct error *err, void *data)
{
    struct looked_create *looked = data;

    if (err)
        looked->done(err, NULL, looked->data);
    else
        create(looked->engine, looked->how, looked->done, looked->data);
    looked_free(looked);
}

static int look_first(struct engine *engine, const struct api_network_create *how,
                      engine_document_done done, void *data, struct error *err)
{
    const char *list = json_string_map_get(how->options, CNI_LIST_OPTION);
    struct looked_create *looked = xnew(struct looked_create);
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;

    *looked = (struct looked_create){.engine = engine, .done = done, .data = data};
    api_network_create_write(how, &text);
    int r = api_network_create_parse(text.data, text.length, "network", &looked->how, err);
    if (r == 0)
        r = cni_look(engine, list ? list : how->name, on_looked, looked, err);
    if (r < 0)
        looked_free(looked);
    return r;
}

void engine_network_create(struct engine *engine, const struct api_network_create *how,
                           engine_document_done done, void *data)
{
    _cleanup_error_ struct error err = ERROR_INIT;

    if (!text_equal(how->driver, "cni"))
        create(engine, how, done, data);
    else if (check_name(engine, how, &err) < 0 || look_first(engine, how, done, data, &err) < 0)
        done(&err, NULL, data);
}

/* --- remove ----------------------------------------------------------------------------------- */

static void remove_work(struct disk_job *job)
{
    struct network_change *change = disk_job_of(job, struct network_change, job);
    int r = network_record_remove(store_database(change->engine->store), change->network->id,
                                  &change->err);

    if (r >= 0 && change->bridge)
        r = net_link_delete(change->bridge, &change->err);
    if (r >= 0 && change->bridge)
        bridge_note_remove(change->engine, change->bridge);
    engine_settle(&change->err, r);
}

static void remove_done(struct disk_job *job)
{
    struct network_change *change = disk_job_of(job, struct network_change, job);
    const struct api_empty nothing = {0};

    if (change->err.code == 0)
        event_network(change->engine, change->network, "destroy");
    if (change->done)
        change->done(change->err.code < 0 ? &change->err : NULL, &nothing, change->data);
    network_free(change->network);
    change_free(change);
}

static void forget_places(struct engine *engine, const struct network *network)
{
    for (size_t i = 0; i < engine->containers_count; i++) {
        struct container *container = engine->containers[i];

        for (size_t j = 0; j < container->places_count; j++) {
            if (container->places[j]->network == network)
                container->places[j]->network = NULL;
        }
    }
}

static void remove_now(struct engine *engine, struct network *network, engine_document_done done,
                       void *data)
{
    struct network_change *change = xnew(struct network_change);
    _cleanup_error_ struct error err = ERROR_INIT;

    *change = (struct network_change){
        .engine = engine,
        .network = network,
        .bridge = network->bridge ? xstrdup(network->record->bridge) : NULL,
        .done = done,
        .data = data,
    };
    network_table_remove(engine, network);
    forget_places(engine, network);
    /* One of an earlier boot has no note. */
    if (change->bridge && bridge_note(engine, change->bridge, &err) < 0)
        log_failure(LOG_WARNING, &err, "a bridge may be left when the daemon is killed now");
    if (network->bridge) {
        if (net_bridge_remove(engine->net, steal_ptr(network->bridge), &err) < 0)
            log_failure(LOG_WARNING, &err, "the rules still know of network %s",
                        network->record->name);
    }
    change->job.work = remove_work;
    change->job.done = remove_done;
    disk_submit(engine->disk, &change->job);
}

bool network_is_used(const struct network *network, const struct engine *engine, bool any)
{
    for (size_t i = 0; i < engine->containers_count; i++) {
        const struct container *container = engine->containers[i];
        const struct place *place = places_find(container, network);

        if (place && (any || place->held))
            return true;
    }
    return false;
}

void engine_network_remove(struct engine *engine, const struct api_network_remove *which,
                           engine_document_done done, void *data)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    const struct api_empty nothing = {0};
    struct network *network = NULL;
    int r = network_find(engine, which->network, &network, &err);

    if (r == -ENOENT && which->force) {
        done(NULL, &nothing, data);
        return;
    }
    if (r == 0 && network->builtin)
        r = error_set(&err, -EPERM, "%s is a pre-defined network and cannot be removed",
                      network->record->name);
    if (r == 0 && network_is_used(network, engine, false)) {
        r = error_set(&err, -EPERM,
                      "error while removing network: network %s id %s has active endpoints",
                      network->record->name, network->id);
        error_hint(&err, "stop its containers, or disconnect them (network disconnect)");
    }
    if (r < 0)
        done(&err, NULL, data);
    else
        remove_now(engine, network, done, data);
}

/* --- prune ------------------------------------------------------------------------------------ */

void engine_network_prune(struct engine *engine, const struct api_network_filters *filters,
                          engine_document_done done, void *data)
{
    struct api_network_filters unused = filters ? *filters : (struct api_network_filters){0};
    struct api_network_pruned pruned = {0};

    unused.dangling = unused.has_dangling = true;
    _cleanup_api_networks_ struct api_networks *list = engine_network_list(engine, &unused);
    for (size_t i = 0; i < list->networks_count; i++) {
        struct network *network = network_by_id(engine, list->networks[i]->id);

        strv_append(&pruned.networks_deleted, network->record->name);
        pruned.networks_deleted_count++;
        remove_now(engine, network, NULL, NULL);
    }
    if (!pruned.networks_deleted)
        pruned.networks_deleted = xnew_array(char *, 1);
    event_pruned(engine, "network", 0);
    done(NULL, &pruned, data);
    strv_free(pruned.networks_deleted);
}
