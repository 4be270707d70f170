/*
 * The descriptors that cloche-image is started with: all it will ever hold. What a request does not
 * need is /dev/null.
 */
#ifndef IMAGE_DESCRIPTORS_H
#define IMAGE_DESCRIPTORS_H

enum image_descriptor {
    IMAGE_FD_ARCHIVE_IN,  /* load, import, place: the archive, read from where it stands;
 verify: a blob */
    IMAGE_FD_ARCHIVE_OUT, /* save, pack: where the archive goes */
    IMAGE_FD_LOG,         /* stderr */
    IMAGE_FD_CONTROL,     /* stream socket: request in, messages out (image-worker.json) */
    IMAGE_FD_STAGING,     /* load, commit, pull, import, verify: folder for the result; populate:
                             ROOT/volumes */
    IMAGE_FD_SOURCE,      /* save, push: the store's blobs; commit: the container's upper folder, or
    with merged that of all layers; verify: the layer's */
    IMAGE_FD_TREE,        /* pack, place, stat, populate: a pidfd, a mount or a folder */
    IMAGE_FD_TARGET,      /* copy: the mounted root that is written to */
    IMAGE_FD_UPPER,       /* copy: its upper folder */
    IMAGE_FD_USERS,       /* with tree.users: a user namespace */
    IMAGE_FD_COUNT,
};

#endif
