/*
 * The child of the daemon that calls plug-ins:
 *
 *     read_request       from the daemon, bounded
 *     add                what an earlier life of the container left goes; the list is found; each
 *                        attachment is on disk before its chain begins; all of them or none
 *     connect            one more attachment of a container that runs
 *     settle             DEL of what nobody has, CHECK of what runs
 *     look               whether a list is there with all its plug-ins
 *     write_answer
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>

#include "internal.h"

enum { REQUEST_BYTES_MAX = 16 * 1024 * 1024 };

static void warn(struct cni_answer *answer, const struct error *err)
{
    strv_append(&answer->warnings, error_message(err));
    answer->warnings_count++;
}

/* --- DEL -------------------------------------------------------------------------------------- */

static int remove_one(const struct cni_request *request, const struct cni_attachment *attachment,
                      struct error *err)
{
    _cleanup_free_ char *path = namespace_path(request, attachment->container);
    const char *netns = namespace_is_bound(path) ? path : "";
    int r = chain_remove(request, attachment, netns, err);

    return r < 0 ? r : attachment_delete(request, attachment, err);
}

/* What is gone already is no error. The container is locked. */
static int remove_named(const struct cni_request *request, const char *name, struct error *err)
{
    _cleanup_cni_attachment_ struct cni_attachment *attachment = NULL;
    int r = attachment_read(request, name, &attachment, err);

    if (r == -ENOENT) {
        error_finish(err);
        *err = (struct error)ERROR_INIT;
        return 0;
    }
    return r < 0 ? r : remove_one(request, attachment, err);
}

static char *container_of(const char *name)
{
    return xstrndup(name, CNI_ID_DIGITS);
}

/* Nobody needs the path any more. */
static void unbind_unused(const struct cni_request *request, const char *container)
{
    _cleanup_strv_ char **left = attachment_list(request, container);

    if (!left)
        namespace_unbind(request, container);
}

static void settle_removal(const struct cni_request *request, const char *name,
                           struct cni_answer *answer)
{
    _cleanup_free_ char *container = container_of(name);
    _cleanup_error_ struct error err = ERROR_INIT;
    _cleanup_close_ int lock = -1;
    int r = attachment_lock(request, container, &lock, &err);

    if (r == 0)
        r = remove_named(request, name, &err);
    if (r < 0)
        warn(answer, &err);
    if (lock >= 0)
        unbind_unused(request, container);
}

/* --- ADD -------------------------------------------------------------------------------------- */

static int find_list(const struct cni_request *request, struct cni_attachment *attachment,
                     struct error *err)
{
    _cleanup_cni_list_ struct cni_list *list = NULL;
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;
    int r = list_find(request, attachment->wanted ? attachment->wanted : attachment->network, &list,
                      err);

    if (r < 0)
        return error_context(err, "network %s", attachment->network), r;
    if (attachment->ports_wanted && !list_is_capable(list, "portMappings")) {
        error_set(err, -EINVAL,
                  "network %s: no plug-in of its list has the capability portMappings: ports "
                  "cannot be published",
                  attachment->network);
        return error_hint(err, "add the plug-in portmap to the list"), -EINVAL;
    }
    cni_list_write(list, &text);
    attachment->list = buffer_steal(&text);
    attachment->version = CNI_ATTACHMENT_VERSION;
    return 0;
}

static bool has_address(const struct cni_result *result, const char *wanted)
{
    const size_t length = strcspn(wanted, "/");
    _cleanup_free_ char *bare = xstrndup(wanted, length);
    struct in6_addr own = {0};
    const int family = strchr(bare, ':') ? AF_INET6 : AF_INET;

    inet_pton(family, bare, &own);
    for (size_t i = 0; i < result->ips_count; i++) {
        const char *text = result->ips[i]->address;
        _cleanup_free_ char *its = xstrndup(text, strcspn(text, "/"));
        struct in6_addr other = {0};

        if (inet_pton(family, its, &other) == 1 && memcmp(&own, &other, sizeof(own)) == 0)
            return true;
    }
    return false;
}

