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
    if (request->pack)
        return worker_pack(request->pack, ret, err);
    if (request->place)
        return worker_place(request->place, ret, err);
    if (request->stat)
        return worker_stat(request->stat, ret, err);
    if (request->populate)
        return worker_populate(request->populate, ret, err);
    if (request->import)
        return worker_import(request->import, ret, err);
    if (request->context)
        return worker_context(request->context, ret, err);
    if (request->plan)
        return worker_plan(request->plan, ret, err);
    if (request->copy)
        return worker_copy(request->copy, ret, err);
    return worker_commit(request->commit, ret, err);
}

static const struct image_worker_tree *tree_of(const struct image_worker_request *request)
{
    if (request->pack)
        return request->pack->tree;
    if (request->place)
        return request->place->tree;
    if (request->stat)
        return request->stat->tree;
    return request->populate ? request->populate->tree : NULL;
}

static int count_members(const struct image_worker_request *request)
{
    return !!request->load + !!request->save + !!request->commit + !!request->pack +
           !!request->place + !!request->stat + !!request->populate + !!request->import +
           !!request->verify + !!request->context + !!request->plan + !!request->copy;
}

static int serve_archives(const struct image_worker_request *request,
                          struct image_worker_result **ret, struct error *err)
{
    const struct image_worker_copy *copy = request->copy;
    const struct jail jail = {
        .has_staging = request->load || request->commit || request->populate || request->import ||
                       request->verify || request->context || request->plan || copy,
        .has_source = request->save || request->commit ||
                      (request->verify && request->verify->compare) || (copy && copy->copy),
        .has_target = copy && !copy->probe,
        .tree = tree_of(request),
        .writes_tree = request->place,
    };

    if (count_members(request) != 1)
        return error_set(err, -EINVAL, "the request must ask for exactly one thing");
    int r = jail_enter(&jail, err);
    return r < 0 ? r : serve_request(request, ret, err);
}

int image_serve_requests(image_server server)
{
    _cleanup_image_worker_request_ struct image_worker_request *request = NULL;
    _cleanup_image_worker_result_ struct image_worker_result *result = NULL;
    _cleanup_error_ struct error err = ERROR_INIT;
    int r = message_read_request(&request, &err);

    if (r == 0)
        r = server(request, &result, &err);
    r = r < 0 ? message_failure(&err) : message_result(result);
    return r < 0 || err.code ? 1 : 0;
}

int image_serve(void)
{
    return image_serve_requests(serve_archives);
}
