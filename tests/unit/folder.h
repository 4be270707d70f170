/*
 * Removing a test's folder without the code under test (which also needs what qemu-user lacks).
 */
#ifndef TESTS_UNIT_FOLDER_H
#define TESTS_UNIT_FOLDER_H

#include <ftw.h>
#include <stdio.h>
#include <sys/stat.h>

static inline int folder_remove_entry(const char *path, const struct stat *info, int type,
                                      struct FTW *ftw)
{
    return remove(path);
}

/* 0, or -1 with errno. Does not leave the file system of path. */
static inline int folder_remove(const char *path)
{
    return nftw(path, folder_remove_entry, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}

#endif
