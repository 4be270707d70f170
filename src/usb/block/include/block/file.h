/* A file, or a block device of the machine, as a block device: for images of sticks. Requests are
 * done in order by a thread of its own. */
#ifndef BLOCK_FILE_H
#define BLOCK_FILE_H

#include <block/device.h>

/* fd: read, or read and written unless read_only; taken over. Its size is a multiple of
 * sector_size, or what is left over at its end is not seen. -EINVAL: a sector size that cannot be.
 */
int block_file_open(int fd, uint32_t sector_size, bool read_only, struct block_device **ret_device,
                    struct error *err);

#endif
