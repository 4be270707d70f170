/*
 * The kernel lets a process name the file it "was executed from" anew (prctl(2), PR_SET_MM_MAP;
 * made for checkpoint and restore) once nothing of the old one is mapped any more. So each segment
 * of the program is mapped again, at its place, from the new file: the same bytes, since it is the
 * same inode and the kernel lets nobody write to what is being executed. What has been written to
 * since the start becomes anonymous memory.
 */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <base/cleanup.h>

#include "seal_in_place.h"

/* The sanitizers keep shadows of the data, and take the copying of it for an error. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED true
#else
#define SANITIZED false
#endif

struct program {
    int fd;
    uintptr_t page; /* size of a page */
    int result;     /* 0 or -errno */
    uintptr_t code_start, code_end, data_start, data_end;
};

struct range {
    uintptr_t start, end;
};

static struct range pages_of(const struct program *program, uintptr_t start, uintptr_t length)
{
    return (struct range){start & ~(program->page - 1),
                          (start + length + program->page - 1) & ~(program->page - 1)};
}

static int map_again(const struct program *program, uintptr_t base, const ElfW(Phdr) * segment)
{
    struct range range = pages_of(program, base + segment->p_vaddr, segment->p_filesz);
    off_t offset = (off_t)(segment->p_offset & ~(program->page - 1));
    int protection =
        (segment->p_flags & PF_R ? PROT_READ : 0) | (segment->p_flags & PF_X ? PROT_EXEC : 0);

    return mmap((void *)range.start, range.end - range.start, protection, MAP_PRIVATE | MAP_FIXED,
                program->fd, offset) == MAP_FAILED
               ? -errno
               : 0;
}

/* From the copy to the move nothing here writes to a variable of the program. */
static int make_anonymous(const struct program *program, uintptr_t base, const ElfW(Phdr) * segment)
{
    struct range range = pages_of(program, base + segment->p_vaddr, segment->p_filesz);
    size_t length = range.end - range.start;
    void *copy = mmap(NULL, length, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

    if (copy == MAP_FAILED)
        return -errno;
    memcpy(copy, (void *)range.start, length);
    if (mremap(copy, length, length, MREMAP_MAYMOVE | MREMAP_FIXED, (void *)range.start) !=
        MAP_FAILED)
        return 0;
    int failure = errno;
    munmap(copy, length);
    return -failure;
}

static int protect_relocated(const struct program *program, uintptr_t base,
                             const ElfW(Phdr) * segment)
{
    /* As the dynamic linker does it: whole pages within only. */
    uintptr_t start = (base + segment->p_vaddr) & ~(program->page - 1);
    uintptr_t end = (base + segment->p_vaddr + segment->p_memsz) & ~(program->page - 1);

    return end > start && mprotect((void *)start, end - start, PROT_READ) < 0 ? -errno : 0;
}

static void note_segment(struct program *program, uintptr_t base, const ElfW(Phdr) * segment)
{
    uintptr_t start = base + segment->p_vaddr;

    if (segment->p_flags & PF_X) {
        program->code_start = start;
        program->code_end = start + segment->p_filesz;
    } else if (segment->p_flags & PF_W) {
        program->data_start = start;
        program->data_end = start + segment->p_filesz;
    }
}

/* Called for the program itself first. */
static int exchange_segments(struct dl_phdr_info *info, size_t size _unused_, void *context)
{
    struct program *program = context;

    for (int i = 0; program->result == 0 && i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *segment = &info->dlpi_phdr[i];
        if (segment->p_type != PT_LOAD)
            continue;
        note_segment(program, info->dlpi_addr, segment);
        program->result = segment->p_flags & PF_W
                              ? make_anonymous(program, info->dlpi_addr, segment)
                              : map_again(program, info->dlpi_addr, segment);
    }
    for (int i = 0; program->result == 0 && i < info->dlpi_phnum; i++) {
        if (info->dlpi_phdr[i].p_type == PT_GNU_RELRO)
            program->result = protect_relocated(program, info->dlpi_addr, &info->dlpi_phdr[i]);
    }
    return 1;
}

static struct range strings_of(char **list, uintptr_t otherwise)
{
    struct range range = {otherwise, otherwise};

    for (char **text = list; text && *text; text++) {
        uintptr_t start = (uintptr_t)*text, end = start + strlen(*text) + 1;
        if (text == list || start < range.start)
            range.start = start;
        if (text == list || end > range.end)
            range.end = end;
    }
    return range;
}

static int set_file(const struct program *program, char **argv)
{
    struct range arguments = strings_of(argv, (uintptr_t)argv);
    struct range environment = strings_of(environ, arguments.end);
    uint64_t heap_end = (uintptr_t)sbrk(0);
    /* All of it has to be told. What the heap is by now counts as any other memory. */
    struct prctl_mm_map map = {
        .start_code = program->code_start,
        .end_code = program->code_end,
        .start_data = program->data_start,
        .end_data = program->data_end,
        .start_brk = heap_end,
        .brk = heap_end,
        .start_stack = (uintptr_t)argv,
        .arg_start = arguments.start,
        .arg_end = arguments.end,
        .env_start = environment.start,
        .env_end = environment.end,
        .exe_fd = (uint32_t)program->fd,
    };

    return prctl(PR_SET_MM, PR_SET_MM_MAP, &map, sizeof(map), 0) < 0 ? -errno : 0;
}

int seal_in_place(int mount_fd, char **argv)
{
    struct program program = {.page = (uintptr_t)sysconf(_SC_PAGESIZE)};
    char path[48];

    if (SANITIZED)
        return -ENOTSUP;
    snprintf(path, sizeof(path), "/proc/self/fd/%d", mount_fd);
    _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    program.fd = fd;
    dl_iterate_phdr(exchange_segments, &program);
    return program.result < 0 ? program.result : set_file(&program, argv);
}
