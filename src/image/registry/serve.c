#include <errno.h>

#include <image/serve.h>

#include "http.h"
#include "requests.h"
#include "worker.h"

static int serve(const struct image_worker_request *request, struct image_worker_result **ret,
                 struct error *err)
{
    if (!!request->pull + !!request->push + !!request->search + !!request->login +
            !!request->fetch + !!request->clone + !!request->describe !=
        1)
        return error_set(err, -EINVAL,
                         "the request must have one of pull, push, search, login, describe, fetch "
                         "and clone");
    if (request->clone)
        return registry_clone(request->clone, ret, err);
    http_initialize();
    if (request->pull)
        return registry_pull(request->pull, ret, err);
    if (request->push)
        return registry_push(request->push, ret, err);
    if (request->search)
        return registry_search(request->search, ret, err);
    if (request->describe)
        return registry_describe(request->describe, ret, err);
    if (request->fetch)
        return registry_fetch(request->fetch, ret, err);
    return registry_login(request->login, ret, err);
}

int image_serve_registry(void)
{
    return image_serve_requests(serve);
}
