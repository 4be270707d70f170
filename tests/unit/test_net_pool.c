#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>

#include <base/error.h>
#include <net/address.h>
#include <net/pool.h>

static struct in_addr ip(const char *text)
{
    struct in_addr address;

    assert_int_equal(net_address_parse(text, &address, NULL), 0);
    return address;
}

static struct net_subnet subnet_of(const char *text)
{
    struct net_subnet subnet;

    assert_int_equal(net_subnet_parse(text, &subnet, NULL), 0);
    return subnet;
}

static void assert_address(struct in_addr address, const char *expected)
{
    char text[NET_ADDRESS_TEXT];

    assert_string_equal(net_address_format(address, text), expected);
}

static void addresses_are_dotted_quads_only(void **state)
{
    const char *bad[] = {"",          "1",        "1.2.3",     "1.2.3.4.5",
                         "256.1.1.1", "1.2.3.4 ", "01x.2.3.4", "::1"};

    assert_address(ip("10.1.2.3"), "10.1.2.3");
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        _cleanup_error_ struct error err = ERROR_INIT;
        struct in_addr address;

        assert_int_equal(net_address_parse(bad[i], &address, &err), -EINVAL);
        assert_non_null(strstr(error_message(&err), bad[i]));
    }
}

static void a_subnet_knows_its_borders(void **state)
{
    struct net_subnet subnet = subnet_of("172.20.16.1/20");
    char text[NET_SUBNET_TEXT];

    assert_string_equal(net_subnet_format(&subnet, text), "172.20.16.1/20");
    assert_address(net_subnet_network(&subnet), "172.20.16.0");
    assert_address(net_subnet_broadcast(&subnet), "172.20.31.255");
    assert_true(net_subnet_contains(&subnet, ip("172.20.16.0")));
    assert_true(net_subnet_contains(&subnet, ip("172.20.31.255")));
    assert_false(net_subnet_contains(&subnet, ip("172.20.32.0")));
    assert_false(net_subnet_contains(&subnet, ip("172.20.15.255")));
    subnet = subnet_of("10.0.0.0/8");
    assert_address(subnet.gateway, "10.0.0.1");
    assert_address(net_subnet_broadcast(&subnet), "10.255.255.255");
}

static void broken_subnets_are_refused(void **state)
{
    const char *bad[] = {"10.0.0.1",    "10.0.0.1/",     "10.0.0.1/7",        "10.0.0.1/31",
                         "10.0.0.1/-8", "10.0.0.1/24x",  "10.0.0.255/24",     "/24",
                         "10.0.0/24",   "10.0.0.1/24/8", "100.100.100.1000/8"};

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct net_subnet subnet;

        assert_int_equal(net_subnet_parse(bad[i], &subnet, NULL), -EINVAL);
    }
}

static void the_mac_follows_the_address(void **state)
{
    const uint8_t expected[6] = {0x02, 0x42, 172, 20, 16, 9};
    uint8_t mac[6];

    net_address_mac(ip("172.20.16.9"), mac);
    assert_memory_equal(mac, expected, sizeof(mac));
}

static void the_smallest_pool_has_one_address(void **state)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    struct net_subnet subnet = subnet_of("10.0.0.1/30");
    struct net_pool *pool = net_pool_create(&subnet, NULL);
    struct in_addr address;

    assert_int_equal(net_pool_free(pool), 1);
    assert_int_equal(net_pool_allocate(pool, &address, NULL), 0);
    assert_address(address, "10.0.0.2");
    assert_int_equal(net_pool_allocate(pool, &address, &err), -EADDRNOTAVAIL);
    assert_string_equal(error_message(&err), "no free address is left in subnet 10.0.0.1/30");
    net_pool_release(pool, ip("10.0.0.2"));
    assert_int_equal(net_pool_allocate(pool, &address, NULL), 0);
    assert_address(address, "10.0.0.2");
    net_pool_destroy(pool);
}

