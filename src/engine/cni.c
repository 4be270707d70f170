#include "cni.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/log.h>
#include <base/loop.h>
#include <base/text.h>

#include "cni_child.h"
#include "nameserver.h"
#include "ports.h"

/* --- look ------------------------------------------------------------------------------------- */

struct look_call {
    cni_done done;
    void *data;
};

static void on_looked(const struct error *err, const struct cni_answer *answer, void *data)
{
    struct look_call *call = data;

    call->done(err, call->data);
    free(call);
}

int cni_look(struct engine *engine, const char *list, cni_done done, void *data, struct error *err)
{
    struct cni_attachment attachment = {
        .version = CNI_ATTACHMENT_VERSION,
        .container = (char *)"",
        .endpoint = (char *)"",
        .network = (char *)"",
        .link = (char *)"",
        .wanted = (char *)list,
    };
    struct cni_attachment *attachments[] = {&attachment, NULL};
    struct cni_request request = {
        .command = (char *)"look", .attachments = attachments, .attachments_count = 1};
    struct look_call *call = xnew(struct look_call);

    *call = (struct look_call){done, data};
    int r = cni_run_child(engine, &request, -1, on_looked, call, err);
    if (r < 0)
        free(call);
    return r;
}

/* --- ADD -------------------------------------------------------------------------------------- */

struct add_call {
    struct container *container; /* a reference */
    cni_added done;
    void *data;
};

bool cni_is_held(const struct container *container)
{
    for (size_t i = 0; i < container->places_count; i++) {
        const struct place *place = container->places[i];

        if (place->held && place->network && place->network->kind == NETWORK_CNI)
            return true;
    }
    return false;
}

static void add_ports(const struct container *container, struct cni_runtime_config *config)
{
    config->port_mappings =
        xnew_array(struct cni_port_mapping *, container->publications_count + 1);
    for (size_t i = 0; i < container->publications_count; i++) {
        const struct net_publication *publication = &container->publications[i];
        struct cni_port_mapping *mapping = xnew(struct cni_port_mapping);
        char text[NET_IP_TEXT];

        mapping->host_port = publication->host_port;
        mapping->container_port = publication->container_port;
        mapping->protocol = xstrdup(ports_protocol_name(publication->protocol));
        if (!net_ip_is_any(&publication->host_address))
            mapping->host_ip = xstrdup(net_ip_format(&publication->host_address, text));
        config->port_mappings[config->port_mappings_count++] = mapping;
    }
}

static void add_dns(const struct api_container_spec *spec, struct cni_runtime_config *config)
{
    if (spec->dns_count + spec->dns_search_count + spec->dns_options_count == 0)
        return;
    config->dns = xnew(struct cni_capability_dns);
    config->dns->servers = strv_copy(spec->dns);
    config->dns->servers_count = spec->dns_count;
    config->dns->searches = strv_copy(spec->dns_search);
    config->dns->searches_count = spec->dns_search_count;
    config->dns->options = strv_copy(spec->dns_options);
    config->dns->options_count = spec->dns_options_count;
}

static void add_address(struct cni_runtime_config *config, const char *address)
{
    if (text_empty(address))
        return;
    strv_append(&config->ips, address);
    config->ips_count++;
}

static struct cni_attachment *attachment_of(const struct container *container,
                                            const struct place *place)
{
    struct cni_attachment *attachment = xnew(struct cni_attachment);
    struct cni_runtime_config *config = xnew(struct cni_runtime_config);
    const struct record_stored_network *record = place->network->record;
    const char *wanted = json_string_map_get(record->options, CNI_LIST_OPTION);

    attachment->version = CNI_ATTACHMENT_VERSION;
    attachment->container = xstrdup(container->id);
    attachment->endpoint = xstrdup(place->endpoint_id);
    attachment->network = xstrdup(record->name);
    attachment->wanted = xstrdup(wanted ? wanted : record->name);
    attachment->link = xstrdup(place->interface.name);
    attachment->runtime_config = config;
    config->aliases = place_names(container, place);
    config->aliases_count = strv_length(config->aliases);
    add_address(config, place->wanted->ipv4_address);
    add_address(config, place->wanted->ipv6_address);
    if (!text_empty(place->wanted->mac_address))
        config->mac = xstrdup(place->wanted->mac_address);
    add_dns(container->effective, config);
    if (place == places_main(container) && container->publications_count > 0) {
        add_ports(container, config);
        attachment->ports_wanted = attachment->has_ports_wanted = true;
    }
    return attachment;
}

