/*
 * Parameters of a call as people type them:
 *
 *     name=web          by the schema: a number, true or false, else text
 *     memory:=1048576   JSON, whatever the schema says
 *     a.b=x             a member of an object
 *     command[]=sh      one more element of an array; command[0]=sh: that one
 *     config=@file      the text of a file; config:=@file: JSON of a file; @- is standard input
 *     -                 an object on standard input; words replace its members
 *
 * A backslash takes its meaning from the "." or "[" of a name. Members of objects that may have any
 * (labels) go up to the end of the name, with all points in it.
 */
#ifndef CLOCHE_RPC_PARAMS_H
#define CLOCHE_RPC_PARAMS_H

#include "rpc_document.h"

/* Appends a JSON object. method: of the document; NULL: nothing is known of it, and values that are
 * JSON numbers, true, false or null are taken as such. name: of the method, for messages. */
int rpc_params_build(const struct rpc_document *document, yajl_val method, const char *name,
                     char *const *words, struct buffer *out, struct error *err);

#endif