static void every_address_is_given_once(void **state)
{
    struct net_subnet subnet = subnet_of("10.3.0.130/22"); /* a gateway in the middle of it */
    struct net_pool *pool = net_pool_create(&subnet, NULL);
    uint8_t seen[1024] = {0};
    struct in_addr address;

    for (int i = 0; i < 1024 - 3; i++) {
        assert_int_equal(net_pool_allocate(pool, &address, NULL), 0);
        uint32_t offset = ntohl(address.s_addr) - ntohl(ip("10.3.0.0").s_addr);
        assert_in_range(offset, 1, 1022);
        assert_int_not_equal(offset, 130);
        assert_int_equal(seen[offset]++, 0);
    }
    assert_int_equal(net_pool_allocate(pool, &address, NULL), -EADDRNOTAVAIL);
    assert_int_equal(net_pool_used(pool), 1021);
    assert_int_equal(net_pool_free(pool), 0);
    net_pool_release(pool, ip("10.3.2.77"));
    assert_int_equal(net_pool_allocate(pool, &address, NULL), 0);
    assert_address(address, "10.3.2.77");
    net_pool_destroy(pool);
}

static void a_released_address_rests_until_the_search_went_round(void **state)
{
    struct net_subnet subnet = subnet_of("10.0.0.1/28"); /* .2 to .14 */
    struct net_pool *pool = net_pool_create(&subnet, NULL);
    struct in_addr address;
    char expected[NET_ADDRESS_TEXT];

    for (unsigned i = 2; i <= 14; i++) {
        assert_int_equal(net_pool_allocate(pool, &address, NULL), 0);
        snprintf(expected, sizeof(expected), "10.0.0.%u", i);
        assert_address(address, expected);
        net_pool_release(pool, address);
    }
    assert_int_equal(net_pool_allocate(pool, &address, NULL), 0);
    assert_address(address, "10.0.0.2");
    net_pool_destroy(pool);
}

static void reserved_addresses_are_skipped(void **state)
{
    struct net_subnet subnet = subnet_of("10.0.0.1/29");
    struct net_pool *pool = net_pool_create(&subnet, NULL);
    _cleanup_error_ struct error err = ERROR_INIT;
    struct in_addr address;

    assert_int_equal(net_pool_reserve(pool, ip("10.0.0.2"), NULL), 0);
    assert_int_equal(net_pool_reserve(pool, ip("10.0.0.2"), &err), -EADDRINUSE);
    assert_int_equal(net_pool_allocate(pool, &address, NULL), 0);
    assert_address(address, "10.0.0.3");
    assert_int_equal(net_pool_reserve(pool, ip("10.0.0.0"), NULL), -EINVAL);
    assert_int_equal(net_pool_reserve(pool, ip("10.0.0.1"), NULL), -EINVAL);
    assert_int_equal(net_pool_reserve(pool, ip("10.0.0.7"), NULL), -EINVAL);
    assert_int_equal(net_pool_reserve(pool, ip("10.0.0.8"), NULL), -EINVAL);
    assert_int_equal(net_pool_reserve(pool, ip("9.255.255.255"), NULL), -EINVAL);
    assert_int_equal(net_pool_used(pool), 2);
    net_pool_destroy(pool);
}

static void releasing_what_is_not_ours_changes_nothing(void **state)
{
    const char *others[] = {"10.0.0.0",      "10.0.0.1", "10.0.0.7", "10.0.0.8",
                            "9.255.255.255", "10.0.0.5", "0.0.0.0",  "255.255.255.255"};
    struct net_subnet subnet = subnet_of("10.0.0.1/29");
    struct net_pool *pool = net_pool_create(&subnet, NULL);
    struct in_addr address;

    for (size_t i = 0; i < ARRAY_SIZE(others); i++)
        net_pool_release(pool, ip(others[i]));
    assert_int_equal(net_pool_used(pool), 0);
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(net_pool_allocate(pool, &address, NULL), 0);
    assert_int_equal(net_pool_allocate(pool, &address, NULL), -EADDRNOTAVAIL);
    net_pool_destroy(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses_are_dotted_quads_only),
        cmocka_unit_test(a_subnet_knows_its_borders),
        cmocka_unit_test(broken_subnets_are_refused),
        cmocka_unit_test(the_mac_follows_the_address),
        cmocka_unit_test(the_smallest_pool_has_one_address),
        cmocka_unit_test(every_address_is_given_once),
        cmocka_unit_test(a_released_address_rests_until_the_search_went_round),
        cmocka_unit_test(reserved_addresses_are_skipped),
        cmocka_unit_test(releasing_what_is_not_ours_changes_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
