/*
 * A block device whose readers in order find what comes next in memory: doors to a whole medium,
 * whose clients see no cache of ours. What is read ahead is at most a megabyte, is forgotten when
 * anything is written or discarded by this device, and is nobody's any more once the device below
 * says that it is lost. So nobody else may write to that one.
 */
#ifndef BLOCK_STREAM_H
#define BLOCK_STREAM_H

#include <block/device.h>

/* As large as the device below, which is borrowed, and whose requests it answers on whichever
 * thread submits where they need not reach it. To be destroyed before that one. */
struct block_device *block_stream_create(struct block_device *below);

#endif
