/* SPDX-License-Identifier: MIT
 *
 * The end of the program on misuse and on failed assertions. Written without the C library's formatted output, which
 * allocates and locks: the heap to allocate from may be the one that is broken.
 */
#include "common/base/check.h"

#include <string.h>

#include "common/base/os.h"

static struct {
    vmk_misuse_hook *call;
    void *context;
} hook;

void vmk_set_misuse_hook(vmk_misuse_hook *call, void *context)
{
    hook.call = call;
    hook.context = context;
}

/* A line of text of bounded length; what does not fit is cut. */
typedef struct line {
    char text[256];
    size_t length;
} line;

static void line_add(line *out, const char *text)
{
    size_t length = strlen(text);
    size_t room = sizeof out->text - out->length;
    if (length > room)
        length = room;
    memcpy(out->text + out->length, text, length);
    out->length += length;
}

static void line_add_number(line *out, uintptr_t value, unsigned base, size_t least_digits)
{
    char digits[sizeof value * 3 + 1];
    char *first = digits + sizeof digits - 1;
    *first = '\0';
    while (value != 0 || (size_t)(digits + sizeof digits - 1 - first) < least_digits) {
        *--first = "0123456789abcdef"[value % base];
        value /= base;
    }
    line_add(out, first);
}

void vmki_misuse(const char *crime, const void *address)
{
    if (hook.call != NULL)
        hook.call(crime, address, hook.context);
    line out = {.length = 0};
    line_add(&out, "vmkit: ");
    line_add(&out, crime);
    line_add(&out, ": 0x");
    line_add_number(&out, (uintptr_t)address, 16, sizeof(void *) * 2);
    line_add(&out, "\n");
    vmki_os_write_error(out.text, out.length);
    vmki_os_abort();
}

void vmki_assert_failed(const char *condition, const char *file, unsigned number)
{
    line out = {.length = 0};
    line_add(&out, "vmkit: assertion failed: ");
    line_add(&out, condition);
    line_add(&out, " (");
    line_add(&out, file);
    line_add(&out, ":");
    line_add_number(&out, number, 10, 1);
    line_add(&out, ")\n");
    vmki_os_write_error(out.text, out.length);
    vmki_os_abort();
}
