/* base64 (RFC 4648 4) of texts. */
#ifndef CLOCHE_BASE64_H
#define CLOCHE_BASE64_H

char *base64_encode(const char *text); /* owned */
/* Owned; NULL: it is not base64, or of something with a NUL in it. Padding may be missing. */
char *base64_decode(const char *text);

#endif
