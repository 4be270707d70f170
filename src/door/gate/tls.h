/*
 * What the door shows, and what it asks of those who come: GnuTLS. TLS 1.2 and 1.3, no
 * renegotiation, no resumption, no compression.
 */
#ifndef DOOR_TLS_H
#define DOOR_TLS_H

#include <stdbool.h>

#include <base/error.h>
#include <door/serve.h>

struct gnutls_session_int;
struct tls;

enum {
    TLS_NAMES_MAX = 16,    /* names of a certificate that are looked at */
    TLS_NAME_LENGTH = 255, /* bytes of one; longer ones are left out */
};

/* Reads the files that the configuration names. Blocks. *ret NULL: it names none. */
int tls_create(const struct door_config *config, struct tls **ret, struct error *err);
void tls_destroy(struct tls *tls);

/* What is trusted now, from open files (the second may be missing: -1), for tls_trusts() alone. */
int tls_trust(int ca_fd, int crl_fd, struct tls **ret, struct error *err);
/* Whether the certificate that was shown in the session's handshake is still one of ours. trust
 * must outlive the session. */
bool tls_trusts(struct tls *trust, struct gnutls_session_int *session);

/* A server's session for a descriptor, before its handshake. Unless http is spoken in it, those who
 * ask for HTTP are refused. */
int tls_session(struct tls *tls, int fd, bool http, struct gnutls_session_int **ret,
                struct error *err);

/* The certificate of the other side, which has been verified. */
struct certificate {
    char *subject;        /* as RFC 4514 writes it */
    char *common_name;    /* NULL: none */
    char **names;         /* "DNS:a.example", "email:...", "URI:...", "IP:..." */
    char fingerprint[65]; /* SHA-256, hex */
};
/* 1, 0 when it showed none, or -errno for one that cannot be read. */
int tls_certificate(struct gnutls_session_int *session, struct certificate *ret, struct error *err);
void certificate_finish(struct certificate *certificate);

#endif
