/* Names: what they may be, and the short ones (FAT specification, 6.1 and 7). */
#include "fat.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "utf16.h"

enum { CASE_BASE = 0x08, CASE_EXTENSION = 0x10, BASE = 8, EXTENSION = 3, PLAIN_TRIES = 4 };

static bool is_forbidden(uint16_t unit)
{
    return unit < 0x20 || unit == 0x7F || (unit < 0x80 && strchr("\"*/:<>?\\|", unit));
}

bool fat_name_may_be_shown(const uint16_t *units, unsigned length)
{
    if (length == 0 || (units[0] == '.' && (length == 1 || (length == 2 && units[1] == '.'))))
        return false;
    for (unsigned i = 0; i < length; i++)
        if (units[i] < 0x20 || units[i] == '/')
            return false;
    return true;
}

int fat_name_check(const char *name, uint16_t units[static UNITS_MAX], struct error *err)
{
    int length = utf16_from_utf8(name, units, UNITS_MAX);
    if (length == -ENAMETOOLONG)
        return error_set(err, length, "the name is longer than 255 characters");
    if (length < 0)
        return error_set(err, -EINVAL, "the name is not UTF-8");
    if (length == 0 || units[length - 1] == '.' || units[length - 1] == ' ')
        return error_set(err, -EINVAL, "FAT keeps no name that is empty or ends with '.' or ' '");
    for (int i = 0; i < length; i++)
        if (is_forbidden(units[i]))
            return error_set(err, -EINVAL, "FAT keeps no name with the character U+%04X", units[i]);
    return length;
}

/* Reading. */

static uint16_t short_unit(const struct fat_volume *volume, uint8_t byte, bool lower)
{
    uint16_t unit = code_page_unit(volume->code_page, byte);
    if (unit < 0x20 || unit == '/')
        return '_';
    return lower ? unit_lower(unit) : unit;
}

static unsigned part_length(const uint8_t *part, unsigned most)
{
    while (most > 0 && part[most - 1] == ' ')
        most--;
    return most;
}

unsigned fat_short_units(const struct fat_volume *volume, const uint8_t *entry, uint16_t *ret)
{
    unsigned base = part_length(entry, BASE), extension = part_length(entry + BASE, EXTENSION);
    unsigned length = 0;
    for (unsigned i = 0; i < base; i++) {
        uint8_t byte = i == 0 && entry[0] == 0x05 ? FAT_DELETED : entry[i];
        ret[length++] = short_unit(volume, byte, entry[ENTRY_CASE] & CASE_BASE);
    }
    if (extension > 0)
        ret[length++] = '.';
    for (unsigned i = 0; i < extension; i++)
        ret[length++] = short_unit(volume, entry[BASE + i], entry[ENTRY_CASE] & CASE_EXTENSION);
    if (!fat_name_may_be_shown(ret, length))
        for (unsigned i = length = 0; i < 2; i++)
            ret[length++] = '_';
    return length;
}

uint8_t fat_short_sum(const uint8_t *name)
{
    uint8_t sum = 0;
    for (int i = 0; i < BASE + EXTENSION; i++)
        sum = (uint8_t)((sum << 7 | sum >> 1) + name[i]);
    return sum;
}

/* Making. */

static bool is_short_character(uint16_t unit)
{
    return unit > 0x20 && unit < 0x7F && !is_forbidden(unit) && !strchr("+,;=[].", unit);
}

/* A part of a short name as it is: length or negative; flag is added when it is of small letters.
 */
static bool take_part(const uint16_t *units, unsigned length, unsigned most, uint8_t *to,
                      uint8_t flag, uint8_t *flags)
{
    bool small = false, large = false;
    if (length > most)
        return false;
    for (unsigned i = 0; i < length; i++) {
        if (!is_short_character(units[i]))
            return false;
        small |= units[i] >= 'a' && units[i] <= 'z';
        large |= units[i] >= 'A' && units[i] <= 'Z';
        to[i] = (uint8_t)unit_upper(units[i]);
    }
    if (small)
        *flags |= flag;
    return !(small && large);
}

static unsigned last_dot(const uint16_t *units, unsigned length)
{
    for (unsigned i = length; i > 1; i--)
        if (units[i - 1] == '.')
            return i - 1;
    return length;
}

