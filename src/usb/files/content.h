/* Who moves or cuts content at a time; what is of use within the kinds. */
#ifndef FILES_CONTENT_H
#define FILES_CONTENT_H

#include <files/volume.h>

/* Stands in the list, and waits for those before it that are in its way. No lock of the volume is
 * held. A cut stands alone, by its file; offset and size are those of a read or write. */
void volume_content_begin(struct volume *volume, struct content_move *move, struct node *file,
                          enum content_what what, uint64_t offset, uint64_t size);
/* The same where nothing is in its way; false: something is, and nothing has changed. */
bool volume_content_try(struct volume *volume, struct content_move *move, struct node *file,
                        enum content_what what, uint64_t offset, uint64_t size);
void volume_content_end(struct volume *volume, struct content_move *move);

/* Bytes that are made zeros while a volume's lock is held; then others get their turn. */
enum { CONTENT_STEP = 2 << 20 };
void volume_let_others(void);

#endif
