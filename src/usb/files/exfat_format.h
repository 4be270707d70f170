/* An empty exFAT volume. Called by volume_format() (files/tools.h). */
#ifndef FILES_EXFAT_FORMAT_H
#define FILES_EXFAT_FORMAT_H

#include <files/tools.h>

int exfat_format(struct medium *medium, const struct format_options *options, struct error *err);

#endif
