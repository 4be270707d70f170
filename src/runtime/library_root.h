#ifndef RUNTIME_LIBRARY_ROOT_H
#define RUNTIME_LIBRARY_ROOT_H

#include <base/error.h>

/* The folder for the containers' state where none is given: CLOCHE_RUNTIME_ROOT for root,
 * $XDG_RUNTIME_DIR/cloche-runtime for everybody else (which is made, with the sticky bit against
 * cleaners). For root of a user namespace the second when the variable is set, unless $USER is
 * root, as runc has it. ret is owned by the caller. */
int library_root_default(char **ret, struct error *err);

#endif
