/*
 * Error answers, as a client sees them.
 */
#ifndef RPC_FAULT_H
#define RPC_FAULT_H

#include <stddef.h>

#include <base/error.h>

/* The errno that fits a code of enum rpc_error; negative. */
int fault_errno(int code);
/* Reads the member "error" into err: message and hint are the server's words. Returns err's code;
 * *ret_code is the JSON-RPC code, 0 when it could not be read. */
int fault_take(const char *text, size_t length, int *ret_code, struct error *err);

#endif
