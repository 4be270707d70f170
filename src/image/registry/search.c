/*
 * Search: by /v1/search, as Docker Hub and a few others have it, else in the catalogue of the
 * registry (distribution: /v2/_catalog), whose names are looked through here.
 */
#include <curl/curl.h>
#include <errno.h>
#include <string.h>

#include <base/alloc.h>
#include <base/text.h>
#include <schema/registry_answers.h>

#include "requests.h"
#include "session.h"
#include "worker.h"

enum {
    ANSWER_MAX = 8 * 1024 * 1024,
    CATALOGUE_PAGE = 1000,
    CATALOGUE_PAGES_MAX = 200,
};

struct search {
    const struct image_worker_search *request;
    struct session session;
    struct http_lane *lane;
    struct image_worker_result *result;
};

static void add_found(struct search *search, const char *name, const struct answer_hit *hit)
{
    struct image_worker_result *result = search->result;
    struct image_worker_found *found = xnew(struct image_worker_found);

    found->name = xstrdup(name);
    if (hit) {
        found->description = xstrdup(hit->description);
        found->stars = hit->star_count;
        found->official = hit->is_official;
        found->automated = hit->is_automated;
    }
    found->has_stars = found->has_official = found->has_automated = hit != NULL;
    result->found = xrealloc(result->found, result->found_count + 1, sizeof(*result->found));
    result->found[result->found_count++] = found;
}

static bool is_full(const struct search *search)
{
    return search->result->found_count >= search->request->limit;
}

/* -ENOENT: it has no such interface. */
static int search_index(struct search *search, struct error *err)
{
    _cleanup_answer_hits_ struct answer_hits *hits = NULL;
    _cleanup_buffer_ struct buffer body = BUFFER_INIT;
    _cleanup_session_call_ struct session_call call = SESSION_CALL_INIT;
    char *term = curl_easy_escape(NULL, search->request->term, 0);
    _cleanup_free_ char *url =
        xasprintf("%s/v1/search?q=%s&n=%u", search->session.endpoint->given->url, term ? term : "",
                  search->request->limit);

    curl_free(term);
    call.request.url = url;
    call.request.accept = "application/json";
    call.missing_is_fine = true;
    call.what = "search";
    int r = session_fetch(&search->session, search->lane, &call, &body, ANSWER_MAX, err);
    if (r == 0 && call.response.status == 404)
        return -ENOENT;
    if (r == 0)
        r = answer_hits_parse(buffer_text(&body), body.length, "search", &hits, err);
    for (size_t i = 0; r == 0 && i < hits->results_count && !is_full(search); i++)
        if (!text_empty(hits->results[i]->name))
            add_found(search, hits->results[i]->name, hits->results[i]);
    return r;
}

static int read_page(struct search *search, char **url, struct error *err)
{
    _cleanup_answer_catalogue_ struct answer_catalogue *page = NULL;
    _cleanup_buffer_ struct buffer body = BUFFER_INIT;
    _cleanup_session_call_ struct session_call call = SESSION_CALL_INIT;

    call.request.url = *url;
    call.what = "catalogue";
    int r = session_fetch(&search->session, search->lane, &call, &body, ANSWER_MAX, err);
    if (r == 0)
        r = answer_catalogue_parse(buffer_text(&body), body.length, "catalogue", &page, err);
    for (size_t i = 0; r == 0 && i < page->repositories_count && !is_full(search); i++)
        if (strstr(page->repositories[i], search->request->term))
            add_found(search, page->repositories[i], NULL);
    char *next =
        r == 0 ? session_next_page(&search->session, call.response.link, "_catalog") : NULL;
    free(*url);
    *url = next;
    return r;
}

static int search_catalogue(struct search *search, struct error *err)
{
    _cleanup_free_ char *url = session_url(&search->session, "_catalog?n=%d", CATALOGUE_PAGE);
    int r = 0;

    for (int page = 0; r == 0 && url && !is_full(search) && page < CATALOGUE_PAGES_MAX; page++)
        r = read_page(search, &url, err);
    return r;
}

static int search_endpoint(struct search *search, const struct endpoint *endpoint,
                           struct error *err)
{
    session_use(&search->session, endpoint, "registry:catalog:*");
    search->lane = http_lane_create(&endpoint->settings);
    int r = search_index(search, err);
    if (r == -ENOENT)
        r = search_catalogue(search, err);
    http_lane_destroy(search->lane);
    return r;
}

static int search_any(struct search *search, struct error *err)
{
    for (size_t i = 0;; i++) {
        _cleanup_error_ struct error reason = ERROR_INIT;
        int r = search_endpoint(search, &search->session.endpoints[i], &reason);
        if (r == 0)
            return 0;
        if (!session_may_go_on(&search->session, r))
            return error_move(err, &reason);
    }
}

int registry_search(const struct image_worker_search *request, struct image_worker_result **ret,
                    struct error *err)
{
    const struct jail jail = {.has_network = true};
    struct search search = {.request = request, .result = xnew(struct image_worker_result)};
    int r = session_open(&search.session, request->registry, err);

    if (r == 0)
        r = jail_enter(&jail, err);
    if (r == 0)
        r = search_any(&search, err);
    session_close(&search.session);
    if (r < 0) {
        image_worker_result_free(search.result);
        return r;
    }
    *ret = search.result;
    return 0;
}
