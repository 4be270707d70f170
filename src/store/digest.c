/* libmd's SHA-256: the daemon sums up documents only, and libcrypto would cost it three megabytes.
 */
#include <sys/types.h>
#include <sha2.h>
#include <string.h>

#include <base/text.h>

#include "internal.h"

void digest_of(const void *data, size_t length, char ret[DIGEST_TEXT_SIZE])
{
    unsigned char hash[SHA256_DIGEST_LENGTH];
    SHA2_CTX sum;

    SHA256Init(&sum);
    SHA256Update(&sum, data, length);
    SHA256Final(hash, &sum);
    memcpy(ret, "sha256:", 7);
    text_hex(hash, sizeof(hash), ret + 7);
}

bool digest_valid(const char *digest)
{
    return digest && text_starts_with(digest, "sha256:") && text_is_hex(digest + 7, 64);
}

const char *digest_hex(const char *digest)
{
    return digest + 7;
}

/* ChainID of the image specification (config.md, "Layer ChainID"). */
void digest_chain(const char *parent, const char *diff_id, char ret[DIGEST_TEXT_SIZE])
{
    char both[2 * DIGEST_TEXT_SIZE];

    if (!parent || !parent[0]) {
        memcpy(ret, diff_id, DIGEST_TEXT_SIZE);
        return;
    }
    memcpy(both, parent, DIGEST_TEXT_SIZE - 1);
    both[DIGEST_TEXT_SIZE - 1] = ' ';
    memcpy(both + DIGEST_TEXT_SIZE, diff_id, DIGEST_TEXT_SIZE - 1);
    digest_of(both, 2 * DIGEST_TEXT_SIZE - 1, ret);
}
