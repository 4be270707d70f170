#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>

#include <base/alloc.h>
#include <base/text.h>
#include <rpc/server.h>
#include <schema/rpc.h>

#include "codec.h"
#include "fault.h"

/* As x-errors of management.json tells them apart. */
static const struct {
    int code;
    const char *word;
} words[] = {
    {RPC_PARSE_ERROR, "parseError"},
    {RPC_INVALID_REQUEST, "invalidRequest"},
    {RPC_METHOD_NOT_FOUND, "methodNotFound"},
    {RPC_INVALID_PARAMS, "invalidParams"},
    {RPC_INTERNAL_ERROR, "internalError"},
    {RPC_NOT_FOUND, "notFound"},
    {RPC_CONFLICT, "conflict"},
    {RPC_INVALID_ARGUMENT, "invalidArgument"},
    {RPC_PERMISSION_DENIED, "permissionDenied"},
    {RPC_NOT_SUPPORTED, "notSupported"},
    {RPC_PROGRAM_NOT_FOUND, "programNotFound"},
    {RPC_PROGRAM_NOT_EXECUTABLE, "programNotExecutable"},
    {RPC_NO_SUCH_IMAGE, "noSuchImage"},
    {RPC_UNAVAILABLE, "unavailable"},
    {RPC_DEADLINE_EXCEEDED, "deadlineExceeded"},
    {RPC_CANCELLED, "cancelled"},
    {RPC_TOO_MANY, "tooMany"},
};

const char *fault_word(int code)
{
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (words[i].code == code)
            return words[i].word;
    }
    return NULL;
}

int fault_errno(int code)
{
    switch (code) {
    case RPC_NOT_FOUND:
    case RPC_NO_SUCH_IMAGE:
    case RPC_PROGRAM_NOT_FOUND:
        return -ENOENT;
    case RPC_CONFLICT:
        return -EBUSY;
    case RPC_INVALID_ARGUMENT:
    case RPC_INVALID_PARAMS:
    case RPC_INVALID_REQUEST:
    case RPC_PARSE_ERROR:
        return -EINVAL;
    case RPC_PERMISSION_DENIED:
    case RPC_PROGRAM_NOT_EXECUTABLE:
        return -EACCES;
    case RPC_NOT_SUPPORTED:
    case RPC_METHOD_NOT_FOUND:
        return -EOPNOTSUPP;
    case RPC_UNAVAILABLE:
        return -EAGAIN;
    case RPC_DEADLINE_EXCEEDED:
        return -ETIMEDOUT;
    case RPC_CANCELLED:
        return -ECANCELED;
    case RPC_TOO_MANY:
        return -ENOBUFS;
    default:
        return -EIO;
    }
}

bool fault_is_refusal(int code)
{
    return code == RPC_UNAVAILABLE || code == RPC_TOO_MANY;
}

int fault_misread(struct error *err, const char *method)
{
    error_context(err, "%s: the answer", method);
    if (err)
        err->code = -EPROTO;
    return -EPROTO;
}

/* One line. */
static char *clean(char *text)
{
    return text_make_harmless(text, "");
}

void fault_details_finish(struct fault_details *details)
{
    free(details->what);
    free(details->where);
    *details = (struct fault_details){0};
}

static void take_details(const struct rpc_fault *fault, int code, struct fault_details *ret)
{
    const char *word = fault_word(code);

    fault_details_finish(ret);
    if (fault->data && fault->data->what)
        ret->what = clean(xstrdup(fault->data->what));
    else if (word)
        ret->what = xstrdup(word);
    if (fault->data && fault->data->where)
        ret->where = clean(xstrdup(fault->data->where));
}

/* The server's words, not ours: a message for a person was built where the failure was known. */
int fault_take(const struct rpc_codec *codec, const char *text, size_t length, int *ret_code,
               struct fault_details *ret_details, struct error *err)
{
    struct rpc_fault *fault;
    void *value;

    *ret_code = 0;
    int r = codec->read(&rpc_fault_type, text, length, &value, err);
    if (r < 0)
        return fault_misread(err, "the error");
    fault = value;
    *ret_code = fault->code ? fault->code : RPC_INTERNAL_ERROR;
    r = error_set(err, fault_errno(fault->code), "%s", clean(fault->message));
    if (fault->data && fault->data->hint)
        error_hint(err, "%s", clean(fault->data->hint));
    if (ret_details)
        take_details(fault, *ret_code, ret_details);
    rpc_fault_free(fault);
    return r;
}
