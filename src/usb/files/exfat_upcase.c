#include "exfat_upcase.h"

#include <errno.h>
#include <string.h>

#include <base/alloc.h>
#include <block/bytes.h>

/* What has another letter as its capital in the recommended table: from, to, each one or each
 * second one, and how far the capital is away. */
struct range {
    uint16_t from, to, step;
    int16_t distance;
};

static const struct range ranges[] = {
    {0x0061, 0x007A, 1, -32},   {0x00E0, 0x00F6, 1, -32},  {0x00F8, 0x00FE, 1, -32},
    {0x00FF, 0x00FF, 1, 121},   {0x0101, 0x012F, 2, -1},   {0x0133, 0x0137, 2, -1},
    {0x013A, 0x0148, 2, -1},    {0x014B, 0x0177, 2, -1},   {0x017A, 0x017E, 2, -1},
    {0x0180, 0x0180, 1, 195},   {0x0183, 0x0185, 2, -1},   {0x0188, 0x0188, 1, -1},
    {0x018C, 0x018C, 1, -1},    {0x0192, 0x0192, 1, -1},   {0x0195, 0x0195, 1, 97},
    {0x0199, 0x0199, 1, -1},    {0x019A, 0x019A, 1, 163},  {0x019E, 0x019E, 1, 130},
    {0x01A1, 0x01A5, 2, -1},    {0x01A8, 0x01A8, 1, -1},   {0x01AD, 0x01AD, 1, -1},
    {0x01B0, 0x01B0, 1, -1},    {0x01B4, 0x01B6, 2, -1},   {0x01B9, 0x01B9, 1, -1},
    {0x01BD, 0x01BD, 1, -1},    {0x01BF, 0x01BF, 1, 56},   {0x01C6, 0x01C6, 1, -2},
    {0x01C9, 0x01C9, 1, -2},    {0x01CC, 0x01CC, 1, -2},   {0x01CE, 0x01DC, 2, -1},
    {0x01DD, 0x01DD, 1, -79},   {0x01DF, 0x01EF, 2, -1},   {0x01F3, 0x01F3, 1, -2},
    {0x01F5, 0x01F5, 1, -1},    {0x01F9, 0x021F, 2, -1},   {0x0223, 0x0233, 2, -1},
    {0x023A, 0x023A, 1, 10795}, {0x023C, 0x023C, 1, -1},   {0x023E, 0x023E, 1, 10792},
    {0x0242, 0x0242, 1, -1},    {0x0247, 0x024F, 2, -1},   {0x0253, 0x0253, 1, -210},
    {0x0254, 0x0254, 1, -206},  {0x0256, 0x0257, 1, -205}, {0x0259, 0x0259, 1, -202},
    {0x025B, 0x025B, 1, -203},  {0x0260, 0x0260, 1, -205}, {0x0263, 0x0263, 1, -207},
    {0x0268, 0x0268, 1, -209},  {0x0269, 0x0269, 1, -211}, {0x026B, 0x026B, 1, 10743},
    {0x026F, 0x026F, 1, -211},  {0x0272, 0x0272, 1, -213}, {0x0275, 0x0275, 1, -214},
    {0x027D, 0x027D, 1, 10727}, {0x0280, 0x0280, 1, -218}, {0x0283, 0x0283, 1, -218},
    {0x0288, 0x0288, 1, -218},  {0x0289, 0x0289, 1, -69},  {0x028A, 0x028B, 1, -217},
    {0x028C, 0x028C, 1, -71},   {0x0292, 0x0292, 1, -219}, {0x037B, 0x037D, 1, 130},
    {0x03AC, 0x03AC, 1, -38},   {0x03AD, 0x03AF, 1, -37},  {0x03B1, 0x03C1, 1, -32},
    {0x03C2, 0x03C2, 1, -31},   {0x03C3, 0x03CB, 1, -32},  {0x03CC, 0x03CC, 1, -64},
    {0x03CD, 0x03CE, 1, -63},   {0x03D9, 0x03EF, 2, -1},   {0x03F2, 0x03F2, 1, 7},
    {0x03F8, 0x03F8, 1, -1},    {0x03FB, 0x03FB, 1, -1},   {0x0430, 0x044F, 1, -32},
    {0x0450, 0x045F, 1, -80},   {0x0461, 0x0481, 2, -1},   {0x048B, 0x04BF, 2, -1},
    {0x04C2, 0x04CE, 2, -1},    {0x04CF, 0x04CF, 1, -15},  {0x04D1, 0x0513, 2, -1},
    {0x0561, 0x0586, 1, -48},   {0x1D7D, 0x1D7D, 1, 3814}, {0x1E01, 0x1E95, 2, -1},
    {0x1EA1, 0x1EF9, 2, -1},    {0x1F00, 0x1F07, 1, 8},    {0x1F10, 0x1F15, 1, 8},
    {0x1F20, 0x1F27, 1, 8},     {0x1F30, 0x1F37, 1, 8},    {0x1F40, 0x1F45, 1, 8},
    {0x1F51, 0x1F57, 2, 8},     {0x1F60, 0x1F67, 1, 8},    {0x1F70, 0x1F71, 1, 74},
    {0x1F72, 0x1F75, 1, 86},    {0x1F76, 0x1F77, 1, 100},  {0x1F78, 0x1F79, 1, 128},
    {0x1F7A, 0x1F7B, 1, 112},   {0x1F7C, 0x1F7D, 1, 126},  {0x1F80, 0x1F87, 1, 8},
    {0x1F90, 0x1F97, 1, 8},     {0x1FA0, 0x1FA7, 1, 8},    {0x1FB0, 0x1FB1, 1, 8},
    {0x1FB3, 0x1FB3, 1, 9},     {0x1FCC, 0x1FCC, 1, -9},   {0x1FD0, 0x1FD1, 1, 8},
    {0x1FE0, 0x1FE1, 1, 8},     {0x1FE5, 0x1FE5, 1, 7},    {0x1FFC, 0x1FFC, 1, -9},
    {0x214E, 0x214E, 1, -28},   {0x2170, 0x217F, 1, -16},  {0x2184, 0x2184, 1, -1},
    {0x24D0, 0x24E9, 1, -26},   {0x2C30, 0x2C5E, 1, -48},  {0x2C61, 0x2C61, 1, -1},
    {0x2C68, 0x2C6C, 2, -1},    {0x2C76, 0x2C76, 1, -1},   {0x2C81, 0x2CE3, 2, -1},
    {0x2D00, 0x2D25, 1, -7264}, {0xFF41, 0xFF5A, 1, -32},
};

