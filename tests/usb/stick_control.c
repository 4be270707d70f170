#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "stick_internal.h"

static const uint8_t device[] = {18, 1, 0, 2, 0, 0, 0, 64, 0xF4, 0x46, 1, 0, 0x20, 1, 1, 2, 3, 1};

static const uint8_t configuration[] = {
    9, 2, 32,     0, 1, 1, 0, 0x80, 50, /* */
    9, 4, 0,      0, 2, 8, 6, 0x50, 0,  /* bulk-only, SCSI */
    7, 5, EP_IN,  2, 0, 2, 0,           /* */
    7, 5, EP_OUT, 2, 0, 2, 0,           /* */
};

static const uint8_t uas_setting[] = {
    9, 4,    0,          1, 4, 8, 6, 0x62, 0, /* setting 1: UAS, SCSI */
    7, 5,    EP_COMMAND, 2, 0, 2, 0,          /* */
    4, 0x24, 1,          0,                   /* command pipe */
    7, 5,    EP_STATUS,  2, 0, 2, 0,          /* */
    4, 0x24, 2,          0,                   /* status */
    7, 5,    EP_IN,      2, 0, 2, 0,          /* */
    4, 0x24, 3,          0,                   /* data in */
    7, 5,    EP_OUT,     2, 0, 2, 0,          /* */
    4, 0x24, 4,          0,                   /* data out */
};

enum { SETTING_AT = 3, PIPES_AT = 9 + 7, PIPE_STEP = 7 + 4 };
enum { INTERFACE_AT = 9, ENDPOINT_AT = 18 };

static uint32_t string(uint8_t index, uint8_t *at)
{
    static const char *const strings[] = {"", "Cloche", "Model stick", "0123456789AB"};
    if (index == 0) {
        memcpy(at, (uint8_t[]){4, 3, 9, 4}, 4);
        return 4;
    }
    if (index >= sizeof(strings) / sizeof(strings[0]))
        return 0;
    size_t length = strlen(strings[index]);
    at[0] = (uint8_t)(2 + 2 * length);
    at[1] = 3;
    for (size_t i = 0; i < length; i++) {
        at[2 + 2 * i] = (uint8_t)strings[index][i];
        at[3 + 2 * i] = 0;
    }
    return at[0];
}

static uint32_t spoil_configuration(const struct stick *stick, uint8_t *at)
{
    uint32_t size = sizeof(configuration);
    if (stick_has(stick, STICK_TOTAL_LIE))
        at[2] = at[3] = 0xFF;
    if (stick_has(stick, STICK_TOTAL_SHORT))
        at[2] = 200;
    if (stick_has(stick, STICK_COUNT_LIE))
        at[4] = 9;
    if (stick_has(stick, STICK_ENDPOINT_LIE))
        at[INTERFACE_AT + 4] = 3;
    if (stick_has(stick, STICK_NESTED))
        at[ENDPOINT_AT + 1] = 2;
    if (stick_has(stick, STICK_LENGTH_ZERO))
        at[ENDPOINT_AT] = 0;
    if (stick_has(stick, STICK_KEYBOARD))
        memcpy(at + INTERFACE_AT + 5, (uint8_t[]){3, 1, 1}, 3);
    if (stick_has(stick, STICK_NO_ENDPOINTS)) {
        size = ENDPOINT_AT;
        at[2] = ENDPOINT_AT;
        at[INTERFACE_AT + 4] = 0;
    }
    return size;
}

/* Of a boot keyboard: HID 1.11, appendix B.1. */
static const uint8_t report[] = {
    0x05, 0x01, 0x09, 0x06, 0xA1, 0x01, 0x05, 0x07, 0x19, 0xE0, 0x29, 0xE7, 0x15, 0x00, 0x25, 0x01,
    0x75, 0x01, 0x95, 0x08, 0x81, 0x02, 0x95, 0x01, 0x75, 0x08, 0x81, 0x01, 0x95, 0x05, 0x75, 0x01,
    0x05, 0x08, 0x19, 0x01, 0x29, 0x05, 0x91, 0x02, 0x95, 0x01, 0x75, 0x03, 0x91, 0x03, 0x95, 0x06,
    0x75, 0x08, 0x15, 0x00, 0x25, 0x65, 0x05, 0x07, 0x19, 0x00, 0x29, 0x65, 0x81, 0x00, 0xC0,
};