/* A plug-in that does not know what it is asked for says nothing. */
static int check_wishes(const struct cni_attachment *attachment, const struct cni_result *result,
                        struct error *err)
{
    const struct cni_runtime_config *wanted = attachment->runtime_config;

    for (size_t i = 0; wanted && i < wanted->ips_count; i++) {
        if (!has_address(result, wanted->ips[i]))
            return error_set(err, -EINVAL, "network %s: its plug-ins did not give the address %s",
                             attachment->network, wanted->ips[i]);
    }
    return 0;
}

static int read_result(const struct cni_attachment *attachment, struct cni_result **ret,
                       struct error *err)
{
    const char *text = attachment->result ? attachment->result : "{}";

    return cni_result_parse(text, strlen(text), "result", ret, err);
}

static int add_one(const struct cni_request *request, struct cni_attachment *attachment,
                   const char *netns, struct cni_result **ret, struct error *err)
{
    struct cni_addresses addresses;
    int r = attachment_write(request, attachment, err);

    if (r == 0)
        r = chain_add(request, attachment, netns, err);
    if (r == 0)
        r = attachment_write(request, attachment, err);
    if (r == 0)
        r = read_result(attachment, ret, err);
    if (r == 0)
        r = cni_result_read(*ret, attachment->link, &addresses, err);
    return r == 0 ? check_wishes(attachment, *ret, err) : r;
}

static void take_back(const struct cni_request *request, size_t count, struct cni_answer *answer)
{
    while (count > 0) {
        _cleanup_error_ struct error err = ERROR_INIT;

        if (remove_one(request, request->attachments[--count], &err) < 0)
            warn(answer, &err);
    }
}

/* An earlier daemon may have died, or DEL failed. */
static void remove_earlier(const struct cni_request *request, const char *container,
                           struct cni_answer *answer)
{
    _cleanup_strv_ char **names = attachment_list(request, container);

    for (char **name = names; name && *name; name++) {
        _cleanup_error_ struct error err = ERROR_INIT;

        if (remove_named(request, *name, &err) < 0)
            warn(answer, &err);
    }
}

static int add(const struct cni_request *request, struct cni_answer *answer, struct error *err)
{
    if (request->attachments_count == 0)
        return error_set(err, -EINVAL, "no attachment");
    const char *container = request->attachments[0]->container;
    _cleanup_free_ char *netns = namespace_path(request, container);
    _cleanup_close_ int lock = -1;
    size_t tried = 0;
    int r = 0;

    for (size_t i = 0; r == 0 && i < request->attachments_count; i++)
        r = find_list(request, request->attachments[i], err);
    if (r == 0)
        r = attachment_lock(request, container, &lock, err);
    if (r < 0)
        return r;
    remove_earlier(request, container, answer);
    r = namespace_bind(request, container, CNI_NAMESPACE_FD, err);
    answer->results = xnew_array(struct cni_result *, request->attachments_count + 1);
    for (; r == 0 && tried < request->attachments_count; tried++) {
        r = add_one(request, request->attachments[tried], netns, &answer->results[tried], err);
        answer->results_count += answer->results[tried] != NULL;
    }
    if (r < 0) {
        take_back(request, tried, answer);
        unbind_unused(request, container);
    }
    return r;
}

/* Others of it stay what they are, unless they are of an earlier life. */
static int connect_one(const struct cni_request *request, struct cni_answer *answer,
                       struct error *err)
{
    if (request->attachments_count != 1)
        return error_set(err, -EINVAL, "not one attachment");
    struct cni_attachment *attachment = request->attachments[0];
    _cleanup_free_ char *netns = namespace_path(request, attachment->container);
    _cleanup_close_ int lock = -1;
    int r = find_list(request, attachment, err);

