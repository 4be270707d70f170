#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/log.h>
#include <base/text.h>

#include "idmap.h"
#include "internal.h"
#include "spec.h"

static const char *const migrations[] = {
    "CREATE TABLE engine_containers ("
    " sequence INTEGER PRIMARY KEY AUTOINCREMENT,"
    " id TEXT NOT NULL UNIQUE,"
    " name TEXT NOT NULL UNIQUE,"
    " spec TEXT NOT NULL,"
    " effective TEXT NOT NULL,"
    " record TEXT NOT NULL);"
    "CREATE TABLE engine_settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;",
    /* Limits were members of the specification itself. A null in a patch takes its member away. */
    "UPDATE engine_containers SET"
    " spec = json_patch(spec, json_object('memory', NULL, 'nanoCpus', NULL, 'pidsLimit', NULL,"
    "  'resources', json_object('memory', spec ->> '$.memory', 'nanoCpus', spec ->> '$.nanoCpus',"
    "   'pidsLimit', spec ->> '$.pidsLimit'))),"
    " effective = json_patch(effective, json_object('memory', NULL, 'nanoCpus', NULL,"
    "  'pidsLimit', NULL, 'resources', json_object('memory', effective ->> '$.memory',"
    "   'nanoCpus', effective ->> '$.nanoCpus', 'pidsLimit', effective ->> '$.pidsLimit')));",
};

int records_migrate(struct store_db *db, struct error *err)
{
    return store_db_migrate(db, "engine", migrations, ARRAY_SIZE(migrations), err);
}

/* --- loading ---------------------------------------------------------------------------------- */

static enum container_state state_by_name(const char *name)
{
    for (int i = CONTAINER_CREATED; i <= CONTAINER_DEAD; i++) {
        if (text_equal(container_state_names[i], name))
            return (enum container_state)i;
    }
    return CONTAINER_EXITED;
}

static int parse_row(struct container *container, struct store_statement *row, struct error *err)
{
    const char *spec = store_statement_text(row, 2);
    const char *effective = store_statement_text(row, 3);
    const char *record = store_statement_text(row, 4);
    int r;

    r = api_container_spec_parse(spec, strlen(spec), "spec", &container->spec, err);
    if (r == 0)
        r = api_container_spec_parse(effective, strlen(effective), "effective",
                                     &container->effective, err);
    if (r == 0) /* earlier versions kept binds there */
        r = spec_settle_mounts(container->effective, err);
    if (r == 0)
        r = record_container_parse(record, strlen(record), "record", &container->record, err);
    if (r == 0 && container->record->user_namespace)
        r = idmap_check(container->record->user_namespace, err);
    return r;
}

/* What stands for a row that this version cannot read: a newer one's, or a damaged one. It is shown
 * and can be removed; the row stays as it is. */
static void stand_in(struct container *container, const char *why)
{
    static const char nothing[] = "{\"image\":\"\",\"command\":[\"\"]}";

    container->unreadable = true;
    api_container_spec_free(container->spec);
    api_container_spec_free(container->effective);
    container->spec = container->effective = NULL;
    api_container_spec_parse(nothing, sizeof(nothing) - 1, "spec", &container->spec, NULL);
    struct image_defaults none = {0};
    spec_merge(container->spec, &none, container->id, &container->effective, NULL);
    if (!container->record) {
        container->record = xnew(struct record_container);
        container->record->version = 1;
        container->record->image_id = xstrdup("");
    }
    container_set_state(container, CONTAINER_DEAD);
    container_set_error(container, why);
}

static int load_row(struct engine *engine, struct store_statement *row, struct error *err)
{
    const char *id = store_statement_text(row, 0);

    if (!text_is_hex(id, CONTAINER_ID_DIGITS))
        return error_set(err, -EBADMSG, "'%.80s' is no container ID", id);
    struct container *container = xnew(struct container);
    container->engine = engine;
    container->references = 1;
    memcpy(container->id, id, sizeof(container->id));
    container->name = xstrdup(store_statement_text(row, 1));
    _cleanup_error_ struct error unread = ERROR_INIT;
    if (parse_row(container, row, &unread) < 0) {
        log_failure(LOG_ERROR, &unread, "the record of container %.12s cannot be read", id);
        stand_in(container, error_message(&unread));
    }
    container->state = state_by_name(container->record->state);
    places_read(container);
    container_table_add(engine, container);
    return 0;
}

int records_load(struct engine *engine, struct error *err)
{
    _cleanup_store_statement_ struct store_statement *row = NULL;
    int r;

    r = store_db_query(store_database(engine->store), &row, err,
                       "SELECT id, name, spec, effective, record FROM engine_containers"
                       " ORDER BY sequence",
                       "");
    while (r >= 0 && (r = store_statement_step(row, err)) > 0)
        r = load_row(engine, row, err);
    if (r < 0)
        error_context(err, "read the container records");
    return r;
}

