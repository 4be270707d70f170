/*
 * What `run` and `create` share: the options that describe a container, and the request they make.
 */
#ifndef CLOCHE_SPEC_H
#define CLOCHE_SPEC_H

#include <schema/management.h>

#include "options.h"

struct spec_options {
    bool interactive, tty, read_only;
    const char *name, *workdir, *user, *entrypoint, *hostname, *network, *stop_signal;
    char **env, **env_file, **volumes, **publish, **labels;
    uint64_t memory;    /* bytes */
    uint64_t nano_cpus; /* billionths of a CPU */
    struct option_number pids_limit, stop_timeout;
    bool remove;
};

extern const struct option spec_option_table[];

/* Builds the request from options and operands (image, command ...). Reads the files that
 * --env-file names. *ret is owned by the caller. */
int spec_build(const struct spec_options *options, char *const *operands,
               struct api_container_spec **ret, struct error *err);

/* ---- parts, for tests */

/* "[address:][hostPort[-last]:]containerPort[-last][/protocol]", as -p takes it; appends to
 * spec->ports, one entry a port. */
int spec_add_port(struct api_container_spec *spec, const char *text, struct error *err);

/* "/host:/container[:options]"; appends to spec->binds. A source that begins with "." is taken
 * from the working directory. */
int spec_add_bind(struct api_container_spec *spec, const char *text, struct error *err);

/* "NAME=value", or "NAME": taken from our environment, left out when it is not there. */
void spec_add_env(char ***list, const char *text);

/* The lines of a file as docker's --env-file has them: blanks in front dropped, empty lines and
 * those that begin with # skipped. */
int spec_add_env_file(char ***list, const char *path, struct error *err);

/* "1.5" -> 1500000000: at most nine digits behind the point. */
int spec_parse_cpus(const char *text, void *value, struct error *err);

#endif
