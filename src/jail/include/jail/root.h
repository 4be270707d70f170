/* The last step of every jail's file system. */
#ifndef JAIL_ROOT_H
#define JAIL_ROOT_H

#include <base/error.h>

/* Makes the current folder, which is a mount of its own in a mount namespace of the caller's with
 * private mounts, the root, takes the old one off, and makes it read-only, without devices,
 * programs and set-user-ID files. The current folder is then "/". */
int jail_change_root(struct error *err);

#endif
