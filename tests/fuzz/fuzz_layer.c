/*
 * The image worker's reading of archives: tar, gzip, zstd, documents, layers, unpacking. The input
 * is an archive; everything happens as in cloche-image, but without its jail, in a folder in
 * memory.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <base/error.h>
#include <base/file.h>
#include <image/descriptors.h>
#include <schema/image_worker.h>

#include "worker.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

static char folder[] = "/dev/shm/fuzz-layer-XXXXXX";

static void remove_folder(void)
{
    file_remove_tree_at(AT_FDCWD, folder, NULL);
}

/* Puts fd where the worker looks for it. */
static void put(int fd, int place)
{
    if (fd < 0 || dup2(fd, place) < 0)
        abort();
    if (fd != place)
        close(fd);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    const struct rlimit file_size = {1 << 24, 1 << 24};

    if (!mkdtemp(folder))
        abort();
    atexit(remove_folder);
    umask(0);
    /* A sparse file may be as large as it says: not in memory. Writing beyond is an error here. */
    setrlimit(RLIMIT_FSIZE, &file_size);
    signal(SIGXFSZ, SIG_IGN);
    put(open("/dev/null", O_RDWR), IMAGE_FD_CONTROL);
    put(open("/dev/null", O_RDWR), IMAGE_FD_STAGING);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct image_worker_platform platform = {.os = "linux", .architecture = "amd64"};
    struct image_worker_load request = {.platform = &platform};
    struct image_worker_result *result = NULL;
    struct error err = ERROR_INIT;

    int archive = memfd_create("archive", 0);
    if (archive < 0 || file_write_all(archive, data, size) < 0 || lseek(archive, 0, SEEK_SET) < 0)
        abort();
    put(archive, IMAGE_FD_ARCHIVE_IN);
    if (mkdirat(AT_FDCWD, folder, 0700) < 0 && errno != EEXIST)
        abort();
    put(open(folder, O_RDONLY | O_DIRECTORY), IMAGE_FD_STAGING);
    int r = worker_load(&request, &result, &err);
    if (r < 0 && (!err.code || !err.message)) /* a failure that says nothing */
        abort();
    image_worker_result_free(result);
    error_finish(&err);
    remove_folder();
    return 0;
}
