/*
 * The process that exec is to run: from the command line, or from a file.
 */
#ifndef RUNTIME_EXEC_PROCESS_H
#define RUNTIME_EXEC_PROCESS_H

#include <cloche/runtime.h>
#include <schema/oci_config.h>

#include <base/error.h>

/* config: as the container was created; what the new process has of the container's own process is
 * moved out of it. ret is owned by the caller and not checked yet (config_check_process). */
int exec_process_read(const struct cloche_runtime_exec_options *options, struct oci_config *config,
                      struct oci_process **ret, struct error *err);

#endif
