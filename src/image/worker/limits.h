/* What an archive may ask of us. Whatever is over a limit is refused by its name. */
#ifndef IMAGE_LIMITS_H
#define IMAGE_LIMITS_H

#include <stdint.h>

enum {
    REQUEST_MAX = 16 * 1024 * 1024,   /* bytes of the request */
    DOCUMENT_MAX = 4 * 1024 * 1024,   /* bytes of a JSON document in an archive */
    DOCUMENTS_MAX = 64 * 1024 * 1024, /* bytes of all of them, and of names */
    ARCHIVE_ENTRIES_MAX = 100000,     /* of the archive, not of its layers */
    ARCHIVE_LAYERS_MAX = 4096,
    ARCHIVE_IMAGES_MAX = 1024,
    INDEX_DEPTH_MAX = 4, /* indexes inside indexes */
    DOCUMENT_COST = 512, /* bytes that a document counts for READ_BYTES_MAX besides its own */
    LAYER_ENTRIES_MAX = 4000000,
    PATH_LENGTH_MAX = 4095,        /* of an entry's path */
    PATH_DEPTH_MAX = 1000,         /* components of an entry's path */
    XATTR_LENGTH_MAX = 64 * 1024,  /* the kernel's own limit */
    IMPLICIT_FOLDERS_MAX = 100000, /* folders of a layer without an entry */
};

/* Bytes of documents that are parsed for one archive: an index may name the same one any number of
 * times. */
#define READ_BYTES_MAX (1ULL << 30)
#define LAYER_BYTES_MAX (256ULL << 30) /* of a layer's tar, and of its files */
/* A layer that unpacks to more than EXPANSION_FREE may be at most EXPANSION_MAX times as large as
 * its compressed form: more is a decompression bomb. */
#define EXPANSION_FREE (1ULL << 30)
#define EXPANSION_MAX 200

#endif
