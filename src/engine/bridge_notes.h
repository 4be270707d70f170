/*
 * Bridges that a daemon has made or is about to delete, as empty files in the run folder's
 * "bridges". A network's record comes after its bridge and goes before it; a daemon that is killed
 * between them leaves a link that nothing else names. Both end with the machine's boot, as the
 * folder does.
 */
#ifndef ENGINE_BRIDGE_NOTES_H
#define ENGINE_BRIDGE_NOTES_H

#include "internal.h"

/* Before the bridge is made. Without a note it must not be. */
int bridge_note(const struct engine *engine, const char *bridge, struct error *err);
/* When the link is gone. On any thread. */
void bridge_note_remove(const struct engine *engine, const char *bridge);
/* When the records are loaded, before their bridges are brought up: deletes what no record has. */
void bridge_notes_sweep(struct engine *engine);

#endif
