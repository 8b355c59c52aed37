/* SPDX-License-Identifier: MIT
 *
 * To be written.
 */
#include "common/base/os_service.h"
#include "common/vm/vm.h"
