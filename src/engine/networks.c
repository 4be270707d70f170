/*
 * The table of networks and its records in state.db.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <base/alloc.h>
#include <base/clock.h>
#include <base/log.h>
#include <base/text.h>

#include "bridge_notes.h"
#include "events.h"
#include "networks.h"

static const char *const migrations[] = {
    "CREATE TABLE engine_networks ("
    " sequence INTEGER PRIMARY KEY AUTOINCREMENT,"
    " id TEXT NOT NULL UNIQUE,"
    " name TEXT NOT NULL UNIQUE,"
    " record TEXT NOT NULL);",
    /* Who asks for it may have several of one name. */
    "CREATE TABLE engine_networks_named ("
    " sequence INTEGER PRIMARY KEY AUTOINCREMENT,"
    " id TEXT NOT NULL UNIQUE,"
    " name TEXT NOT NULL,"
    " record TEXT NOT NULL);"
    "INSERT INTO engine_networks_named SELECT sequence, id, name, record FROM engine_networks;"
    "DROP TABLE engine_networks;"
    "ALTER TABLE engine_networks_named RENAME TO engine_networks;",
};

/* --- one network ------------------------------------------------------------------------------ */

void network_free(struct network *network)
{
    if (!network)
        return;
    net_pool_destroy(network->addresses);
    record_stored_network_free(network->record);
    free(network);
}

static enum network_kind kind_of(const char *driver)
{
    if (text_equal(driver, "host"))
        return NETWORK_HOST;
    if (text_equal(driver, "cni"))
        return NETWORK_CNI;
    return text_equal(driver, "null") ? NETWORK_NONE : NETWORK_BRIDGE;
}

bool network_is_builtin(const char *name)
{
    return text_equal(name, "bridge") || text_equal(name, "host") || text_equal(name, "none");
}

static int open_pool(struct network *network, struct error *err)
{
    const struct record_stored_network *record = network->record;
    struct net_subnet range = {0};
    int r = 0;

    if (record->ip_range)
        r = net_subnet_parse(record->ip_range, &range, err);
    if (r < 0)
        return r;
    network->addresses = net_pool_create(&network->subnet, record->ip_range ? &range : NULL);
    for (size_t i = 0; record->aux_addresses && i < record->aux_addresses->count; i++) {
        struct in_addr address;

        /* IPv6 ones are nobody's: containers have the number of their IPv4 address. */
        if (net_address_parse(record->aux_addresses->values[i], &address, NULL) < 0)
            continue;
        r = net_pool_reserve(network->addresses, address, err);
        if (r < 0)
            return r;
    }
    return 0;
}

int network_new(const char *id, struct record_stored_network *record, struct network **ret,
                struct error *err)
{
    struct network *network = xnew(struct network);
    int r = 0;

    snprintf(network->id, sizeof(network->id), "%s", id);
    network->record = record;
    network->kind = kind_of(record->driver);
    network->builtin = network_is_builtin(record->name);
    if (network->kind == NETWORK_BRIDGE) {
        r = net_subnet_parse(record->subnet ? record->subnet : "", &network->subnet, err);
        if (r == 0 && record->subnet6)
            r = net_subnet6_parse(record->subnet6, &network->subnet6, err);
        if (r == 0)
            r = open_pool(network, err);
    }
    if (r < 0) {
        error_context(err, "network %s", record->name);
        network_free(network);
        return r;
    }
    *ret = network;
    return 0;
}

int network_bring_up(struct engine *engine, struct network *network, struct error *err)
{
    const struct record_stored_network *record = network->record;
    const struct net_bridge_config config = {
        .name = record->bridge,
        .subnet = network->subnet,
        .subnet6 = network->subnet6,
        .mtu = record->mtu,
        .internal = record->internal,
        .separate = record->separate,
        .own_addresses = record->own_addresses,
    };

    if (network->kind != NETWORK_BRIDGE)
        return 0;
    if (!engine->net)
        return error_set(err, -ENETDOWN, "there is no network: %s",
                         error_message(&engine->net_error));
    return net_bridge_add(engine->net, &config, &network->bridge, err);
}

void network_table_add(struct engine *engine, struct network *network)
{
    engine->networks =
        xrealloc(engine->networks, engine->networks_count + 1, sizeof(struct network *));
    engine->networks[engine->networks_count++] = network;
}

void network_table_remove(struct engine *engine, struct network *network)
{
    for (size_t i = 0; i < engine->networks_count; i++) {
        if (engine->networks[i] != network)
            continue;
        engine->networks_count--;
        memmove(&engine->networks[i], &engine->networks[i + 1],
                (engine->networks_count - i) * sizeof(struct network *));
        return;
    }
}

/* --- finding ---------------------------------------------------------------------------------- */

struct network *network_by_id(struct engine *engine, const char *id)
{
    for (size_t i = 0; i < engine->networks_count; i++) {
        if (!engine->networks[i]->hidden && text_equal(engine->networks[i]->id, id))
            return engine->networks[i];
    }
    return NULL;
}

struct network *network_by_name(struct engine *engine, const char *name)
{
    if (text_equal(name, "default"))
        name = "bridge";
    for (size_t i = 0; i < engine->networks_count; i++) {
        if (!engine->networks[i]->hidden && text_equal(engine->networks[i]->record->name, name))
            return engine->networks[i];
    }
    return NULL;
}

static size_t count_named(const struct engine *engine, const char *name)
{
    size_t count = 0;

    for (size_t i = 0; i < engine->networks_count; i++)
        count +=
            !engine->networks[i]->hidden && text_equal(engine->networks[i]->record->name, name);
    return count;
}

