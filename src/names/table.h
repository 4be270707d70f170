/*
 * Who has which name: the places of containers on networks, as the engine told them.
 */
#ifndef NAMES_TABLE_H
#define NAMES_TABLE_H

#include <stdbool.h>
#include <stddef.h>

#include <names/protocol.h>

#include "message.h"

enum { TABLE_PLACES_MAX = 16384, TABLE_NAMES_MAX = 256 };

struct table_place {
    char container[NAMES_ID_SIZE];
    char network[NAMES_ID_SIZE];
    char *network_name; /* owned */
    struct in_addr address;
    bool has_address6;
    struct in6_addr address6;
    char **names; /* owned list, lower case */
    char **links; /* the same: "ALIAS=NAME" */
};

struct table {
    struct table_place *places; /* owned array */
    size_t count;
};

void table_clear(struct table *table);
/* In place of an earlier one of the same container on the same network. size: of the message, at
 * least that of the structure. */
void table_set(struct table *table, const struct names_place *message, size_t size);
/* network NULL: all of the container's. */
void table_remove(struct table *table, const char *container, const char *network);

/* Whether a name is known to a container: by the networks they share. Adds what is asked for to the
 * answer: a name without an address of the family is known all the same. */
bool table_answer(const struct table *table, const char *container,
                  const struct message_question *question, struct message_answer *answer);

#endif
