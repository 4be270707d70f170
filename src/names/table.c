#include "table.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <base/text.h>

static void place_finish(struct table_place *place)
{
    free(place->network_name);
    strv_free(place->names);
    strv_free(place->links);
}

void table_clear(struct table *table)
{
    while (table->count > 0)
        place_finish(&table->places[--table->count]);
    free(table->places);
    *table = (struct table){0};
}

void table_remove(struct table *table, const char *container, const char *network)
{
    for (size_t i = table->count; i > 0; i--) {
        struct table_place *place = &table->places[i - 1];

        if (!text_equal(place->container, container) ||
            (network && !text_equal(place->network, network)))
            continue;
        place_finish(place);
        *place = table->places[--table->count];
    }
}

static void lower(char *text)
{
    for (; *text; text++) {
        if (*text >= 'A' && *text <= 'Z')
            *text = (char)(*text + 'a' - 'A');
    }
}

static void read_names(const char *names, size_t size, struct table_place *place)
{

    for (size_t at = 0, count = 0; at < size && count < TABLE_NAMES_MAX; count++) {
        size_t length = strnlen(names + at, size - at);

        if (length > 0 && length <= 2 * MESSAGE_NAME_MAX) {
            char *name = xstrndup(names + at, length);

            lower(name);
            strv_take(strchr(name, '=') ? &place->links : &place->names, name);
        }
        at += length + 1;
    }
}

void table_set(struct table *table, const struct names_place *message, size_t size)
{
    table_remove(table, message->header.container, message->network);
    if (table->count >= TABLE_PLACES_MAX)
        return;
    table->places = xrealloc(table->places, table->count + 1, sizeof(*table->places));
    struct table_place *place = &table->places[table->count++];
    *place = (struct table_place){
        .network_name = xstrndup(message->network_name, sizeof(message->network_name) - 1),
        .address = message->address,
        .has_address6 = message->has_address6,
        .address6 = message->address6,
    };
    read_names(message->names, size - sizeof(*message), place);
    lower(place->network_name);
    memcpy(place->container, message->header.container, sizeof(place->container));
    memcpy(place->network, message->network, sizeof(place->network));
}

/* --- answers ---------------------------------------------------------------------------------- */

static bool is_on(const struct table *table, const char *container, const char *network)
{
    for (size_t i = 0; i < table->count; i++) {
        if (text_equal(table->places[i].container, container) &&
            text_equal(table->places[i].network, network))
            return true;
    }
    return false;
}

/* "web", and "web.NETWORK". */
static bool is_name(const struct table_place *place, const char *name, const char *known,
                    size_t length)
{
    return strncmp(name, known, length) == 0 &&
           (!name[length] ||
            (name[length] == '.' && text_equal(name + length + 1, place->network_name)));
}

static bool has_name(const struct table_place *place, const char *name)
{
    for (char **known = place->names; known && *known; known++) {
        if (is_name(place, name, *known, strlen(*known)))
            return true;
    }
    return false;
}

/* Whom the container calls so on this network; NULL: nobody. */
static const char *linked_as(const struct table_place *place, const char *name)
{
    for (char **link = place->links; link && *link; link++) {
        size_t length = strcspn(*link, "=");

        if (is_name(place, name, *link, length))
            return *link + length + 1;
    }
    return NULL;
}

static void add_addresses(const struct table_place *place, uint16_t type,
                          struct message_answer *answer)
{
    if (type == MESSAGE_A || type == MESSAGE_ANY)
        message_answer_add_a(answer, place->address);
    if ((type == MESSAGE_AAAA || type == MESSAGE_ANY) && place->has_address6)
        message_answer_add_aaaa(answer, &place->address6);
}

static bool has_address(const struct table_place *place, const struct in6_addr *address, bool ipv6)
{
    if (ipv6)
        return place->has_address6 && memcmp(&place->address6, address, sizeof(*address)) == 0;
    return memcmp(&place->address, address, sizeof(place->address)) == 0;
}

static bool answer_by_address(const struct table *table, const char *container,
                              const struct message_question *question,
                              struct message_answer *answer)
{
    struct in6_addr address;
    bool ipv6, found = false;

    if (!message_read_reverse(question->name, &address, &ipv6))
        return false;
    for (size_t i = 0; i < table->count && !found; i++) {
        const struct table_place *place = &table->places[i];

        found = has_address(place, &address, ipv6) && place->names &&
                is_on(table, container, place->network);
        if (found) {
            _cleanup_free_ char *name = xasprintf("%s.%s", place->names[0], place->network_name);

            message_answer_add_ptr(answer, name);
        }
    }
    return found;
}

static bool answer_on(const struct table *table, const char *network, const char *name,
                      uint16_t type, struct message_answer *answer)
{
    bool found = false;

    for (size_t i = 0; i < table->count; i++) {
        const struct table_place *place = &table->places[i];

        if (!text_equal(place->network, network) || !has_name(place, name))
            continue;
        add_addresses(place, type, answer);
        found = true;
    }
    return found;
}

/* Its own names for others come before those that all have. */
static bool answer_by_link(const struct table *table, const char *container,
                           const struct message_question *question, struct message_answer *answer)
{
    for (size_t i = 0; i < table->count; i++) {
        const struct table_place *own = &table->places[i];
        const char *name =
            text_equal(own->container, container) ? linked_as(own, question->name) : NULL;

        if (name && answer_on(table, own->network, name, question->type, answer))
            return true;
    }
    return false;
}

bool table_answer(const struct table *table, const char *container,
                  const struct message_question *question, struct message_answer *answer)
{
    bool found = false;

    if (!question->internet)
        return false;
    if (question->type == MESSAGE_PTR)
        return answer_by_address(table, container, question, answer);
    if (answer_by_link(table, container, question, answer))
        return true;
    for (size_t i = 0; i < table->count; i++) {
        const struct table_place *place = &table->places[i];

        if (!has_name(place, question->name) || !is_on(table, container, place->network))
            continue;
        add_addresses(place, question->type, answer);
        found = true;
    }
    return found;
}
