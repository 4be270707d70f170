/*
 * The AppArmor profile that containers have when none is named: loaded by apparmor_parser when the
 * first container of this daemon needs it, since an earlier version's may be there, and again when
 * it has been unloaded since. Any thread.
 */
#ifndef ENGINE_APPARMOR_H
#define ENGINE_APPARMOR_H

#include <stdbool.h>

#include <base/error.h>
#include <schema/management.h>

#define APPARMOR_DEFAULT_PROFILE "cloche-default"

/* Whether the machine confines by AppArmor and this engine can load profiles, which root of a user
 * namespace cannot, as it was at the first call. */
bool apparmor_is_there(void);

/* *ret: the profile's name, a constant; NULL: the container goes without it, or it is not there.
 * Blocks until it is loaded; a failure is tried again by the next call. Processes that
 * run while it is unloaded are unconfined until they are started again. */
int apparmor_load_default(const struct api_container_spec *spec, const char **ret,
                          struct error *err);

#endif
