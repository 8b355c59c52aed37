/* SPDX-License-Identifier: MIT
 *
 * To be written.
 */
#include "win32/os_private.h"

#include "common/base/os_service.h"

void vmki_os_probe_pressure(vmk_caps *caps)
{
    (void)caps;
}
