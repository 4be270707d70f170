/* For jail.c: a jail in which programs of the machine are executed, as git and what it starts. */
#ifndef IMAGE_PROGRAMS_H
#define IMAGE_PROGRAMS_H

#include <base/error.h>

/* In the new root, while the machine's own is still "/": the machine's /usr and the
 * certificates of authorities, read only, /dev/null and /dev/urandom; /etc is there already.
 * Nothing of its configuration. */
int programs_attach(struct error *err);

/* What such programs call cannot be listed, so that this one forbids: what makes or enters
 * namespaces and mounts, looks into other processes, changes the kernel, and sockets that are not
 * of the Internet. */
int programs_filter(struct error *err);

#endif
