/*
 * How a word of `cloche rpc call` can go on, by what the running daemon says of its methods.
 */
#ifndef CLOCHE_RPC_COMPLETE_H
#define CLOCHE_RPC_COMPLETE_H

#include "cli.h"

/* Candidates, each with a tab and a description behind where there is one; owned. Never starts a
 * daemon: without one, the names of methods that we know ourselves are offered. socket may be NULL.
 */
char **rpc_complete_methods(struct cli *cli, const char *socket);

/* "name=" for each parameter of the method; "name=value" where typed has got as far as "name=" and
 * the values are few. */
char **rpc_complete_params(struct cli *cli, const char *socket, const char *method,
                           const char *typed);

#endif