static uint32_t add_keyboard(uint8_t *at, uint32_t size)
{
    static const uint8_t keyboard[] = {
        9, 4,    1,    0, 1, 3, 1,    1,
        0, /* HID, boot, keyboard */
        9, 0x21, 0x11, 1, 0, 1, 0x22, sizeof(report),
        0,                          /* HID 1.11, 6.2.1 */
        7, 5,    0x83, 3, 8, 0, 10, /* interrupt */
    };
    memcpy(at + size, keyboard, sizeof(keyboard));
    size += (uint32_t)sizeof(keyboard);
    at[2] = (uint8_t)size;
    at[4] = 2;
    return size;
}

/* Behind what is there; how many bytes there are then. */
static uint32_t add_uas(const struct stick *stick, uint8_t *at, uint32_t size)
{
    bool only = stick->options.uas_only;
    if (!only && !stick->options.uas)
        return size;
    uint8_t *to = at + (only ? INTERFACE_AT : size);
    memcpy(to, uas_setting, sizeof(uas_setting));
    to[SETTING_AT] = !only;
    for (unsigned i = 0; i < 4; i++) {
        uint8_t *pipe = to + PIPES_AT + i * PIPE_STEP;
        if (stick_has(stick, STICK_PIPES_NONE))
            pipe[1] = 0x25;
        if (stick_has(stick, STICK_PIPES_LIE))
            pipe[2] = (uint8_t)(i < 2 ? i + 1 : 6 - i);
    }
    size = (uint32_t)(to + sizeof(uas_setting) - at);
    at[2] = (uint8_t)size;
    return size;
}

/* Of the second and later interfaces. */
static uint32_t add_interfaces(const struct stick *stick, uint8_t *at, uint32_t size)
{
    for (unsigned i = 1; i < stick->options.interfaces; i++) {
        uint8_t *to = at + size;
        memcpy(to, configuration + INTERFACE_AT, sizeof(configuration) - INTERFACE_AT);
        to[2] = (uint8_t)i;
        to[9 + 2] = (uint8_t)(0x80 | (LATER_ENDPOINTS + 2 * (i - 1)));
        to[9 + 7 + 2] = (uint8_t)(LATER_ENDPOINTS + 2 * (i - 1) + 1);
        size += (uint32_t)(sizeof(configuration) - INTERFACE_AT);
    }
    at[2] = stick->options.interfaces > 1 ? (uint8_t)size : at[2];
    at[4] = stick->options.interfaces > 1 ? (uint8_t)stick->options.interfaces : at[4];
    return size;
}

/* A keyboard and nothing else. */
static uint32_t describe_keyboard(uint8_t *at)
{
    memcpy(at, configuration, INTERFACE_AT);
    uint32_t size = add_keyboard(at, INTERFACE_AT);
    at[INTERFACE_AT + 2] = 0;
    at[4] = 1;
    return size;
}

static uint32_t describe_configuration(const struct stick *stick, unsigned index, uint8_t *at)
{
    bool two = stick->options.configurations == 2;
    if (two && stick_has(stick, STICK_SWAPPED) && stick->configuration)
        index ^= 1;
    if (index >= stick->options.configurations)
        return 0;
    if (two && index == 0)
        return describe_keyboard(at);
    memcpy(at, configuration, sizeof(configuration));
    at[5] = (uint8_t)(index + 1);
    uint32_t size = spoil_configuration(stick, at);
    size = add_uas(stick, at, size);
    size = add_interfaces(stick, at, size);
    return stick_has(stick, STICK_ALSO_KEYBOARD) ? add_keyboard(at, size) : size;
}

