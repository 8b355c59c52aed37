/* SPDX-License-Identifier: MIT
 *
 * The whole record of what this system can do. Apart from system.c, for trying out all services links their code, and
 * takes milliseconds, where all that a heap wants to know takes some forty system calls.
 */
#include "common/base/os_service.h"
#include "common/vm/vm.h"

const vmk_caps *vmk_capabilities(void)
{
    static vmk_caps caps;
    static size_t probed; /* 1 once caps is whole */
    if (VMKI_LIKELY(VMK_LOAD_ACQUIRE(&probed) != 0))
        return &caps;
    vmk_caps found = *vmki_vm_basics();
    vmki_os_error before = vmki_os_error_get();
    vmki_os_probe_service(&found); /* by as many threads as come here first; one of them publishes */
    vmki_os_probe_memory(&found);
    vmki_code_probe(&found);
    vmki_os_probe_pressure(&found);
    vmki_os_probe_watch(&found);
    vmki_vm_lock();
    if (probed == 0) {
        caps = found;
        VMKI_STORE_RELEASE(&probed, 1);
    }
    vmki_vm_unlock();
    vmki_os_error_set(before);
    return &caps;
}