/* NULL after the last one. */
static struct place *next_held(const struct container *container, size_t *index)
{
    while (*index < container->places_count) {
        struct place *place = container->places[(*index)++];

        if (place->held && place->network && place->network->kind == NETWORK_CNI)
            return place;
    }
    return NULL;
}

static int take_result(struct place *place, struct cni_result *result, struct cni_dns **ret_dns,
                       struct error *err)
{
    int r = cni_result_read(result, place->interface.name, &place->found, err);

    place->interface.address = place->found.address;
    place->interface.address6 = place->found.address6;
    memcpy(place->interface.mac, place->found.mac, sizeof(place->found.mac));
    if (!*ret_dns && result->dns)
        *ret_dns = steal_ptr(result->dns);
    if (r == 0 && place->found.has_name_servers && place->wanted->links_count > 0)
        r = error_set(err, -EINVAL,
                      "network %s: its plug-ins name a name server, which knows no links",
                      place->network->record->name);
    return r;
}

static int take_results(struct container *container, const struct cni_answer *answer,
                        struct cni_dns **ret_dns, struct error *err)
{
    struct place *place;
    size_t index = 0, count = 0;
    int r = 0;

    while (r == 0 && (place = next_held(container, &index)) && count < answer->results_count)
        r = take_result(place, answer->results[count++], ret_dns, err);
    return r;
}

static void on_added(const struct error *err, const struct cni_answer *answer, void *data)
{
    struct add_call *call = data;
    _cleanup_error_ struct error own = ERROR_INIT;
    struct cni_dns *dns = NULL;
    struct place *place;
    size_t index = 0;

    if (!err)
        engine_settle(&own, take_results(call->container, answer, &dns, &own));
    /* The child has taken back what it did. */
    while (err && answer && (place = next_held(call->container, &index)))
        place->attached = false;
    call->done(err ? err : (own.code ? &own : NULL), dns, call->data);
    container_unref(call->container);
    free(call);
}

int cni_add(struct container *container, int netns_fd, cni_added done, void *data,
            struct error *err)
{
    _cleanup_cni_request_ struct cni_request *request = xnew(struct cni_request);
    struct add_call *call = xnew(struct add_call);
    struct cni_request plain = {0};
    struct place *place;
    size_t index = 0;

    request->attachments = xnew_array(struct cni_attachment *, container->places_count + 1);
    while ((place = next_held(container, &index))) {
        request->attachments[request->attachments_count++] = attachment_of(container, place);
        place->attached = true;
    }
    *call = (struct add_call){container_ref(container), done, data};
    plain.command = (char *)"add";
    plain.attachments = request->attachments;
    plain.attachments_count = request->attachments_count;
    int r = cni_run_child(container->engine, &plain, netns_fd, on_added, call, err);
    if (r < 0) {
        container_unref(container);
        free(call);
    }
    return r;
}

/* --- DEL -------------------------------------------------------------------------------------- */

struct leave_call {
    void (*done)(void *data);
    void *data;
};

bool cni_is_attached(const struct container *container)
{
    for (size_t i = 0; i < container->places_count; i++) {
        if (container->places[i]->attached)
            return true;
    }
    return false;
}

static void leave_done(struct leave_call *call)
{
    if (call->done)
        call->done(call->data);
    free(call);
}

static void on_left(const struct error *err, const struct cni_answer *answer, void *data)
{
    if (err)
        log_failure(LOG_WARNING, err, "a network of plug-ins is not taken back");
    leave_done(data);
}

