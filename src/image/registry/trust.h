/*
 * Certificates of an endpoint, read into memory while there are files: folders as docker's
 * certs.d/HOST:PORT have *.crt (authorities), NAME.cert and NAME.key (of the client).
 */
#ifndef REGISTRY_TRUST_H
#define REGISTRY_TRUST_H

#include <schema/image_worker.h>

#include "http.h"

/* Missing folders are none. Authorities are the machine's and those of the folders; an endpoint
 * that has some of its own is never insecure. Also for an endpoint without TLS, which may send us
 * to services that have it. */
int trust_read(const struct image_worker_endpoint *endpoint, struct http_trust *ret,
               struct error *err);
void trust_finish(struct http_trust *trust);

#endif
