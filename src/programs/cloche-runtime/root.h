#ifndef CLOCHE_RUNTIME_ROOT_H
#define CLOCHE_RUNTIME_ROOT_H

#include <base/error.h>

/* The folder for the containers' state where --root is not given: RUNTIME_ROOT_DEFAULT for root,
 * $XDG_RUNTIME_DIR/cloche-runtime for everybody else (which is made, with the sticky bit against
 * cleaners). For root of a user namespace the second when the variable is set, unless $USER is
 * root, as runc has it. ret is owned by the caller. */
int root_default(char **ret, struct error *err);

#endif
