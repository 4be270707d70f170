/* Making FAT12, FAT16 and FAT32. Called by volume_format() (files/tools.h). */
#ifndef FILES_FAT_FORMAT_H
#define FILES_FAT_FORMAT_H

#include <files/tools.h>

int fat_format(struct medium *medium, const struct format_options *options, struct error *err);

#endif
