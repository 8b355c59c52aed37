# SPDX-License-Identifier: MIT
# The target vmkit_check: the unit test framework Check, for whatever is being built for.
#
# Built here from third_party/check (scripts/get-check.sh), for no distribution has it for 32 bits or for Windows. It takes
# ten seconds of configuring for one of building, so the result is kept beside the source, one for each compiler and set of
# flags (a sanitizer wants its libraries instrumented too), and found by the next build directory.
set(check_source "${PROJECT_SOURCE_DIR}/third_party/check")
set(check_flags "${CMAKE_C_FLAGS} -w")
if(MINGW) # for %zu
  string(APPEND check_flags " -D__USE_MINGW_ANSI_STDIO=1")
endif()
string(SHA256 check_key "${CMAKE_C_COMPILER};${CMAKE_C_COMPILER_VERSION};${check_flags};${CMAKE_TOOLCHAIN_FILE}")
string(SUBSTRING "${check_key}" 0 12 check_key)
set(check_prefix "${PROJECT_SOURCE_DIR}/third_party/check-built/${CMAKE_SYSTEM_NAME}-${check_key}")

if(NOT EXISTS "${check_prefix}/lib/cmake/check/check-config.cmake")
  if(NOT EXISTS "${check_source}/CMakeLists.txt")
    message(FATAL_ERROR "The tests need Check. Run scripts/get-check.sh first, or turn them off: -DVMKIT_TESTS=OFF")
  endif()
  message(STATUS "Building Check into ${check_prefix}")
  set(check_build "${CMAKE_CURRENT_BINARY_DIR}/check-build")
  file(REMOVE_RECURSE "${check_build}")
  # HAVE_SUBUNIT: with libsubunit-dev there, Check 0.15.2 doesn't compile. POLICY_VERSION_MINIMUM: for CMake 4.
  set(check_steps
    "-S|${check_source}|-B|${check_build}|-G|${CMAKE_GENERATOR}|-DCMAKE_BUILD_TYPE=Release|-DCMAKE_INSTALL_PREFIX=${check_prefix}|-DCMAKE_INSTALL_LIBDIR=lib|-DCMAKE_C_COMPILER=${CMAKE_C_COMPILER}|-DCMAKE_C_FLAGS=${check_flags}|-DCMAKE_TOOLCHAIN_FILE=${CMAKE_TOOLCHAIN_FILE}|-DHAVE_SUBUNIT=0|-DBUILD_TESTING=OFF|-DCHECK_ENABLE_TESTS=OFF|-DCMAKE_POLICY_VERSION_MINIMUM=3.5"
    "--build|${check_build}|--parallel|2"
    "--install|${check_build}")
  foreach(step IN LISTS check_steps)
    string(REPLACE "|" ";" step "${step}")
    execute_process(COMMAND "${CMAKE_COMMAND}" ${step} OUTPUT_VARIABLE check_log ERROR_VARIABLE check_log RESULT_VARIABLE failed)
    if(failed)
      message(FATAL_ERROR "Check can't be built:\n${check_log}")
    endif()
  endforeach()
  file(REMOVE_RECURSE "${check_build}")
endif()

# NO_DEFAULT_PATH: never the distribution's, which is for one target of four. FIND_ROOT_PATH: see the toolchain files.
find_package(check CONFIG REQUIRED PATHS "${check_prefix}" NO_DEFAULT_PATH NO_CMAKE_FIND_ROOT_PATH)
add_library(vmkit_check INTERFACE)
target_link_libraries(vmkit_check INTERFACE Check::check)
if(MINGW) # Check uses MinGW's pthreads there; -static, or each test needs their DLL; gcc thinks that its formats are Microsoft's
  target_link_libraries(vmkit_check INTERFACE -pthread)
  target_compile_options(vmkit_check INTERFACE -Wno-format -Wno-format-extra-args)
  target_link_options(vmkit_check INTERFACE -static)
endif()
