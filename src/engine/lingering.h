/*
 * Links of containers that have ended. A network namespace lives on while a connection in it has
 * not ended, though no process is left: the kernel says FIN until somebody answers, for up to two
 * minutes (tcp_orphan_retries of tcp(7)), and so long it answers for the address. Such a link is
 * deleted.
 */
#ifndef ENGINE_LINGERING_H
#define ENGINE_LINGERING_H

#include <netinet/in.h>

struct engine;

/* The container with this link and address has ended. Nothing is done for those, nearly all, whose
 * link goes within a few seconds by itself: deleting costs the kernel 20 to 30 ms. Also where a
 * container that shared the network lives on: the address is free. */
void lingering_add(struct engine *engine, const char *link, struct in_addr address);

/* Somebody is given the address: who had it before does not answer for it any more. Blocks for 20
 * to 30 ms where its link is still there. */
void lingering_give_way(struct engine *engine, struct in_addr address);

/* With the engine: what is left stays until the kernel is done with it. */
void lingering_end(struct engine *engine);

#endif