/* Takes over the names. */
static void leave_names(struct container *container, char **names, struct leave_call *call)
{
    struct cni_request request = {
        .command = (char *)"settle", .remove = names, .remove_count = strv_length(names)};
    _cleanup_error_ struct error err = ERROR_INIT;

    if (cni_run_child(container->engine, &request, -1, on_left, call, &err) < 0) {
        log_failure(LOG_WARNING, &err, "networks of %.12s are not taken back", container->id);
        leave_done(call);
    }
    strv_free(names);
}

static void take_name(const struct container *container, struct place *place, char ***names)
{
    if (place->attached)
        strv_take(names, cni_attachment_name(container->id, place->endpoint_id));
    place->attached = false;
}

void cni_leave(struct container *container, void (*done)(void *data), void *data)
{
    struct leave_call *call = xnew(struct leave_call);
    char **names = NULL;

    *call = (struct leave_call){done, data};
    for (size_t i = 0; i < container->places_count; i++)
        take_name(container, container->places[i], &names);
    leave_names(container, names, call);
}

void cni_leave_place(struct container *container, struct place *place)
{
    char **names = NULL;

    take_name(container, place, &names);
    leave_names(container, names, xnew(struct leave_call));
}

/* --- one place of a container that runs ------------------------------------------------------- */

struct place_call {
    struct container *container; /* a reference; its operation keeps the place */
    struct place *place;
    char *name; /* owned; of the attachment: the place forgets it when it is released */
    cni_added added;
    cni_done left;
    void *data;
};

static struct place_call *place_call_new(struct container *container, struct place *place,
                                         void *data)
{
    struct place_call *call = xnew(struct place_call);

    call->container = container_ref(container);
    call->place = place;
    call->name = cni_attachment_name(container->id, place->endpoint_id);
    call->data = data;
    return call;
}

static void place_call_free(struct place_call *call)
{
    container_unref(call->container);
    free(call->name);
    free(call);
}

/* The container may have ended meanwhile, whose DEL may have come before this ADD. */
static void on_place_added(const struct error *err, const struct cni_answer *answer, void *data)
{
    struct place_call *call = data;
    struct place *place = call->place;
    _cleanup_error_ struct error own = ERROR_INIT;
    struct cni_dns *dns = NULL;
    int r = 0;

    if (!err && !place->attached) {
        char **names = NULL;

        strv_append(&names, call->name);
        leave_names(call->container, names, xnew(struct leave_call));
        r = error_set(&own, -EIO, "the container ended while it was connected");
    } else if (!err && answer->results_count == 1) {
        r = take_result(place, answer->results[0], &dns, &own);
    } else if (!err) {
        r = error_set(&own, -EBADMSG, "the plug-ins gave no result");
    }
    engine_settle(&own, r);
    if (err) /* the child has taken back what it did */
        place->attached = false;
    call->added(err ? err : (own.code ? &own : NULL), dns, call->data);
    place_call_free(call);
}

int cni_connect(struct container *container, struct place *place, int netns_fd, cni_added done,
                void *data, struct error *err)
{
    struct cni_attachment *attachments[] = {attachment_of(container, place), NULL};
    struct cni_request request = {
        .command = (char *)"connect", .attachments = attachments, .attachments_count = 1};
    struct place_call *call = place_call_new(container, place, data);

    call->added = done;
    place->attached = true;
    int r = cni_run_child(container->engine, &request, netns_fd, on_place_added, call, err);
    cni_attachment_free(attachments[0]);
    if (r < 0) {
        place->attached = false;
        place_call_free(call);
    }
    return r;
}

static void on_place_left(const struct error *err, const struct cni_answer *answer, void *data)
{
    struct place_call *call = data;
    _cleanup_error_ struct error own = ERROR_INIT;

    if (!err && answer->warnings_count > 0)
        error_set(&own, -EIO, "%s", answer->warnings[0]);
    const struct error *failed = err ? err : (own.code ? &own : NULL);
    call->place->attached = failed && call->place->held;
    call->left(failed, call->data);
    place_call_free(call);
}

int cni_disconnect(struct container *container, struct place *place, cni_done done, void *data,
                   struct error *err)
{
    struct place_call *call = place_call_new(container, place, data);
    char *names[] = {call->name, NULL};
    struct cni_request request = {.command = (char *)"settle", .remove = names, .remove_count = 1};

