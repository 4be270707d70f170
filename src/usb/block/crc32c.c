#include <block/crc32c.h>

#include <string.h>
#if defined(__aarch64__)
#include <arm_acle.h>
#include <sys/auxv.h>
#ifndef HWCAP_CRC32
#define HWCAP_CRC32 (1 << 7)
#endif
#elif defined(__x86_64__)
#include <nmmintrin.h>
#endif

static uint32_t table[256];

__attribute__((constructor)) static void make_table(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t crc = i;
        for (int bit = 0; bit < 8; bit++)
            crc = crc & 1 ? crc >> 1 ^ 0x82F63B78 : crc >> 1;
        table[i] = crc;
    }
}

uint32_t crc32c_by_table(uint32_t crc, const void *data, size_t size)
{
    const uint8_t *p = data;
    crc = ~crc;
    for (; size > 0; size--)
        crc = crc >> 8 ^ table[(crc ^ *p++) & 0xFF];
    return ~crc;
}

/* Eight bytes, and one, added by the processor. */
#if defined(__x86_64__)
#define HARDWARE __attribute__((target("sse4.2")))
#define ADD8(crc, word) ((uint32_t)_mm_crc32_u64((crc), (word)))
#define ADD1(crc, byte) _mm_crc32_u8((crc), (byte))
#define HAVE_HARDWARE() __builtin_cpu_supports("sse4.2")
#elif defined(__aarch64__)
#define HARDWARE __attribute__((target("+crc")))
#define ADD8(crc, word) __crc32cd((crc), (word))
#define ADD1(crc, byte) __crc32cb((crc), (byte))
#define HAVE_HARDWARE() (getauxval(AT_HWCAP) & HWCAP_CRC32)
#endif

#ifdef HARDWARE
HARDWARE static uint32_t by_hardware(uint32_t crc, const void *data, size_t size)
{
    const uint8_t *p = data;
    crc = ~crc;
    for (; size >= 8; size -= 8, p += 8) {
        uint64_t word;
        memcpy(&word, p, 8);
        crc = ADD8(crc, word);
    }
    for (; size > 0; size--)
        crc = ADD1(crc, *p++);
    return ~crc;
}

uint32_t crc32c(uint32_t crc, const void *data, size_t size)
{
    return HAVE_HARDWARE() ? by_hardware(crc, data, size) : crc32c_by_table(crc, data, size);
}
#else
uint32_t crc32c(uint32_t crc, const void *data, size_t size)
{
    return crc32c_by_table(crc, data, size);
}
#endif
