/* Checking and repairing exFAT. Called by volume_check() (files/tools.h). */
#ifndef FILES_EXFAT_CHECK_H
#define FILES_EXFAT_CHECK_H

#include <files/tools.h>

int exfat_check(struct medium *medium, const struct check_options *options, volume_finding found,
                void *data, struct error *err);

#endif