int network_find(struct engine *engine, const char *reference, struct network **ret,
                 struct error *err)
{
    struct network *found = network_by_id(engine, reference);
    bool ambiguous = false;

    if (!found) {
        size_t named = count_named(engine, reference);

        if (named > 1) {
            error_set(err, -EINVAL, "network %s is ambiguous (%zu matches found on name)",
                      reference, named);
            return error_hint(err, "name it by its ID (network ls)"), -EINVAL;
        }
        found = network_by_name(engine, reference);
    }
    for (size_t i = 0; !found && reference[0] && i < engine->networks_count; i++) {
        struct network *network = engine->networks[i];

        if (network->hidden || !text_starts_with(network->id, reference))
            continue;
        for (size_t j = i + 1; j < engine->networks_count; j++)
            ambiguous = ambiguous || (!engine->networks[j]->hidden &&
                                      text_starts_with(engine->networks[j]->id, reference));
        found = network;
    }
    if (ambiguous)
        return error_set(err, -EEXIST, "network %s is ambiguous (several IDs begin like this)",
                         reference);
    if (!found)
        return error_set(err, -ENOENT, "network %.128s not found", reference);
    *ret = found;
    return 0;
}

/* --- records ---------------------------------------------------------------------------------- */

int network_record_insert(struct store_db *db, const char *id,
                          const struct record_stored_network *record, struct error *err)
{
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;

    record_stored_network_write(record, &text);
    return store_db_run(db, err, "INSERT INTO engine_networks (id, name, record) VALUES (?, ?, ?)",
                        "ttt", id, record->name, buffer_text(&text));
}

int network_record_remove(struct store_db *db, const char *id, struct error *err)
{
    return store_db_run(db, err, "DELETE FROM engine_networks WHERE id = ?", "t", id);
}

static int load_row(struct engine *engine, struct store_statement *row, struct error *err)
{
    const char *id = store_statement_text(row, 0), *text = store_statement_text(row, 1);
    struct record_stored_network *record = NULL;
    struct network *network = NULL;
    int r;

    if (!text_is_hex(id, NETWORK_ID_DIGITS))
        return error_set(err, -EBADMSG, "'%.80s' is no network ID", id);
    r = record_stored_network_parse(text, strlen(text), "record", &record, err);
    if (r == 0)
        r = network_new(id, record, &network, err);
    if (r < 0)
        return r;
    network_table_add(engine, network);
    return 0;
}

static int load_rows(struct engine *engine, struct error *err)
{
    _cleanup_store_statement_ struct store_statement *row = NULL;
    int r;

    r = store_db_query(store_database(engine->store), &row, err,
                       "SELECT id, record FROM engine_networks ORDER BY sequence", "");
    while (r >= 0 && (r = store_statement_step(row, err)) > 0)
        r = load_row(engine, row, err);
    return r < 0 ? error_context(err, "read the networks' records"), r : 0;
}

/* --- the networks that are always there ------------------------------------------------------- */

/* The subnet that versions before networks recorded, else a free one: containers keep their
 * addresses over restarts of daemon and machine. */
static int default_subnet(struct engine *engine, struct net_subnet *ret, struct error *err)
{
    _cleanup_store_statement_ struct store_statement *row = NULL;

    int r = store_db_query(store_database(engine->store), &row, NULL,
                           "SELECT value FROM engine_settings WHERE name = 'subnet'", "");
    if (r >= 0 && store_statement_step(row, NULL) > 0 &&
        net_subnet_parse(store_statement_text(row, 0), ret, NULL) == 0)
        return 0;
    return net_choose_subnet(engine->net, engine->instance->bridge, ret, err);
}

static int add_builtin(struct engine *engine, const char *name, const char *driver,
                       struct error *err)
{
    struct record_stored_network *record;
    char id[NETWORK_ID_DIGITS + 1], text[NET_SUBNET_TEXT];
    struct network *network = NULL;
    struct net_subnet subnet;
    int r = 0;

    if (network_by_name(engine, name))
        return 0;
    if (text_equal(driver, "bridge"))
        r = default_subnet(engine, &subnet, err);
    if (r < 0)
        return r;
    record = xnew(struct record_stored_network);
    record->version = 1;
    record->name = xstrdup(name);
    record->driver = xstrdup(driver);
    record->created_at = clock_now();
    if (text_equal(driver, "bridge")) {
        record->bridge = xstrdup(engine->instance->bridge);
        record->subnet = xstrdup(net_subnet_format(&subnet, text));
    }
    text_random_hex(id, NETWORK_ID_DIGITS);
    r = network_new(id, record, &network, err);
    if (r == 0)
        r = network_record_insert(store_database(engine->store), id, record, err);
    if (r < 0) {
        network_free(network);
        return r;
    }
    network_table_add(engine, network);
    if (network->kind == NETWORK_BRIDGE)
        event_network(engine, network, "create");
    return 0;
}

int networks_load(struct engine *engine, struct error *err)
{
    int r;

    r = store_db_migrate(store_database(engine->store), "networks", migrations,
                         ARRAY_SIZE(migrations), err);
    if (r == 0)
        r = load_rows(engine, err);
    if (r == 0)
        bridge_notes_sweep(engine);
    if (r == 0)
        r = add_builtin(engine, "bridge", "bridge", err);
    if (r == 0)
        r = add_builtin(engine, "host", "host", err);
    if (r == 0)
        r = add_builtin(engine, "none", "null", err);
    for (size_t i = 0; r == 0 && i < engine->networks_count; i++)
        r = network_bring_up(engine, engine->networks[i], err);
    return r;
}
