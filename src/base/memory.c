#include <base/memory.h>

#include <link.h>
#include <malloc.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

void memory_use_one_heap(void)
{
#ifdef M_ARENA_MAX /* glibc */
    mallopt(M_ARENA_MAX, 1);
#endif
}

/* What is never written is the same as in the file: no relocation goes into a segment that is not
 * writable when it is loaded (the pages of RELRO are in one that is). */
static int drop_unwritten(struct dl_phdr_info *object, size_t size, void *data)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);

    (void)size;
    (void)data;
    for (unsigned i = 0; i < object->dlpi_phnum; i++) {
        const ElfW(Phdr) *segment = &object->dlpi_phdr[i];
        uintptr_t begin = (object->dlpi_addr + segment->p_vaddr) & ~(page - 1);
        uintptr_t end = (object->dlpi_addr + segment->p_vaddr + segment->p_filesz) & ~(page - 1);

        if (segment->p_type == PT_LOAD && !(segment->p_flags & PF_W) && begin < end)
            madvise((void *)begin, end - begin, MADV_DONTNEED);
    }
    return 0;
}

void memory_give_back(void)
{
#ifdef M_ARENA_MAX /* glibc */
    malloc_trim(0);
#endif
    dl_iterate_phdr(drop_unwritten, NULL);
}
