/*
 * Command line options: --name value, --name=value, -n value, flags; a single dash before a long
 * name is taken too, as Go's programs take it.
 */
#ifndef CLOCHE_RUNTIME_OPTIONS_H
#define CLOCHE_RUNTIME_OPTIONS_H

#include <stdbool.h>

#include <base/error.h>

struct option_spec {
    const char *name;
    char letter; /* 0: none */
    bool *flag;  /* one of these three is set */
    const char **value;
    char ***list;        /* owned by the caller; may be given several times */
    const char *refused; /* or: why it is refused */
};

/* Options up to the first other argument, or, when anywhere is set, also between and after the
 * others; "--" ends them. The remaining arguments are moved to the front of argv[1..]; their number
 * is returned. specs ends with an entry without name. */
int options_parse(const struct option_spec *specs, bool anywhere, int argc, char **argv,
                  struct error *err);

/* A number of an option. name for the message. */
int options_number(const char *name, const char *text, unsigned max, unsigned *ret,
                   struct error *err);

#endif
