/*
 * The rules of the policy that were added at run time, in state.db, and the whole of the policy.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <base/log.h>
#include <base/text.h>
#include <engine/usb.h>

#include "usb.h"
#include "usb_internal.h"

static const char *const migrations[] = {
    "CREATE TABLE engine_usb_rules (id INTEGER PRIMARY KEY AUTOINCREMENT,"
    " place INTEGER NOT NULL, rule TEXT NOT NULL);",
};

int usb_migrate(struct store_db *db, struct error *err)
{
    return store_db_migrate(db, "usb", migrations, ARRAY_SIZE(migrations), err);
}

static struct api_usb_rule *rule_copy(const struct api_usb_rule *rule)
{
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;
    struct api_usb_rule *copy = NULL;

    api_usb_rule_write(rule, &text);
    api_usb_rule_parse(text.data, text.length, "rule", &copy, NULL);
    return copy;
}

static void insert(struct usb *usb, size_t at, int64_t id, struct api_usb_rule *rule)
{
    usb->rules = xrealloc(usb->rules, usb->rules_count + 1, sizeof(*usb->rules));
    memmove(&usb->rules[at + 1], &usb->rules[at], (usb->rules_count - at) * sizeof(*usb->rules));
    usb->rules[at] = (struct usb_rule){id, rule};
    usb->rules_count++;
}

/* A rule that this version cannot read may have been one that denies: it denies everything. */
static struct api_usb_rule *stand_in(void)
{
    struct api_usb_rule *rule = xnew(struct api_usb_rule);

    rule->action = xstrdup("deny");
    return rule;
}

int usb_rules_load(struct usb *usb, struct error *err)
{
    _cleanup_store_statement_ struct store_statement *row = NULL;
    int r = store_db_query(store_database(usb->engine->store), &row, err,
                           "SELECT id, rule FROM engine_usb_rules ORDER BY place, id", "");

    while (r >= 0 && (r = store_statement_step(row, err)) > 0) {
        _cleanup_error_ struct error unread = ERROR_INIT;
        const char *text = store_statement_text(row, 1);
        struct api_usb_rule *rule = NULL;
        if (api_usb_rule_parse(text, strlen(text), "rule", &rule, &unread) < 0) {
            log_failure(LOG_ERROR, &unread, "a rule for USB devices cannot be read: it denies all");
            rule = stand_in();
        }
        insert(usb, usb->rules_count, store_statement_integer(row, 0), rule);
    }
    return r;
}

void usb_rules_free(struct usb *usb)
{
    for (size_t i = 0; i < usb->rules_count; i++)
        api_usb_rule_free(usb->rules[i].rule);
    free(usb->rules);
    usb->rules = NULL;
    usb->rules_count = 0;
}

enum usb_verdict usb_judge(const struct usb *usb, const struct usb_identity *identity,
                           const char *place)
{
    const struct api_usb_rule *rule = NULL;

    for (size_t i = 0; !rule && i < usb->rules_count; i++) {
        if (usb_rule_fits(usb->rules[i].rule, identity, place))
            rule = usb->rules[i].rule;
    }
    for (size_t i = 0; !rule && usb->settings && i < usb->settings->rules_count; i++) {
        if (usb_rule_fits(usb->settings->rules[i], identity, place))
            rule = usb->settings->rules[i];
    }
    return usb_rule_verdict(rule, identity, usb->exclusive);
}

/* --- the configuration ------------------------------------------------------------------------ */

int engine_set_usb(struct engine *engine, struct usb_settings_settings *settings, struct error *err)
{
    struct usb *usb = engine->usb;

    for (size_t i = 0; settings && i < settings->rules_count; i++) {
        int r = usb_rule_check(settings->rules[i], err);
        if (r < 0) {
            usb_settings_settings_free(settings);
            return r;
        }
    }
    usb_settings_settings_free(usb->settings);
    usb->settings = settings;
    stick_settle_all(usb);
    return 0;
}

/* --- what clients ask for --------------------------------------------------------------------- */

static void append(struct api_usb_policy *policy, const char *from, const int64_t *id,
                   const struct api_usb_rule *rule)
{
    struct api_usb_numbered_rule *numbered = xnew(struct api_usb_numbered_rule);

    numbered->from = xstrdup(from);
    numbered->has_id = id != NULL;
    numbered->id = id ? *id : 0;
    numbered->rule = rule_copy(rule);
    policy->rules = xrealloc(policy->rules, policy->rules_count + 1, sizeof(*policy->rules));
    policy->rules[policy->rules_count++] = numbered;
}

struct api_usb_policy *engine_usb_policy(struct engine *engine)
{
    const struct usb *usb = engine->usb;
    struct api_usb_policy *policy = xnew(struct api_usb_policy);
    struct api_usb_rule sticks = {
        .action = (char *)"allow", .storage_only = true, .has_storage_only = true};
    struct api_usb_rule rest = {.action = (char *)(usb->exclusive ? "deny" : "kernel")};

