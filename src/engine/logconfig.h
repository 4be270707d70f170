/*
 * The log's limits, from docker's log options. Pure.
 */
#ifndef ENGINE_LOGCONFIG_H
#define ENGINE_LOGCONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include <base/error.h>
#include <schema/management.h>

/* NULL is allowed everywhere: the defaults. */

int log_config_check(const struct api_log_config *config, struct error *err);
void log_config_warnings(const struct api_log_config *config, char ***warnings);

/* size: of one file, in bytes, 0: without limit. files: with the one in use. */
void log_config_limits(const struct api_log_config *config, uint64_t *ret_size,
                       uint32_t *ret_files);

/* Whether full files are packed. */
bool log_config_compresses(const struct api_log_config *config);

/* What the options labels and env show of the container: as k=v,k=v by name, each escaped as in a
 * query, which is docker's form. Owned by the caller, never NULL. */
char *log_config_attributes(const struct api_container_spec *spec);

/* Whether `logs` has something to read. */
bool log_config_readable(const struct api_log_config *config);

#endif
