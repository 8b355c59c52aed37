/* SPDX-License-Identifier: MIT
 *
 * Names of status codes, from the one table in vmkit.h.
 */
#include "vmkit.h"

const char *vmk_status_name(vmk_status status)
{
    switch (status) {
#define CASE(code, text)                                                                                               \
    case code:                                                                                                         \
        return #code;
        VMK_STATUS_TABLE(CASE)
#undef CASE
    case VMK_STATUS_COUNT:
        break;
    }
    return "unknown status";
}

const char *vmk_status_text(vmk_status status)
{
    switch (status) {
#define CASE(code, text)                                                                                               \
    case code:                                                                                                         \
        return text;
        VMK_STATUS_TABLE(CASE)
#undef CASE
    case VMK_STATUS_COUNT:
        break;
    }
    return "unknown status";
}
