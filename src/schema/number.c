#include <locale.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include <schema/number.h>

/* Made once, and kept. */
static locale_t plain_locale(void)
{
    static _Atomic(locale_t) known;
    locale_t locale = atomic_load(&known);

    if (locale)
        return locale;
    locale_t made = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    if (atomic_compare_exchange_strong(&known, &locale, made))
        return made;
    freelocale(made);
    return locale;
}

double json_to_double(const char *text)
{
    locale_t before = uselocale(plain_locale());
    double value = strtod(text, NULL);

    uselocale(before);
    return value;
}

void json_from_double(double value, char ret[JSON_NUMBER_SIZE])
{
    locale_t before = uselocale(plain_locale());

    for (int digits = 15; digits <= 17; digits++) {
        snprintf(ret, JSON_NUMBER_SIZE, "%.*g", digits, value);
        if (strtod(ret, NULL) == value)
            break;
    }
    uselocale(before);
}