    call->left = done;
    int r = cni_run_child(container->engine, &request, -1, on_place_left, call, err);
    if (r < 0)
        place_call_free(call);
    else
        place->attached = false;
    return r;
}

/* --- after a restart -------------------------------------------------------------------------- */

static bool is_somebodys(const struct engine *engine, const char *name)
{
    for (size_t i = 0; i < engine->containers_count; i++) {
        const struct container *container = engine->containers[i];

        if (!text_starts_with(name, container->id))
            continue;
        for (size_t j = 0; j < container->places_count; j++) {
            const struct place *place = container->places[j];

            if (place->attached && text_equal(place->endpoint_id, name + CNI_ID_DIGITS + 1))
                return true;
        }
    }
    return false;
}

static void on_settled(const struct error *err, const struct cni_answer *answer, void *data)
{
    if (err)
        log_failure(LOG_WARNING, err, "networks of plug-ins are not settled");
}

void cni_settle(struct engine *engine)
{
    _cleanup_free_ char *folder = cni_folder(engine);
    _cleanup_closedir_ DIR *dir = opendir(folder);
    struct cni_request request = {.command = (char *)"settle"};
    _cleanup_error_ struct error err = ERROR_INIT;
    struct dirent *entry;

    while (dir && (entry = readdir(dir))) {
        if (!cni_is_attachment_name(entry->d_name))
            continue;
        if (is_somebodys(engine, entry->d_name)) {
            strv_append(&request.check, entry->d_name);
            request.check_count++;
        } else {
            strv_append(&request.remove, entry->d_name);
            request.remove_count++;
        }
    }
    if (request.check_count + request.remove_count > 0 &&
        cni_run_child(engine, &request, -1, on_settled, NULL, &err) < 0)
        log_failure(LOG_WARNING, &err, "networks of plug-ins are not settled");
    strv_free(request.check);
    strv_free(request.remove);
}

/* --- the record ------------------------------------------------------------------------------- */

void cni_write_place(const struct place *place, struct record_place *record)
{
    const struct cni_addresses *found = &place->found;
    const struct net_ip gateway6 = net_ip_v6(found->gateway6);
    char text[NET_IP_TEXT];

    if (found->prefix) {
        record->prefix_length = found->prefix;
        record->has_prefix_length = true;
        record->gateway = xstrdup(net_address_format(found->gateway, text));
    }
    if (found->prefix6) {
        record->prefix_length6 = found->prefix6;
        record->has_prefix_length6 = true;
        record->gateway6 = xstrdup(net_ip_format(&gateway6, text));
    }
    record->has_name_servers = record->has_has_name_servers = found->has_name_servers;
    record->leads_out = record->has_leads_out = found->leads_out;
}

void cni_restore_place(struct place *place, const struct record_place *record)
{
    struct net_interface *interface = &place->interface;
    struct cni_addresses *found = &place->found;

    *found = (struct cni_addresses){.prefix = record->prefix_length,
                                    .prefix6 = record->prefix_length6,
                                    .has_name_servers = record->has_name_servers,
                                    .leads_out = record->leads_out};
    if (!record->address || inet_pton(AF_INET, record->address, &found->address) != 1)
        found->prefix = 0;
    if (!record->address6 || inet_pton(AF_INET6, record->address6, &found->address6) != 1)
        found->prefix6 = 0;
    if (record->gateway)
        (void)inet_pton(AF_INET, record->gateway, &found->gateway);
    if (record->gateway6)
        (void)inet_pton(AF_INET6, record->gateway6, &found->gateway6);
    if (record->mac_address)
        (void)net_mac_parse(record->mac_address, found->mac, NULL);
    interface->address = found->address;
    interface->address6 = found->address6;
    memcpy(interface->mac, found->mac, sizeof(found->mac));
    snprintf(interface->name, sizeof(interface->name), "%s", record->link ? record->link : "eth0");
    snprintf(place->endpoint_id, sizeof(place->endpoint_id), "%s",
             record->endpoint_id ? record->endpoint_id : "");
    place->held = place->attached = true;
}