    policy->exclusive = usb->exclusive;
    for (size_t i = 0; i < usb->rules_count; i++)
        append(policy, "added", &usb->rules[i].id, usb->rules[i].rule);
    for (size_t i = 0; usb->settings && i < usb->settings->rules_count; i++)
        append(policy, "configuration", NULL, usb->settings->rules[i]);
    append(policy, "default", NULL, &sticks);
    append(policy, "default", NULL, &rest);
    return policy;
}

struct change {
    struct disk_job job;
    struct usb *usb;
    struct api_usb_rule *rule; /* NULL: one is removed */
    char *text;
    bool last;
    int64_t id;
    struct error err;
    engine_image_done done;
    void *data;
};

static int add_row(struct change *change, struct error *err)
{
    struct store_db *db = store_database(change->usb->engine->store);
    _cleanup_store_statement_ struct store_statement *row = NULL;

    int r = store_db_run(db, err,
                         "INSERT INTO engine_usb_rules (place, rule) SELECT CASE WHEN ? THEN"
                         " coalesce(max(place), 0) + 1 ELSE coalesce(min(place), 0) - 1 END, ?"
                         " FROM engine_usb_rules",
                         "it", (int64_t)change->last, change->text);
    if (r >= 0)
        r = store_db_query(db, &row, err, "SELECT max(id) FROM engine_usb_rules", "");
    if (r >= 0 && (r = store_statement_step(row, err)) > 0)
        change->id = store_statement_integer(row, 0);
    return r;
}

/* Flushed: a rule that denies is not to be lost with the power. */
static void change_work(struct disk_job *job)
{
    struct change *change = disk_job_of(job, struct change, job);
    struct store_db *db = store_database(change->usb->engine->store);
    int r = store_db_begin(db, &change->err);

    if (r >= 0)
        r = change->rule
                ? add_row(change, &change->err)
                : store_db_run(db, &change->err, "DELETE FROM engine_usb_rules WHERE id = ?", "i",
                               change->id);
    if (r >= 0)
        r = store_db_commit(db, &change->err);
    else
        store_db_rollback(db);
    engine_settle(&change->err, r < 0 ? r : 0);
}

static void take_out(struct usb *usb, int64_t id)
{
    for (size_t i = 0; i < usb->rules_count; i++) {
        if (usb->rules[i].id != id)
            continue;
        api_usb_rule_free(usb->rules[i].rule);
        usb->rules_count--;
        memmove(&usb->rules[i], &usb->rules[i + 1], (usb->rules_count - i) * sizeof(*usb->rules));
        return;
    }
}

static void change_done(struct disk_job *job)
{
    struct change *change = disk_job_of(job, struct change, job);
    struct usb *usb = change->usb;
    const struct api_usb_policy_ref made = {.id = change->id};
    const struct api_empty nothing = {0};

    if (change->err.code == 0 && change->rule)
        insert(usb, change->last ? usb->rules_count : 0, change->id, steal_ptr(change->rule));
    else if (change->err.code == 0)
        take_out(usb, change->id);
    if (change->err.code == 0)
        stick_settle_all(usb);
    if (change->err.code)
        change->done(&change->err, NULL, change->data);
    else
        change->done(NULL, change->text ? (const void *)&made : (const void *)&nothing,
                     change->data);
    api_usb_rule_free(change->rule);
    free(change->text);
    error_finish(&change->err);
    free(change);
}

static void submit(struct usb *usb, struct change *change, engine_image_done done, void *data)
{
    change->usb = usb;
    change->done = done;
    change->data = data;
    change->job.work = change_work;
    change->job.done = change_done;
    disk_submit(usb->engine->disk, &change->job);
}

void engine_usb_policy_add(struct engine *engine, const struct api_usb_policy_add *what,
                           engine_image_done done, void *data)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    struct buffer text = BUFFER_INIT;
    int r = usb_rule_check(what->rule, &err);

    if (r == 0 && engine->usb->rules_count >= USB_RULES_MAX)
        r = error_set(&err, -ENOBUFS, "more than %d rules", USB_RULES_MAX);
    if (r < 0) {
        done(&err, NULL, data);
        return;
    }
    struct change *change = xnew(struct change);
    api_usb_rule_write(what->rule, &text);
    change->text = buffer_steal(&text);
    change->rule = rule_copy(what->rule);
    change->last = what->last;
    submit(engine->usb, change, done, data);
}

void engine_usb_policy_remove(struct engine *engine, int64_t id, engine_image_done done, void *data)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    const struct usb *usb = engine->usb;
    bool found = false;

    for (size_t i = 0; i < usb->rules_count; i++)
        found = found || usb->rules[i].id == id;
    if (!found) {
        error_set(&err, -ENOENT, "there is no rule %lld that was added", (long long)id);
        error_hint(&err, "See: cloche usb policy ls");
        done(&err, NULL, data);
        return;
    }
    struct change *change = xnew(struct change);
    change->id = id;
    submit(engine->usb, change, done, data);
}
