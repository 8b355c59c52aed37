# SPDX-License-Identifier: MIT
# cmake -Dsource=DIR -Dbinary=DIR -Dgenerator=NAME -DCMAKE_...=... [-Dtop=VMKIT] [-Dinstall=BUILD_DIR] -P consumer.cmake
#
# Configure, build and test the project in `source`, from nothing, with the CMAKE_ settings that vmkit has. With `install`:
# after installing that build of vmkit to a prefix of its own, and moving the prefix elsewhere, which it must bear.
cmake_minimum_required(VERSION 3.25)
function(run)
  execute_process(COMMAND ${ARGN} COMMAND_ECHO STDOUT RESULT_VARIABLE result)
  if(result)
    message(FATAL_ERROR "that failed: ${result}")
  endif()
endfunction()

file(REMOVE_RECURSE "${binary}")
set(settings "-DVMKIT_TOP=${top}")
foreach(name CMAKE_TOOLCHAIN_FILE CMAKE_C_COMPILER CMAKE_C_FLAGS CMAKE_BUILD_TYPE)
  list(APPEND settings "-D${name}=${${name}}")
endforeach()
if(install)
  run("${CMAKE_COMMAND}" --install "${install}" --prefix "${binary}/made")
  file(RENAME "${binary}/made" "${binary}/prefix")
  # CMAKE_FIND_ROOT_PATH_MODE_PACKAGE is ONLY in the toolchain files, so not by CMAKE_PREFIX_PATH.
  file(GLOB_RECURSE config "${binary}/prefix/vmkit-config.cmake")
  cmake_path(GET config PARENT_PATH config)
  list(APPEND settings "-Dvmkit_DIR=${config}" "-DVMKIT_PREFIX=${binary}/prefix")
endif()
run("${CMAKE_COMMAND}" -S "${source}" -B "${binary}/build" -G "${generator}" ${settings})
run("${CMAKE_COMMAND}" --build "${binary}/build")
run("${CMAKE_CTEST_COMMAND}" --test-dir "${binary}/build" --output-on-failure --no-tests=error --timeout 60)
