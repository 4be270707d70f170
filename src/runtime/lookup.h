/*
 * Finding things by the files inside the root that the process already has.
 */
#ifndef RUNTIME_LOOKUP_H
#define RUNTIME_LOOKUP_H

#include <stdbool.h>
#include <stdint.h>

#include <base/error.h>

/* The path of the program args0: as it is when it holds a slash, else searched in the PATH of the
 * given environment. overrides: the program is executed with CAP_DAC_OVERRIDE. The texts are
 * runc's: podman, containerd and docker read exit codes 126 and 127 out of them. ret is owned by
 * the caller. */
int lookup_executable(const char *args0, char *const *environment, bool overrides, char **ret,
                      struct error *err);

/* Of -errno, in Go's words: callers compare them. */
const char *lookup_error_text(int code);

/* The home directory of uid in /etc/passwd, "/" when there is none. Owned by the caller. */
char *lookup_home(uint32_t uid);

/* The value of NAME in a list of NAME=value; NULL when absent. The last one counts. */
const char *lookup_environment(char *const *environment, const char *name);

#endif
