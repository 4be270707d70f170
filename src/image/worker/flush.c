#include "flush.h"

#include <fcntl.h>

enum { STEP = 8 * 1024 * 1024 };

void flush_begin(int fd, uint64_t written, uint64_t *begun)
{
    if (written - *begun < STEP)
        return;
    sync_file_range(fd, (off_t)*begun, (off_t)(written - *begun), SYNC_FILE_RANGE_WRITE);
    *begun = written;
}
