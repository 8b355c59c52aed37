/* SPDX-License-Identifier: MIT */
/* A compiler of one function, which adds two numbers: it is written where memory is writable, and run where it is
 * executable. */
#include <stdio.h>
#include <string.h>

#include "vmkit.h"

#if defined(_WIN64)
static const unsigned char add[] = {0x8D, 0x04, 0x11, 0xC3}; /* lea eax, [rcx + rdx]; ret */
#elif defined(__x86_64__)
static const unsigned char add[] = {0x8D, 0x04, 0x37, 0xC3}; /* lea eax, [rdi + rsi]; ret */
#elif defined(__i386__) || defined(_M_IX86)
static const unsigned char add[] = {0x8B, 0x44, 0x24, 0x04, /* mov eax, [esp + 4] */
                                    0x03, 0x44, 0x24, 0x08, /* add eax, [esp + 8] */
                                    0xC3};                  /* ret */
#else
static const unsigned char add[] = {0};
#endif

int main(void)
{
    vmk_code code;
    int (*function)(int, int);
    if (sizeof add == 1) {
        printf("no code for this processor\n");
        return 0;
    }
    vmk_status status = vmk_code_init(&code, sizeof add, 0);
    if (status == VMK_OK)
        status = vmk_code_begin(&code, 0, sizeof add);
    if (status != VMK_OK) {
        printf("no code: %s\n", vmk_status_text(status));
        return 1;
    }
    memcpy(code.write, add, sizeof add);
    status = vmk_code_end(&code, 0, sizeof add);
    if (status != VMK_OK)
        return 1;
    memcpy(&function, &code.base, sizeof function);
    printf("2 + 3 = %d, in memory that is %s\n", function(2, 3), code.twice ? "mapped twice" : "flipped");
    vmk_code_fini(&code);
    return 0;
}
