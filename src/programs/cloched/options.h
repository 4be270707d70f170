/*
 * The command line of cloched.
 */
#ifndef CLOCHED_OPTIONS_H
#define CLOCHED_OPTIONS_H

#include <stdbool.h>

#include <base/log.h>

struct options {
    const char *instance; /* NULL: the default one */
    const char *root;     /* NULL: the instance's */
    const char *config;   /* NULL: the instance's */
    bool check_config;    /* do no more than that */
    enum log_level log_level;
    enum log_format log_format;
    int ready_fd; /* a '1' is written to it and it is closed when requests are answered; -1: none */
};

/* Returns 0 to go on, 1 when everything asked for was printed, -EINVAL after a complaint. */
int options_parse(int argc, char **argv, struct options *ret);

#endif
