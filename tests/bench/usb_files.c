/*
 * What small files cost the file systems of src/usb/files, without a door: files of 4 KiB made as
 * FUSE does it (looked for, made, written), and removed (looked for twice, removed), in one folder.
 *
 *   usb-files KIND COUNT made|removed
 *
 * KIND: fat16, fat32, exfat. Prints the processor time of the calls, and how many commands the
 * device got. `valgrind --tool=callgrind --toggle-collect=made` (or removed) counts instructions,
 * which do not depend on other work.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/clock.h>
#include <block/file.h>
#include <block/over.h>
#include <files/tools.h>

enum { SECTOR = 512, SIZE = 256 << 20, FILE_SIZE = 4096 };

struct counting {
    struct block_over over; /* first */
    atomic_uint commands[4];
};

static void submit(struct block_device *whole, struct block_request *request)
{
    struct counting *counting = (struct counting *)whole;
    struct block_device *below = counting->over.below;
    counting->commands[request->operation]++;
    below->ops->submit(below, request);
}

static void destroy(struct block_device *device)
{
    block_device_destroy(((struct counting *)device)->over.below);
    free(device);
}

static const struct block_device_ops counting_ops = {
    .submit = submit,
    .attend = block_over_attend,
    .destroy = destroy,
};

static void must(int r, const struct error *err)
{
    if (r >= 0)
        return;
    fprintf(stderr, "usb-files: %s\n", err->message);
    exit(1);
}

static void name_of(int number, char *ret, size_t size)
{
    snprintf(ret, size, "A file of %06d.txt", number);
}

__attribute__((noinline)) static void made(struct volume *volume, struct node *folder, int count)
{
    static uint8_t data[FILE_SIZE];
    struct error err = ERROR_INIT;
    for (int i = 0; i < count; i++) {
        char name[64], spelling[VOLUME_NAME_MAX + 1];
        struct node_facts facts;
        struct node *node;
        name_of(i, name, sizeof(name));
        memset(data, i, sizeof(data));
        volume->ops->spelling(volume, folder, name, spelling, NULL);
        must(volume->ops->create(volume, folder, name, NODE_FILE, &node, &err), &err);
        must(volume->ops->node_facts(volume, node, &facts, &err), &err);
        must((int)volume_write(volume, node, 0, data, sizeof(data), &err), &err);
        volume->ops->node_drop(volume, node, 1);
    }
    must(medium_sync(volume->medium, &err), &err);
}

__attribute__((noinline)) static void removed(struct volume *volume, struct node *folder, int count)
{
    struct error err = ERROR_INIT;
    for (int i = 0; i < count; i++) {
        char name[64], spelling[VOLUME_NAME_MAX + 1];
        struct node *node;
        name_of(i, name, sizeof(name));
        must(volume->ops->spelling(volume, folder, name, spelling, &err), &err);
        must(volume->ops->lookup(volume, folder, name, &node, &err), &err);
        must(volume->ops->remove(volume, folder, name, NODE_FILE, &err), &err);
        volume->ops->node_drop(volume, node, 1);
    }
    must(medium_sync(volume->medium, &err), &err);
}

static int64_t processor_time(void)
{
    struct timespec time;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return time.tv_sec * CLOCK_SECOND + time.tv_nsec;
}

static void measure(struct counting *counting, struct volume *volume, struct node *folder,
                    int count, const char *what)
{
    int64_t begun = processor_time();
    memset(counting->commands, 0, sizeof(counting->commands));
    (strcmp(what, "made") == 0 ? made : removed)(volume, folder, count);
    printf("%s: %.2f us of processor time a file; commands of all: read %u, write %u, flush %u\n",
           what, (double)(processor_time() - begun) / 1000 / count, counting->commands[BLOCK_READ],
           counting->commands[BLOCK_WRITE], counting->commands[BLOCK_FLUSH]);
}

int main(int argc, char **argv)
{
    struct error err = ERROR_INIT;
    struct format_options format = {0};
    struct block_device *file;
    struct medium *medium;
    struct volume *volume;
    struct node *folder;
    int kind = argc == 4 ? volume_kind_parse(argv[1]) : -1;
    if (kind < 0) {
        fprintf(stderr, "usage: usb-files KIND COUNT made|removed\n");
        return 2;
    }
    format.kind = (enum volume_kind)kind;
    int fd = memfd_create("stick", MFD_CLOEXEC), count = atoi(argv[2]);
    if (fd < 0 || ftruncate(fd, SIZE) != 0)
        return 1;
    must(block_file_open(fd, SECTOR, false, &file, &err), &err);
    struct counting *counting = xnew(struct counting);
    block_over_init(&counting->over, file, &counting_ops);
    must(medium_open(&counting->over.device, &(struct medium_options){0}, &medium, &err), &err);
    must(volume_format(medium, &format, &err), &err);
    must(volume_mount(medium, &(struct volume_options){0}, &volume, &err), &err);
    must(volume->ops->create(volume, volume->ops->root(volume), "folder", NODE_FOLDER, &folder,
                             &err),
         &err);
    if (strcmp(argv[3], "removed") == 0)
        made(volume, folder, count);
    measure(counting, volume, folder, count, argv[3]);
    volume->ops->node_drop(volume, folder, 1);
    must(volume->ops->unmount(volume, &err), &err);
    must(medium_close(medium, &err), &err);
    block_device_destroy(&counting->over.device);
    return 0;
}
