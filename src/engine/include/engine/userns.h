/*
 * User namespaces of containers that do not say which they want, and where IDs for them are.
 */
#ifndef ENGINE_INCLUDE_USERNS_H
#define ENGINE_INCLUDE_USERNS_H

#include <engine/engine.h>
#include <schema/userns.h>

/* Taken over; NULL: none. For containers created from now on. Loop's thread. */
void engine_set_user_namespaces(struct engine *engine, struct userns_settings *settings);

#endif
