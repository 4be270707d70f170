#ifndef CLOCHE_RUNTIME_SEAL_H
#define CLOCHE_RUNTIME_SEAL_H

#include <stdbool.h>

#include <base/error.h>

/* Executes this program again with argv, in a form that cannot be written to through /proc/PID/exe;
 * returns 0 when it already runs that way. For the commands that put a process into a container. */
int seal_program(char **argv, struct error *err);

#endif
