#include <errno.h>

#include <rpc/server.h>
#include <schema/rpc.h>

#include "fault.h"

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
    default:
        return -EIO;
    }
}

/* The server's words, not ours: a message for a person was built where the failure was known. */
int fault_take(const char *text, size_t length, int *ret_code, struct error *err)
{
    struct rpc_fault *fault;

    *ret_code = 0;
    int r = rpc_fault_parse(text, length, NULL, &fault, err);
    if (r < 0) {
        error_context(err, "the daemon's answer");
        return r;
    }
    *ret_code = fault->code;
    r = error_set(err, fault_errno(fault->code), "%s", fault->message);
    if (fault->data && fault->data->hint)
        error_hint(err, "%s", fault->data->hint);
    rpc_fault_free(fault);
    return r;
}
