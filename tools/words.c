/* SPDX-License-Identifier: MIT */
#include <inttypes.h>
#include <string.h>

#include "tool.h"

short_text size_text(uint64_t bytes)
{
    static const char unit[] = "KMGTPE";
    short_text text;
    if (bytes == 0) {
        snprintf(text.s, sizeof text.s, "0");
    } else if (bytes == VMK_UNLIMITED) {
        snprintf(text.s, sizeof text.s, "none");
    } else if (bytes < 1024) {
        snprintf(text.s, sizeof text.s, "%u B", (unsigned)bytes);
    } else {
        unsigned shift = 10;
        while (shift < 60 && bytes >> shift >= 1024)
            shift += 10;
        uint64_t whole = bytes >> shift;
        uint64_t tenths = ((bytes - (whole << shift)) >> (shift - 10)) * 10 >> 10;
        if (shift == 10 && tenths == 0) /* the tables of a small heap: whole pages */
            snprintf(text.s, sizeof text.s, "%u KiB", (unsigned)whole);
        else
            snprintf(text.s, sizeof text.s, "%u.%u %ciB", (unsigned)whole, (unsigned)tenths, unit[shift / 10 - 1]);
    }
    return text;
}

short_text address_text(uintptr_t address)
{
    short_text text;
    snprintf(text.s, sizeof text.s, "0x%0*" PRIxPTR, sizeof address > 4 ? 12 : 8, address);
    return text;
}

short_text change_text(uint64_t before, uint64_t after)
{
    short_text text;
    bool more = after >= before;
    uint64_t change = more ? after - before : before - after;
    snprintf(text.s, sizeof text.s, "%c%.20s", more ? '+' : '-', change == 0 ? "0" : size_text(change).s);
    return text;
}

/* The digits that the word begins with; where they end, or NULL if there are none or too many. */
static const char *parse_digits(const char *word, uint64_t *number)
{
    uint64_t sum = 0;
    const char *at = word;
    for (; *at >= '0' && *at <= '9'; at++) {
        unsigned digit = (unsigned)(*at - '0');
        if (sum > (UINT64_MAX - digit) / 10)
            return NULL;
        sum = sum * 10 + digit;
    }
    *number = sum;
    return at == word ? NULL : at;
}

bool parse_number(const char *word, uint64_t *number)
{
    const char *end = parse_digits(word, number);
    return end != NULL && *end == '\0';
}

bool parse_size(const char *word, uint64_t *size)
{
    static const char units[] = "kKmMgGtT";
    uint64_t number;
    unsigned shift = 0;
    const char *end = parse_digits(word, &number);
    if (end == NULL)
        return false;
    if (*end != '\0') {
        const char *unit = strchr(units, *end);
        if (unit == NULL)
            return false;
        shift = 10 + 10 * (unsigned)((unit - units) / 2);
        end++;
    }
    bool at_end = *end == '\0' || strcmp(end, "B") == 0 || (shift != 0 && strcmp(end, "iB") == 0);
    if (!at_end || number > UINT64_MAX >> shift)
        return false;
    *size = number << shift;
    return true;
}
