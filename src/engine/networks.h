/*
 * What the files about networks share.
 */
#ifndef ENGINE_NETWORKS_H
#define ENGINE_NETWORKS_H

#include "internal.h"

bool network_is_builtin(const char *name);

/* A network from its record, which is taken over in any case. It is in no table and not up. */
int network_new(const char *id, struct record_stored_network *record, struct network **ret,
                struct error *err);
/* Makes its bridge known to net, which makes it after net_setup(). */
int network_bring_up(struct engine *engine, struct network *network, struct error *err);

void network_table_add(struct engine *engine, struct network *network); /* takes it over */
void network_table_remove(struct engine *engine, struct network *network);

/* On the disk thread, or before the loop runs. */
int network_record_insert(struct store_db *db, const char *id,
                          const struct record_stored_network *record, struct error *err);
int network_record_remove(struct store_db *db, const char *id, struct error *err);

/* What a request means as a record, with subnets chosen where it names none; and warnings for who
 * asked. *ret is the caller's. */
int network_plan(struct engine *engine, const struct api_network_create *how, const char *id,
                 struct record_stored_network **ret, struct error *err);

/* Whether a running container, or (any) any container, has a place on it. */
bool network_is_used(const struct network *network, const struct engine *engine, bool any);

/* Makes spare namespaces some time soon. */
void network_prepare_spare(struct engine *engine);

#endif