static bool take_whole(const uint16_t *units, unsigned length, struct fat_short *ret)
{
    unsigned dot = last_dot(units, length);
    return take_part(units, dot, BASE, ret->name, CASE_BASE, &ret->flags) &&
           (dot == length || take_part(units + dot + 1, length - dot - 1, EXTENSION,
                                       ret->name + BASE, CASE_EXTENSION, &ret->flags));
}

/* What can be kept of a part: without blanks and dots, '_' for what there is not. */
static void squeeze(const struct code_page *page, const uint16_t *units, unsigned length,
                    unsigned most, uint8_t *to)
{
    unsigned count = 0;
    for (unsigned i = 0; i < length && count < most; i++) {
        uint16_t unit = unit_upper(units[i]);
        int byte = code_page_byte(page, unit);
        if (unit == ' ' || unit == '.')
            continue;
        to[count++] = unit < 0x80 ? (is_short_character(unit) ? (uint8_t)unit : '_')
                                  : (uint8_t)(byte < 0 ? '_' : byte);
    }
    if (count == 0 && most == BASE)
        to[count++] = '_';
}

void fat_short_make(const struct fat_volume *volume, const uint16_t *units, unsigned length,
                    struct fat_short *ret)
{
    *ret = (struct fat_short){.is_enough = true};
    memset(ret->name, ' ', sizeof(ret->name));
    if (take_whole(units, length, ret))
        return;
    *ret = (struct fat_short){0};
    memset(ret->name, ' ', sizeof(ret->name));
    unsigned dot = last_dot(units, length);
    squeeze(volume->code_page, units, dot, BASE, ret->name);
    if (dot < length)
        squeeze(volume->code_page, units + dot + 1, length - dot - 1, EXTENSION, ret->name + BASE);
    if (ret->name[0] == FAT_DELETED)
        ret->name[0] = 0x05;
}

/* ~1 to ~4, and then with a hash of the name in front, so that many alike find a place soon. */
void fat_short_number(struct fat_short *name, const uint16_t *units, unsigned length,
                      unsigned tries)
{
    char tail[BASE];
    unsigned keep = part_length(name->name, BASE), size = 0, most = BASE - 2;
    unsigned digit = tries;
    if (tries > PLAIN_TRIES) {
        uint32_t hash = units_hash(units, length) + tries / 8 * 0x9E3779B9u;
        for (int shift = 12; shift >= 0; shift -= 4)
            tail[size++] = "0123456789ABCDEF"[(hash >> 16 ^ hash) >> shift & 15];
        digit = tries % 8 + 1;
        most = 2;
    }
    tail[size++] = '~';
    tail[size++] = (char)('0' + digit);
    if (keep > most)
        keep = most;
    memset(name->name + keep, ' ', BASE - keep);
    memcpy(name->name + keep, tail, size);
}

/* Labels. */

int fat_label_make(const struct code_page *page, const char *label, uint8_t ret[static 11],
                   struct error *err)
{
    uint16_t units[UNITS_MAX];
    int length = utf16_from_utf8(label, units, UNITS_MAX);
    if (length < 0 || length > 11)
        return error_set(err, -EINVAL, "a label of FAT has at most 11 characters");
    memset(ret, ' ', 11);
    for (int i = 0; i < length; i++) {
        uint16_t unit = unit_upper(units[i]);
        int byte = code_page_byte(page, unit);
        if (byte < 0 || is_forbidden(unit) || unit == '.' || (i == 0 && unit == ' '))
            return error_set(err, -EINVAL, "no label of FAT: %s", label);
        ret[i] = (uint8_t)byte;
    }
    if (ret[0] == FAT_DELETED)
        ret[0] = 0x05;
    return 0;
}

void fat_label_text(const struct code_page *page, const uint8_t label[static 11], char *ret,
                    size_t size)
{
    uint16_t units[11];
    char text[11 * 3 + 1];
    unsigned length = part_length(label, 11);
    for (unsigned i = 0; i < length; i++) {
        uint8_t byte = i == 0 && label[0] == 0x05 ? FAT_DELETED : label[i];
        uint16_t unit = code_page_unit(page, byte);
        units[i] = unit < 0x20 ? '_' : unit;
    }
    utf8_from_utf16(units, length, text);
    snprintf(ret, size, "%s", text);
}
