# SPDX-License-Identifier: MIT
# find_package(vmkit): vmkit::vmkit, and by their kinds vmkit::static and vmkit::shared.
include(CMakeFindDependencyMacro)
if(NOT WIN32)
  set(THREADS_PREFER_PTHREAD_FLAG ON)
  find_dependency(Threads)
endif()
include("${CMAKE_CURRENT_LIST_DIR}/vmkit-targets.cmake")
