/*
 * Published ports as `ps` shows them.
 */
#ifndef CLOCHE_PORTS_H
#define CLOCHE_PORTS_H

#include <schema/management.h>

/* "0.0.0.0:9000->80/tcp, 8080/tcp"; neighbours that are published under their own number become
 * a range ("0.0.0.0:8000-8003->8000-8003/tcp"). Sorted by the container's port. Owned by the
 * caller. */
char *ports_text(struct api_port *const *ports, size_t count);

#endif
