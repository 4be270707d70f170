#include <errno.h>

#include <base/alloc.h>
#include <image/serve.h>

#include "worker.h"

static int serve_request(const struct image_worker_request *request,
                         struct image_worker_result **ret, struct error *err)
{
    if (request->load)
        return worker_load(request->load, ret, err);
    if (request->save) {
        *ret = xnew(struct image_worker_result);
        return worker_save(request->save, err);
    }
    if (request->verify)
        return worker_verify(request->verify, ret, err);
    return worker_commit(ret, err);
}

static int jail_for(const struct image_worker_request *request, struct error *err)
{
    const struct jail jail = {
        .has_staging = request->load || request->commit || request->verify,
        .has_source =
            request->save || request->commit || (request->verify && request->verify->compare),
    };

    if (!!request->load + !!request->save + !!request->commit + !!request->verify != 1)
        return error_set(err, -EINVAL,
                         "the request must have one of load, save, commit and verify");
    return jail_enter(&jail, err);
}

int image_serve(void)
{
    _cleanup_image_worker_request_ struct image_worker_request *request = NULL;
    _cleanup_image_worker_result_ struct image_worker_result *result = NULL;
    _cleanup_error_ struct error err = ERROR_INIT;
    int r = message_read_request(&request, &err);

    if (r == 0)
        r = jail_for(request, &err);
    if (r == 0)
        r = serve_request(request, &result, &err);
    r = r < 0 ? message_failure(&err) : message_result(result);
    return r < 0 || err.code ? 1 : 0;
}