uint32_t stick_descriptor(struct stick *stick, uint16_t value, const uint8_t **ret_data)
{
    uint8_t *at = stick->answer;
    uint32_t size = 0;
    *ret_data = at;
    switch (value >> 8) {
    case 1:
        if (stick_has(stick, STICK_DEVICE_STALLS))
            return 0;
        memcpy(at, device, size = sizeof(device));
        if (stick_has(stick, STICK_DEVICE_MANY))
            at[17] = 255;
        else
            at[17] = (uint8_t)stick->options.configurations;
        if (stick_has(stick, STICK_DEVICE_SHORT))
            size = 8;
        break;
    case 2:
        size = describe_configuration(stick, value & 0xFF, at);
        break;
    case 3:
        size = string((uint8_t)value, at);
        if (stick->options.strings && (value & 0xFF) != 0) {
            at[0] = (uint8_t)(size = 2 + STICK_STRING);
            at[1] = 3;
            memcpy(at + 2, stick->options.strings, STICK_STRING);
        }
        if (stick_has(stick, STICK_STRING_JUNK))
            memset(at, 0x55, size);
        break;
    }
    if (stick_has(stick, STICK_RANDOM))
        for (uint32_t i = value >> 8 == 1 ? 4 : 2; i < size; i++)
            at[i] = (uint8_t)rand();
    return size;
}

static struct result stall(void)
{
    return (struct result){.status = -EPIPE};
}

static void reset_interfaces(struct stick *stick)
{
    for (unsigned i = 0; i < stick->options.interfaces; i++) {
        struct stick *one = stick_interface(stick, i);
        stick_bulk_reset(one);
        one->in_halted = one->out_halted = false;
    }
}

struct result stick_control(struct stick *stick, const uint8_t *setup, const uint8_t *data,
                            uint32_t length)
{
    uint16_t request = (uint16_t)(setup[0] << 8 | setup[1]);
    uint16_t value = (uint16_t)(setup[2] | setup[3] << 8);
    uint16_t index = (uint16_t)(setup[4] | setup[5] << 8);
    struct result result = {.data = stick->answer};
    struct stick *one;
    switch (request) {
    case 0x8006: /* GET_DESCRIPTOR */
        result.actual = stick_descriptor(stick, value, &result.data);
        if (result.actual == 0)
            return stall();
        break;
    case 0x0009: /* SET_CONFIGURATION */
        stick->configuration = (uint8_t)value;
        reset_interfaces(stick);
        return result;
    case 0x8008: /* GET_CONFIGURATION */
        stick->answer[0] = stick->configuration;
        if (stick_has(stick, STICK_SWAPPED) && stick->configuration)
            stick->answer[0] ^= 3;
        result.actual = 1;
        break;
    case 0x8106: /* GET_DESCRIPTOR of an interface: the keyboard's report */
        if (value >> 8 != 0x22)
            return stall();
        memcpy(stick->answer, report, sizeof(report));
        result.actual = sizeof(report);
        break;
    case 0x210A: /* SET_IDLE */
        return result;
    case 0x010B: /* SET_INTERFACE */
        if (value == 0 && stick_has(stick, STICK_NO_WAY_BACK))
            return stall();
        stick_bulk_reset(stick);
        stick->in_halted = stick->out_halted = false;
        stick_uas_reset(stick, stick->options.uas_only || value == 1);
        return result;
    case 0x0201: /* CLEAR_FEATURE(ENDPOINT_HALT): 5.3.4 keeps them until reset recovery */
        stick->counts.cleared_halts++;
        one = stick_of_endpoint(stick, (uint8_t)index);
        if (index == EP_IN || (one != stick && index & 0x80))
            one->in_halted = one->wedged;
        else if (index == EP_OUT || one != stick)
            one->out_halted = one->wedged;
        else if (index == EP_STATUS)
            stick->uas.status_halted = false;
        else if (index == EP_COMMAND)
            stick->uas.command_halted = false;
        else
            return stall();
        return result;
    case 0x21FF: /* Bulk-Only Mass Storage Reset */
        one = stick_interface(stick, index);
        if (!one)
            return stall();
        one->counts.class_resets++;
        if (stick_always_has(one, STICK_RESET_STALLS))
            return stall();
        stick_bulk_reset(one);
        return result;
    case 0x2303: /* the port's SET_FEATURE(PORT_RESET) */
        stick->counts.port_resets++;
        stick_uas_reset(stick, stick->options.uas_only);
        reset_interfaces(stick);
        return result;
    case 0xA1FE: /* GET MAX LUN */
        one = stick_interface(stick, index);
        if (!one || stick_has(one, STICK_LUN_STALLS))
            return stall();
        stick->answer[0] = (uint8_t)(stick_has(one, STICK_LUN_LIE) ? 200 : one->options.units - 1);
        result.actual = 1;
        break;
    default:
        return stall();
    }
    if (result.actual > length)
        result.actual = length;
    return result;
}
