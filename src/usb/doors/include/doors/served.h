/*
 * A mounted volume with its doors. What one door changes, the kernel's caches of the others must
 * hear of: doors of one volume know each other by this.
 */
#ifndef DOORS_SERVED_H
#define DOORS_SERVED_H

#include <files/volume.h>

struct served_volume;

/* The volume is borrowed and outlives it. volume_tick() is the owner's, not the doors'. */
struct served_volume *served_volume_create(struct volume *volume); /* never NULL */

/* All doors must be closed. NULL is fine. */
void served_volume_destroy(struct served_volume *served);

#endif
