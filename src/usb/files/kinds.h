/* The kinds of volumes. */
#ifndef FILES_KINDS_H
#define FILES_KINDS_H

#include <files/volume.h>

extern const struct volume_ops fat_ops, exfat_ops;

#endif