    if (r == 0)
        r = attachment_lock(request, attachment->container, &lock, err);
    if (r == 0 && !namespace_is_same(netns, CNI_NAMESPACE_FD)) {
        remove_earlier(request, attachment->container, answer);
        r = namespace_bind(request, attachment->container, CNI_NAMESPACE_FD, err);
    }
    if (r < 0)
        return r;
    answer->results = xnew_array(struct cni_result *, 2);
    r = add_one(request, attachment, netns, &answer->results[0], err);
    answer->results_count = answer->results[0] != NULL;
    if (r < 0) {
        take_back(request, 1, answer);
        unbind_unused(request, attachment->container);
    }
    return r;
}

/* --- settle, look ----------------------------------------------------------------------------- */

static void settle_check(const struct cni_request *request, const char *name,
                         struct cni_answer *answer)
{
    _cleanup_cni_attachment_ struct cni_attachment *attachment = NULL;
    _cleanup_free_ char *container = container_of(name);
    _cleanup_free_ char *netns = namespace_path(request, container);
    _cleanup_error_ struct error err = ERROR_INIT;
    _cleanup_close_ int lock = -1;
    int r = attachment_lock(request, container, &lock, &err);

    if (r == 0)
        r = attachment_read(request, name, &attachment, &err);
    if (r == 0 && namespace_is_bound(netns))
        r = chain_check(request, attachment, netns, &err);
    if (r < 0 && r != -ENOENT)
        warn(answer, &err);
}

static int settle(const struct cni_request *request, struct cni_answer *answer)
{
    for (size_t i = 0; i < request->remove_count; i++) {
        if (cni_is_attachment_name(request->remove[i]))
            settle_removal(request, request->remove[i], answer);
    }
    for (size_t i = 0; i < request->check_count; i++) {
        if (cni_is_attachment_name(request->check[i]))
            settle_check(request, request->check[i], answer);
    }
    return 0;
}

static int look(const struct cni_request *request, struct error *err)
{
    _cleanup_cni_list_ struct cni_list *list = NULL;
    int r = request->attachments_count == 1 ? 0 : error_set(err, -EINVAL, "no attachment");

    if (r == 0)
        r = list_find(request, request->attachments[0]->wanted, &list, err);
    for (size_t i = 0; r == 0 && i < list->plugins_count; i++) {
        _cleanup_cni_plugin_ struct cni_plugin *plugin = NULL;
        _cleanup_free_ char *path = NULL;

        r = cni_plugin_parse(list->plugins[i], strlen(list->plugins[i]), "plug-in", &plugin, err);
        if (r == 0)
            r = list_find_plugin(request, plugin->type, &path, err);
    }
    return r;
}

/* --- all of it -------------------------------------------------------------------------------- */

static int read_request(struct cni_request **ret, struct error *err)
{
    _cleanup_free_ char *text = NULL;
    size_t length = 0;
    int r = file_read_fd(STDIN_FILENO, REQUEST_BYTES_MAX, &text, &length, err);

    return r < 0 ? r : cni_request_parse(text, length, "request", ret, err);
}

static int carry_out(const struct cni_request *request, struct cni_answer *answer,
                     struct error *err)
{
    if (text_equal(request->command, "add"))
        return add(request, answer, err);
    if (text_equal(request->command, "connect"))
        return connect_one(request, answer, err);
    return text_equal(request->command, "look") ? look(request, err) : settle(request, answer);
}

int cni_child(void)
{
    _cleanup_cni_answer_ struct cni_answer *answer = xnew(struct cni_answer);
    _cleanup_cni_request_ struct cni_request *request = NULL;
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;
    _cleanup_error_ struct error err = ERROR_INIT;

    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_CHILD_SUBREAPER, 1); /* plugin.c */
    fcntl(CNI_NAMESPACE_FD, F_SETFD, FD_CLOEXEC);
    int r = read_request(&request, &err);
    if (r == 0)
        r = carry_out(request, answer, &err);
    if (r < 0) {
        answer->error = xstrdup(error_message(&err));
        answer->hint = xstrdup(err.hint);
        answer->code = r;
        answer->has_code = true;
    }
    cni_answer_write(answer, &text);
    return file_write_all(STDOUT_FILENO, text.data, text.length) < 0 ? 1 : 0;
}
