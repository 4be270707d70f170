#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <base/text.h>

#include "usb_policy.h"
#include "usb_url.h"

#define STICK 0x080650U
#define KEYBOARD 0x030101U

static struct usb_identity device(uint32_t first, uint32_t second)
{
    struct usb_identity identity = {.vendor = 0x46f4,
                                    .product = 0x0001,
                                    .classes = {first, second},
                                    .classes_count = second ? 2 : 1};

    identity.storage = first == STICK || second == STICK;
    identity.storage_only = first == STICK && (!second || second == STICK);
    identity.hub = first >> 16 == USB_CLASS_HUB;
    snprintf(identity.serial, sizeof(identity.serial), "S-1");
    return identity;
}

static void without_rules_only_sticks_are_allowed(void **state)
{
    const struct usb_identity stick = device(STICK, 0), both = device(STICK, KEYBOARD),
                              keyboard = device(KEYBOARD, 0), hub = device(0x090000, 0);

    assert_int_equal(usb_rule_verdict(NULL, &stick, false), USB_ALLOW);
    assert_int_equal(usb_rule_verdict(NULL, &both, true), USB_DENY);
    assert_int_equal(usb_rule_verdict(NULL, &both, false), USB_KERNEL);
    assert_int_equal(usb_rule_verdict(NULL, &keyboard, true), USB_DENY);
    assert_int_equal(usb_rule_verdict(NULL, &keyboard, false), USB_KERNEL);
    assert_int_equal(usb_rule_verdict(NULL, &hub, true), USB_KERNEL);
}

static bool fits(struct api_usb_rule rule, const struct usb_identity *identity)
{
    return usb_rule_fits(&rule, identity, "1-4.2");
}

static void every_member_of_a_rule_has_to_fit(void **state)
{
    const struct usb_identity stick = device(STICK, 0), both = device(STICK, KEYBOARD);
    char *storage[] = {(char *)"08", NULL}, *exact[] = {(char *)"08:06:50", (char *)"03", NULL};

    assert_true(fits((struct api_usb_rule){.vendor = (char *)"46F4"}, &stick));
    assert_false(fits((struct api_usb_rule){.vendor = (char *)"46f5"}, &stick));
    assert_false(
        fits((struct api_usb_rule){.vendor = (char *)"46f4", .product = (char *)"0002"}, &stick));
    assert_true(fits((struct api_usb_rule){.serial = (char *)"S-*"}, &stick));
    assert_false(fits((struct api_usb_rule){.serial = (char *)"s-*"}, &stick));
    assert_true(fits((struct api_usb_rule){.port = (char *)"1-4.*"}, &stick));
    assert_false(fits((struct api_usb_rule){.port = (char *)"1-5*"}, &stick));
    assert_true(fits((struct api_usb_rule){.classes = storage, .classes_count = 1}, &stick));
    assert_false(fits((struct api_usb_rule){.classes = storage, .classes_count = 1}, &both));
    assert_true(fits((struct api_usb_rule){.classes = exact, .classes_count = 2}, &both));
    assert_false(
        fits((struct api_usb_rule){.storage_only = true, .has_storage_only = true}, &both));
    assert_true(fits((struct api_usb_rule){.has_storage_only = true}, &both));
}

static void a_rule_that_allows_what_has_no_storage_leaves_it_to_the_kernel(void **state)
{
    const struct usb_identity keyboard = device(KEYBOARD, 0), both = device(KEYBOARD, STICK);
    const struct api_usb_rule allow = {.action = (char *)"allow"},
                              deny = {.action = (char *)"deny"};

    assert_int_equal(usb_rule_verdict(&allow, &keyboard, true), USB_KERNEL);
    assert_int_equal(usb_rule_verdict(&allow, &both, true), USB_ALLOW);
    assert_int_equal(usb_rule_verdict(&deny, &both, false), USB_DENY);
}

static void words_that_make_no_sense_are_refused(void **state)
{
    char *classes[] = {(char *)"8", NULL};
    const struct api_usb_rule wrong[] = {{.vendor = (char *)"46f"},
                                         {.product = (char *)"00zz"},
                                         {.classes = classes, .classes_count = 1}};

    for (size_t i = 0; i < 3; i++)
        assert_true(usb_rule_check(&wrong[i], NULL) < 0);
}

static void devices_are_named_by_their_numbers(void **state)
{
    const struct usb_identity stick = device(STICK, 0);
    static const char *const wrong[] = {"46f4", "46f4:001", "46f4:0001:", "46f4-0001",
                                        "46f4:00012"};

    assert_true(usb_device_fits("46f4:0001", &stick));
    assert_true(usb_device_fits("46F4:0001:S-1", &stick));
    assert_false(usb_device_fits("46f4:0001:S-2", &stick));
    for (size_t i = 0; i < 5; i++)
        assert_false(usb_device_fits(wrong[i], &stick));
}

static void remote_devices_have_urls(void **state)
{
    static const char *const wrong[] = {
        "usbip://",           "usbip://host",       "usbip://host/",    "usbip://:1/1-1",
        "usbip://host:0/1-1", "usbip://host:x/1-1", "usbip://host/1/1", "http://host/1-1"};
    static const char *const right[][2] = {
        {"usbip://host/1-1", "usbip://host:3240/1-1"},
        {"usbip://host:77/2-1.4", "usbip://host:77/2-1.4"},
        {"usbip://[::1]/1-1", "usbip://[::1]:3240/1-1"},
    };

    for (size_t i = 0; i < 8; i++) {
        struct usb_url *url = NULL;
        assert_true(usb_url_parse(wrong[i], &url, NULL) < 0);
    }
    for (size_t i = 0; i < 3; i++) {
        struct usb_url *url = NULL;
        assert_int_equal(usb_url_parse(right[i][0], &url, NULL), 0);
        char *text = usb_url_text(url);
        assert_string_equal(text, right[i][1]);
        free(text);
        usb_url_free(url);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_rules_only_sticks_are_allowed),
        cmocka_unit_test(every_member_of_a_rule_has_to_fit),
        cmocka_unit_test(a_rule_that_allows_what_has_no_storage_leaves_it_to_the_kernel),
        cmocka_unit_test(words_that_make_no_sense_are_refused),
        cmocka_unit_test(devices_are_named_by_their_numbers),
        cmocka_unit_test(remote_devices_have_urls),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
