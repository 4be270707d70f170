/*
 * Error answers, as a client sees them.
 */
#ifndef RPC_FAULT_H
#define RPC_FAULT_H

#include <stdbool.h>
#include <stddef.h>

#include <base/error.h>

struct rpc_codec;

/* What a program can go by; both owned, NULL: not told. */
struct fault_details {
    char *what, *where;
};

void fault_details_finish(struct fault_details *details);
#define _cleanup_fault_details_ _cleanup_(fault_details_finish)

/* The errno that fits a code of enum rpc_error; negative. */
int fault_errno(int code);
/* The code in a word: "notFound" ...; NULL: a method's own code. */
const char *fault_word(int code);
/* Whether a server that answers so has done nothing, so that the call may go to another one. */
bool fault_is_refusal(int code);
/* Reads the member "error" into err: message and hint are the server's words, each on one line and
 * without control characters. Returns err's code; *ret_code is the JSON-RPC code, 0 only when it
 * could not be read, which is -EPROTO. *ret_details is replaced; NULL: not wanted. */
int fault_take(const struct rpc_codec *codec, const char *text, size_t length, int *ret_code,
               struct fault_details *ret_details, struct error *err);
/* err says why an answer to the method could not be read: it becomes -EPROTO. */
int fault_misread(struct error *err, const char *method);

#endif
