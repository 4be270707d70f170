/* What a stick's sectors are, and what they are not. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "stick_internal.h"

enum { SPARE = 64 << 20 };

/* Behind the disk there is room for what is not on it. A disk that wraps is there once more. */
static const char *map_file(struct stick *stick, int fd)
{
    const struct stick_options *options = &stick->options;
    int access = PROT_READ | (options->read_only ? 0 : PROT_WRITE);
    int how = (options->is_volatile ? MAP_PRIVATE : MAP_SHARED) | MAP_FIXED;
    uint64_t again = stick->disk_size < SPARE ? stick->disk_size : SPARE;
    if (mmap(stick->disk, stick->disk_size, access, how, fd, 0) == MAP_FAILED)
        return strerror(errno);
    if (options->beyond == STICK_WRAPS &&
        mmap(stick->disk + stick->disk_size, again, access, how, fd, 0) == MAP_FAILED)
        return strerror(errno);
    if (options->is_volatile)
        stick->kept = mmap(NULL, stick->disk_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    return stick->kept == MAP_FAILED ? strerror(errno) : NULL;
}

const char *stick_map(struct stick *stick, const char *image)
{
    struct stick_options *options = &stick->options;
    const char *error = NULL;
    int fd = -1;
    if (image) {
        struct stat status;
        fd = open(image, (options->read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC);
        if (fd < 0 || fstat(fd, &status) != 0)
            return strerror(errno);
        options->sectors = (uint64_t)status.st_size / options->sector_size;
    }
    stick->disk_size = options->sectors * options->sector_size;
    if (stick->disk_size == 0)
        return "it has no sectors";
    stick->disk = mmap(NULL, stick->disk_size + SPARE, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (stick->disk == MAP_FAILED)
        return strerror(errno);
    if (fd >= 0) {
        error = map_file(stick, fd);
        close(fd);
    }
    return error;
}

void stick_unmap(struct stick *stick)
{
    munmap(stick->disk, stick->disk_size + SPARE);
}

/* Of a disk that wraps; beyond what there is of others, some of the first. */
uint8_t *stick_place(struct stick *stick, uint64_t sector, uint64_t count)
{
    uint64_t room = stick->options.sectors;
    if (stick->options.beyond == STICK_WRAPS)
        sector %= room;
    else if (sector + count > room)
        sector = room >= count ? sector % (room - count + 1) : 0;
    return stick->disk + sector * stick->options.sector_size;
}

static uint8_t *spare_of(struct stick *stick)
{
    return stick->disk + stick->disk_size;
}

/* Each of these sectors is another one: by chance of some bytes, zeros, or half of what it was. */
static void spoil(struct stick *stick, uint8_t *at)
{
    uint32_t size = stick->options.sector_size;
    switch (rand_r(&stick->chance) % 4) {
    case 0:
        memset(at, 0, size);
        break;
    case 1:
        memmove(at, at + size / 2, size / 2);
        break;
    default:
        for (int i = rand_r(&stick->chance) % 16; i >= 0; i--)
            at[(unsigned)rand_r(&stick->chance) % size] = (uint8_t)rand_r(&stick->chance);
    }
}

/* Every second reading of what varies. */
static bool varies(struct stick *stick, uint64_t sector, uint64_t count)
{
    const struct stick_options *options = &stick->options;
    return sector < options->varying_first + options->varying_count &&
           options->varying_first < sector + count && stick->readings++ % 2;
}

uint8_t *stick_read_from(struct stick *stick, uint64_t sector, uint64_t count)
{
    const struct stick_options *options = &stick->options;
    size_t size = (size_t)count * options->sector_size;
    uint8_t *spare = spare_of(stick);
    if (stick->changed)
        return memset(spare, 0, size);
    if (options->beyond == STICK_VANISHES && sector + count > options->sectors) {
        uint64_t there = sector < options->sectors ? options->sectors - sector : 0;
        memcpy(memset(spare, 0, size),
               stick->disk + (stick->disk_size - there * options->sector_size),
               there * options->sector_size);
        return spare;
    }
    if (!varies(stick, sector, count))
        return stick_place(stick, sector, count);
    memcpy(spare, stick_place(stick, sector, count), size);
    stick->counts.varied++;
    for (uint64_t i = 0; i < count; i++)
        if (sector + i >= options->varying_first &&
            sector + i < options->varying_first + options->varying_count)
            spoil(stick, spare + i * options->sector_size);
    return spare;
}

uint8_t *stick_write_to(struct stick *stick, uint64_t sector, uint64_t count)
{
    const struct stick_options *options = &stick->options;
    stick->writes++;
    if (options->drops_from && stick->writes >= options->drops_from)
        return spare_of(stick);
    if (options->beyond == STICK_VANISHES && sector + count > options->sectors)
        return sector < options->sectors ? stick->disk + sector * options->sector_size
                                         : spare_of(stick);
    return stick_place(stick, sector, count);
}

bool stick_change_medium(struct stick *stick)
{
    const struct stick_options *options = &stick->options;
    if (!options->changes_at || ++stick->scsi_commands != options->changes_at)
        return false;
    /* What it was stays: answers may be made of it. */
    return stick_map(stick, options->next_image) == NULL;
}
