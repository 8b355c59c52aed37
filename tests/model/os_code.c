/* SPDX-License-Identifier: MIT
 *
 * To be written.
 */
#include "model/model_private.h"

#include "common/base/os_service.h"

void vmki_os_probe_code(vmk_caps *caps)
{
    (void)caps;
}
