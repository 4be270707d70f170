/*
 * Published ports of a container, for those who change them while it runs.
 */
#ifndef ENGINE_PORTS_H
#define ENGINE_PORTS_H

#include "internal.h"

enum net_protocol ports_protocol(const char *name); /* NULL: TCP */
const char *ports_protocol_name(enum net_protocol protocol);

struct exposed_range {
    uint16_t first, last;
    const char *protocol; /* static */
};
/* "80", "8000-8010/udp". */
int ports_parse_exposed(const char *text, struct exposed_range *ret, struct error *err);

/* Whether a port of the container is to be published under some number. */
bool ports_wants(const struct container *container, const struct api_port *port);

/* Whether ports_unpublish() or ports_want_no_more() would find something. */
bool ports_has(const struct container *container, const struct api_port *which);

/* For this start and later ones, in the record, which is not committed by this. */
void ports_want(struct container *container, const struct api_port *port);
bool ports_want_no_more(struct container *container, const struct api_port *which);

/* Now; the container holds a place. */
int ports_publish_one(struct container *container, const struct api_port *port, struct error *err);
bool ports_unpublish(struct container *container, const struct api_port *which);

#endif