/* --- changes ---------------------------------------------------------------------------------- */

static char *spec_text(const struct api_container_spec *spec)
{
    struct buffer text = BUFFER_INIT;

    api_container_spec_write(spec, &text);
    return buffer_steal(&text);
}

void record_change_update(struct record_change *change, const struct container *container)
{
    struct buffer text = BUFFER_INIT;

    record_container_write(container->record, &text);
    *change = (struct record_change){
        .db = store_database(container->engine->store),
        .id = xstrdup(container->id),
        .record = buffer_steal(&text),
    };
}

void record_change_limits(struct record_change *change, const struct container *container)
{
    record_change_update(change, container);
    change->spec = spec_text(container->spec);
    change->effective = spec_text(container->effective);
}

void record_change_insert(struct record_change *change, const struct container *container)
{
    record_change_limits(change, container);
    change->name = xstrdup(container->name);
    change->insert = true;
}

void record_change_rename(struct record_change *change, const struct container *container,
                          const char *name)
{
    *change = (struct record_change){
        .db = store_database(container->engine->store),
        .id = xstrdup(container->id),
        .name = xstrdup(name),
    };
}

void record_change_remove(struct record_change *change, const struct container *container)
{
    *change = (struct record_change){
        .db = store_database(container->engine->store),
        .id = xstrdup(container->id),
        .remove = true,
    };
}

static int run_statement(const struct record_change *change, struct error *err)
{
    if (change->remove)
        return store_db_run(change->db, err, "DELETE FROM engine_containers WHERE id = ?", "t",
                            change->id);
    if (!change->record)
        return store_db_run(change->db, err, "UPDATE engine_containers SET name = ? WHERE id = ?",
                            "tt", change->name, change->id);
    if (change->insert)
        return store_db_run(change->db, err,
                            "INSERT INTO engine_containers (id, name, spec, effective, record)"
                            " VALUES (?, ?, ?, ?, ?)",
                            "ttttt", change->id, change->name, change->spec, change->effective,
                            change->record);
    if (change->spec)
        return store_db_run(change->db, err,
                            "UPDATE engine_containers SET spec = ?, effective = ?, record = ?"
                            " WHERE id = ?",
                            "tttt", change->spec, change->effective, change->record, change->id);
    return store_db_run(change->db, err, "UPDATE engine_containers SET record = ? WHERE id = ?",
                        "tt", change->record, change->id);
}

int record_change_run(const struct record_change *change, struct error *err)
{
    int r = run_statement(change, err);

    if (r < 0)
        error_context(err, "record container %.12s", change->id);
    return r < 0 ? r : 0;
}

void record_change_finish(struct record_change *change)
{
    free(change->id);
    free(change->name);
    free(change->spec);
    free(change->effective);
    free(change->record);
    *change = (struct record_change){0};
}

/* --- commits that nobody waits for ------------------------------------------------------------ */

struct commit_job {
    struct disk_job job;
    struct record_change change;
    char *remove_path; /* owned; deleted after the commit; NULL: nothing */
};

static void commit_work(struct disk_job *disk_job)
{
    struct commit_job *commit = disk_job_of(disk_job, struct commit_job, job);
    _cleanup_error_ struct error err = ERROR_INIT;

    if (record_change_run(&commit->change, &err) < 0) {
        /* What the run folder says is still needed then. */
        log_failure(LOG_ERROR, &err, "a change is not recorded");
    } else if (commit->remove_path &&
               file_remove_tree_at(AT_FDCWD, commit->remove_path, &err) < 0) {
        log_failure(LOG_WARNING, &err, "a run folder is left behind");
    }
}

static void commit_done(struct disk_job *disk_job)
{
    struct commit_job *commit = disk_job_of(disk_job, struct commit_job, job);

    record_change_finish(&commit->change);
    free(commit->remove_path);
    free(commit);
}

static void submit_commit(struct container *container, char *remove_path)
{
    if (container->unreadable) {
        free(remove_path);
        return;
    }
    struct commit_job *commit = xnew(struct commit_job);

    commit->job.work = commit_work;
    commit->job.done = commit_done;
    commit->remove_path = remove_path;
    record_change_update(&commit->change, container);
    disk_submit(container->engine->disk, &commit->job);
}

void container_commit_record(struct container *container)
{
    submit_commit(container, NULL);
}

void container_commit_end(struct container *container)
{
    submit_commit(container, container_run_path(container, NULL));
}
