/*
 * Networks of plug-ins by the Container Network Interface, versions 0.3.0 to 1.1.0.
 *
 * All of it happens in a child of the daemon: the plug-ins are programs of others, what they say is
 * parsed, and they may take long. The daemon starts its own program with CNI_OPTION; request
 * (cni_request) and answer (cni_answer) are documents of runtime-spec/cni.json on descriptors 0 and
 * 1, for an `add` the network namespace is descriptor CNI_NAMESPACE_FD. Should the daemon die
 * meanwhile, the child ends what it does, and the next daemon's child waits for it.
 *
 * What is on disk decides: an attachment is written to its folder before the first plug-in is
 * called, and deleted when DEL has succeeded; so DEL is called at least once for each ADD, whoever
 * was killed in between.
 */
#ifndef CNI_CNI_H
#define CNI_CNI_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

#include <base/error.h>
#include <schema/cni.h>

#define CNI_OPTION "--cni"

enum {
    CNI_NAMESPACE_FD = 3,
    CNI_ANSWER_MAX = 4 * 1024 * 1024,
    CNI_TIME_LIMIT = 60, /* seconds for one call of a plug-in, where nothing else is set */
    CNI_ATTACHMENT_VERSION = 1,
    CNI_ID_DIGITS = 64, /* of containers and endpoints */
    CNI_NAME_LENGTH = 2 * CNI_ID_DIGITS + 1,
};

/* The child: returns an exit status, 0 when there is an answer. */
int cni_child(void);

/* The name of an attachment's file: CONTAINER-ENDPOINT. Owned. */
char *cni_attachment_name(const char *container, const char *endpoint);
bool cni_is_attachment_name(const char *name);

/* What a container has by a result: the addresses of its own interfaces, the first one of each
 * family. Prefix 0: there is none. */
struct cni_addresses {
    struct in_addr address, gateway;
    struct in6_addr address6, gateway6;
    uint8_t prefix, prefix6;
    uint8_t mac[6]; /* zero: not told */
    bool has_name_servers;
    bool leads_out; /* there is a default route */
};

/* link: name of the interface in the container. -EBADMSG: an address is none. */
int cni_result_read(const struct cni_result *result, const char *link, struct cni_addresses *ret,
                    struct error *err);

/* A configuration list, from its text: one of a single plug-in (type) is a list of one. The version
 * and every plug-in have been looked at. */
int cni_list_read(const char *text, size_t length, const char *source, struct cni_list **ret,
                  struct error *err);

#endif