enum {
    RUN = 0xFFFF,    /* before the length of a run of units that are their own capitals */
    RUN_LEAST = 512, /* shorter ones are written out, as in the recommended table */
};

static void all_themselves(struct exfat_upcase *upcase)
{
    for (uint32_t unit = 0; unit < EXFAT_UPCASE_UNITS; unit++)
        upcase->units[unit] = (uint16_t)unit;
}

void exfat_upcase_recommended(struct exfat_upcase *ret_upcase)
{
    all_themselves(ret_upcase);
    for (size_t i = 0; i < ARRAY_SIZE(ranges); i++)
        for (uint32_t unit = ranges[i].from; unit <= ranges[i].to; unit += ranges[i].step)
            ret_upcase->units[unit] = (uint16_t)((int32_t)unit + ranges[i].distance);
}

static uint32_t run_at(const struct exfat_upcase *upcase, uint32_t unit)
{
    uint32_t end = unit;
    while (end < EXFAT_UPCASE_UNITS && upcase->units[end] == end)
        end++;
    return end - unit;
}

uint8_t *exfat_upcase_packed(size_t *ret_size)
{
    struct exfat_upcase *upcase = xnew(struct exfat_upcase);
    uint8_t *data = xmalloc(EXFAT_UPCASE_BYTES_MOST);
    size_t size = 0;
    exfat_upcase_recommended(upcase);
    for (uint32_t unit = 0; unit < EXFAT_UPCASE_UNITS;) {
        uint32_t run = run_at(upcase, unit);
        if (run >= RUN_LEAST) {
            put_le16(data + size, RUN);
            put_le16(data + size + 2, (uint16_t)run);
            size += 4;
            unit += run;
            continue;
        }
        for (uint32_t end = unit + (run ? run : 1); unit < end; unit++, size += 2)
            put_le16(data + size, upcase->units[unit]);
    }
    free(upcase);
    *ret_size = size;
    return data;
}

uint32_t exfat_upcase_sum(const uint8_t *data, size_t size)
{
    uint32_t sum = 0;
    for (size_t i = 0; i < size; i++)
        sum = (sum << 31 | sum >> 1) + data[i];
    return sum;
}

int exfat_upcase_read(const uint8_t *data, size_t size, uint32_t sum,
                      struct exfat_upcase *ret_upcase, struct error *err)
{
    uint32_t unit = 0;
    if (size % 2 != 0 || size > EXFAT_UPCASE_BYTES_MOST || exfat_upcase_sum(data, size) != sum)
        return error_set(err, -EUCLEAN, "up-case table: the checksum is wrong");
    all_themselves(ret_upcase);
    for (size_t at = 0; at < size; at += 2) {
        uint16_t word = get_le16(data + at);
        if (word == RUN && at + 2 < size) {
            at += 2;
            unit += get_le16(data + at);
        } else if (unit < EXFAT_UPCASE_UNITS) {
            ret_upcase->units[unit++] = word;
        } else {
            unit++;
        }
        if (unit > EXFAT_UPCASE_UNITS)
            return error_set(err, -EUCLEAN, "up-case table: more than %d units",
                             EXFAT_UPCASE_UNITS);
    }
    return 0;
}
