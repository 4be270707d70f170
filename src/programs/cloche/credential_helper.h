/* docker-credential-NAME, a program of the user's: one word on its command line, a request on its
 * standard input, the answer on its standard output. */
#ifndef CLOCHE_CREDENTIAL_HELPER_H
#define CLOCHE_CREDENTIAL_HELPER_H

#include <base/error.h>
#include <schema/management.h>

/* *ret: owned; NULL: it has none for this server. */
int credential_helper_get(const char *helper, const char *server, struct api_credentials **ret,
                          struct error *err);
int credential_helper_store(const char *helper, const char *server,
                            const struct api_credentials *credentials, struct error *err);
int credential_helper_erase(const char *helper, const char *server, struct error *err);

#endif
