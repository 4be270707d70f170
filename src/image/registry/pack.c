#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>
#include <image/descriptors.h>

#include "push.h"
#include "worker.h"

enum { BLOCK = 256 * 1024 };

struct packer {
    const struct push_blob *blob;
    z_stream gzip;
    EVP_MD_CTX *hash;
    int out_fd;
    uint64_t in, out;
    int64_t told;
    unsigned char input[BLOCK], output[BLOCK];
};

/* With Z_FINISH to the end, else as far as the input goes. */
static int squeeze(struct packer *packer, int flush, struct error *err)
{
    int r;

    do {
        packer->gzip.next_out = packer->output;
        packer->gzip.avail_out = BLOCK;
        r = deflate(&packer->gzip, flush);
        size_t length = BLOCK - packer->gzip.avail_out;
        EVP_DigestUpdate(packer->hash, packer->output, length);
        packer->out += length;
        int w = file_write_all(packer->out_fd, packer->output, length);
        if (w < 0)
            return error_errno(err, -w, "write a packed layer");
    } while (r == Z_OK && (flush == Z_FINISH || packer->gzip.avail_out == 0));
    return 0;
}

static int pack(struct packer *packer, struct error *err)
{
    for (;;) {
        ssize_t n = pread(packer->blob->fd, packer->input, BLOCK, (off_t)packer->in);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_errno(err, errno, "read a layer");
        packer->in += (uint64_t)n;
        packer->gzip.next_in = packer->input;
        packer->gzip.avail_in = (unsigned)n;
        int r = squeeze(packer, n ? Z_NO_FLUSH : Z_FINISH, err);
        if (r < 0 || n == 0)
            return r;
        message_item_progress(&packer->told, packer->blob->item, "Preparing", packer->in,
                              packer->blob->size);
    }
}

static void finish(struct packer *packer, struct push_blob *blob)
{
    unsigned char digest[32];

    EVP_DigestFinal_ex(packer->hash, digest, NULL);
    snprintf(blob->digest, sizeof(blob->digest), "sha256:");
    text_hex(digest, sizeof(digest), blob->digest + strlen("sha256:"));
    close_fd(blob->fd);
    blob->fd = steal_fd(&packer->out_fd);
    blob->size = packer->out;
}

int pack_blob(struct push_blob *blob, struct error *err)
{
    _cleanup_free_ struct packer *packer = xnew(struct packer);

    packer->blob = blob;
    packer->out_fd = openat(IMAGE_FD_STAGING, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (packer->out_fd < 0)
        return error_errno(err, errno, "make a file for a packed layer");
    packer->hash = EVP_MD_CTX_new();
    EVP_DigestInit_ex(packer->hash, EVP_sha256(), NULL);
    /* 16: a gzip wrapper, without name and time (zlib.h). */
    deflateInit2(&packer->gzip, Z_DEFAULT_COMPRESSION, Z_DEFLATED, 16 + MAX_WBITS, 8,
                 Z_DEFAULT_STRATEGY);
    int r = pack(packer, err);
    if (r == 0)
        finish(packer, blob);
    deflateEnd(&packer->gzip);
    EVP_MD_CTX_free(packer->hash);
    close_fd(packer->out_fd);
    return r;
}
