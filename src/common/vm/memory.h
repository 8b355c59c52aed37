/* SPDX-License-Identifier: MIT
 *
 * Of memory and its views, what their files share.
 */
#ifndef VMKI_MEMORY_H
#define VMKI_MEMORY_H

#include "common/base/align.h"
#include "common/base/os_service.h"

/* Its size as the last resize by any thread has left it. */
uint64_t vmki_memory_size(const vmk_memory *memory);

/* Misuse unless it is live; both texts begin with the function's name. */
void vmki_memory_require(const vmk_memory *memory, const char *not_live, const char *ended);
#define VMKI_REQUIRE_MEMORY(memory, function)                                                                          \
    vmki_memory_require(memory, function ": not memory", function ": memory was done with before")

void vmki_view_require(const vmk_view *view, const char *not_live, const char *unmapped);
#define VMKI_REQUIRE_VIEW(view, function)                                                                              \
    vmki_view_require(view, function ": not a view", function ": view was unmapped before")

#endif
