/*
 * --help, in one layout for all commands, written from their tables.
 */
#ifndef CLOCHE_HELP_H
#define CLOCHE_HELP_H

#include <base/buffer.h>

#include "commands.h"

void help_overview(struct buffer *out);
void help_command_group(const struct command_group *group, struct buffer *out);
void help_command(const struct spelling *spelling, struct buffer *out);

#endif
