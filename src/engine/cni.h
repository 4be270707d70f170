/*
 * Networks of the driver `cni`: containers' places on them are made and taken back by plug-ins,
 * which a child of the daemon calls (cni/cni.h).
 */
#ifndef ENGINE_CNI_H
#define ENGINE_CNI_H

#include "internal.h"

#define CNI_LIST_OPTION "conflist" /* of the network: file or name of the list */

typedef void (*cni_done)(const struct error *err, void *data);

/* Whether the list and its plug-ins are there; done comes later, not when this fails. */
int cni_look(struct engine *engine, const char *list, cni_done done, void *data, struct error *err);

/* Whether it holds places on such networks. */
bool cni_is_held(const struct container *container);
/* ADD for these, in the namespace. done comes later, not when this fails; the places have their
 * addresses then. dns is the caller's from then on (cni_dns_free()); NULL: nothing was said. */
typedef void (*cni_added)(const struct error *err, struct cni_dns *dns, void *data);
int cni_add(struct container *container, int netns_fd, cni_added done, void *data,
            struct error *err);

/* The same for one more place of a container that runs, which is held. */
int cni_connect(struct container *container, struct place *place, int netns_fd, cni_added done,
                void *data, struct error *err);
/* DEL for one place of a container that runs. done comes later, not when this fails. What fails
 * leaves the place attached; for the container's end that comes meanwhile it is logged. */
int cni_disconnect(struct container *container, struct place *place, cni_done done, void *data,
                   struct error *err);

/* Whether plug-ins have to be told that it ends. */
bool cni_is_attached(const struct container *container);
/* DEL for all its places; what fails is logged, and tried again at the container's next start and
 * by the next daemon. done (or NULL) comes in any case, perhaps during the call. */
void cni_leave(struct container *container, void (*done)(void *data), void *data);

/* The same for one place, and nobody waits for it. */
void cni_leave_place(struct container *container, struct place *place);

/* After an earlier daemon: DEL of what no container has that was adopted, CHECK of the others. */
void cni_settle(struct engine *engine);

/* A place's part of the record. */
void cni_write_place(const struct place *place, struct record_place *record);
void cni_restore_place(struct place *place, const struct record_place *record);

/* Whether a container's plug-ins have a port of the machine; data: the engine. */
bool cni_has_port(void *data, const struct net_publication *wanted);
/* A port of the machine that nobody has as far as can be seen, as net_publish() chooses it. */
int cni_choose_port(struct engine *engine, struct net_publication *publication, struct error *err);

#endif
