#include <openssl/evp.h>
#include <string.h>

#include <base/text.h>

#include "load.h"

bool digest_is_valid(const char *digest)
{
    return digest && text_starts_with(digest, "sha256:") && text_is_hex(digest + 7, 64);
}

void digest_of_text(const void *data, size_t length, char ret[DIGEST_TEXT_SIZE])
{
    unsigned char hash[32];

    EVP_Digest(data, length, hash, NULL, EVP_sha256(), NULL);
    memcpy(ret, "sha256:", 7);
    text_hex(hash, sizeof(hash), ret + 7);
}
