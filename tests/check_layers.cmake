# SPDX-License-Identifier: MIT
# cmake -Dtop=DIR -P check_layers.cmake: what docs/architecture.md promises about the sources, as far as a search can tell.
cmake_minimum_required(VERSION 3.25)
set(layers base vm table heap gc) # each may use itself and those before it
set(system_words
    "_WIN32|_WIN64|WIN32|__CYGWIN__|__linux__|__linux|linux|__unix__|__unix|unix|__APPLE__|__MACH__|__FreeBSD__|__NetBSD__|__OpenBSD__|__sun|_POSIX_[A-Z_]*|_GNU_SOURCE")
set(compiler_words "__GNUC__|__clang__|_MSC_VER|__MINGW[A-Z0-9_]*")
set(standard_headers "limits|stdalign|stdarg|stdbool|stddef|stdint|string")

function(violation text)
  set_property(GLOBAL APPEND PROPERTY violations "${text}")
endfunction()

# The text without comments: those may speak of any system.
function(read_code file result)
  file(READ "${file}" text)
  set(code "")
  string(FIND "${text}" "/*" open)
  while(NOT open EQUAL -1)
    string(SUBSTRING "${text}" 0 ${open} before)
    string(APPEND code "${before} ")
    string(SUBSTRING "${text}" ${open} -1 text)
    string(FIND "${text}" "*/" close)
    math(EXPR close "${close} + 2")
    string(SUBSTRING "${text}" ${close} -1 text)
    string(FIND "${text}" "/*" open)
  endwhile()
  set(${result} "${code}${text}" PARENT_SCOPE)
endfunction()

# Every include in the code must match one of the patterns.
function(check_includes name code)
  string(REGEX MATCHALL "#[ \t]*include[ \t]*[<\"][^>\"]*" includes "${code}")
  list(TRANSFORM includes REPLACE "^.*[<\"]" "")
  foreach(include IN LISTS includes)
    set(allowed FALSE)
    foreach(pattern ${ARGN})
      if(include MATCHES "^(${pattern})$")
        set(allowed TRUE)
      endif()
    endforeach()
    if(NOT allowed)
      violation("${name} may not include ${include}")
    endif()
  endforeach()
endfunction()

# No #if may ask for one of the words; but for the one exception.
function(check_conditions name code words except)
  string(REGEX MATCHALL "#[ \t]*(if|ifdef|ifndef|elif)[^\n]*" conditions "${code}")
  foreach(condition IN LISTS conditions)
    if(condition MATCHES "(^|[^A-Za-z0-9_])(${words})([^A-Za-z0-9_]|$)" AND NOT condition STREQUAL "${except}")
      violation("${name} may not ask for what it is compiled: ${condition}")
    endif()
  endforeach()
endfunction()

# --- the common part: no system, lower layers only --------------------------------------------------------------------

set(lower "")
foreach(layer IN LISTS layers)
  list(APPEND lower "common/${layer}/[a-z_]+[.]h")
  file(GLOB files RELATIVE "${top}" "${top}/src/common/${layer}/*")
  foreach(file IN LISTS files)
    read_code("${top}/${file}" code)
    if(file STREQUAL "src/common/base/compiler.h") # the one that is about compilers
      check_includes(${file} "${code}" vmkit.h intrin.h "(${standard_headers})[.]h")
      check_conditions(${file} "${code}" "${system_words}" "#if defined(_WIN64)") # MSVC's name for 64 bits
    elseif(file STREQUAL "src/common/heap/tools.h") # the one that is about tools
      check_includes(${file} "${code}" "common/base/compiler[.]h" "(sanitizer/asan_interface|valgrind/memcheck)[.]h")
      check_conditions(${file} "${code}" "${system_words}|__GNUC__|__clang__|__MINGW[A-Z0-9_]*" "")
    else()
      # os_self.h is the inline part of the contract: each system has one.
      check_includes(${file} "${code}" vmkit.h "(${standard_headers})[.]h" os_self.h ${lower})
      check_conditions(${file} "${code}" "${system_words}|${compiler_words}" "")
    endif()
    if(code MATCHES "(^|[^a-z_])(VirtualAlloc|VirtualFree|GetLastError|mprotect|madvise|munmap|mmap|pthread_[a-z_]+|sysconf|getenv|malloc|calloc|realloc)[ ]*[(]")
      violation("${file} may not call ${CMAKE_MATCH_2}()")
    endif()
  endforeach()
endforeach()
file(GLOB folders RELATIVE "${top}/src/common" "${top}/src/common/*")
foreach(folder IN LISTS folders)
  if(NOT folder IN_LIST layers)
    violation("src/common/${folder} is no layer")
  endif()
endforeach()

# --- the systems: the contract alone, and twins -----------------------------------------------------------------------

foreach(system posix win32)
  file(GLOB names_${system} RELATIVE "${top}/src/${system}" "${top}/src/${system}/*")
  foreach(name IN LISTS names_${system})
    read_code("${top}/src/${system}/${name}" code)
    string(REGEX MATCHALL "#[ \t]*include[ \t]*\"[^\"]*\"" includes "${code}") # of the system's own, any
    list(JOIN includes "\n" includes)
    check_includes(src/${system}/${name} "${includes}" vmkit.h "common/base/[a-z_]+[.]h" "(${system}/)?os_[a-z_]+[.]h")
  endforeach()
endforeach()
if(NOT names_posix STREQUAL names_win32)
  list(JOIN names_posix ", " names_posix)
  list(JOIN names_win32 ", " names_win32)
  violation("src/posix and src/win32 hold different files: ${names_posix} / ${names_win32}")
endif()

# --- the public header ------------------------------------------------------------------------------------------------

read_code("${top}/vmkit.h" code)
check_includes(vmkit.h "${code}" intrin.h "(${standard_headers})[.]h")
check_conditions(vmkit.h "${code}" "${system_words}" "#if defined(_WIN32) && defined(VMK_SHARED)")

# --- the tools: the public header alone ---------------------------------------------------------------------------------

file(GLOB files RELATIVE "${top}" "${top}/tools/*.[ch]")
foreach(file IN LISTS files)
  read_code("${top}/${file}" code)
  string(REGEX MATCHALL "#[ \t]*include[ \t]*\"[^\"]*\"" includes "${code}")
  list(JOIN includes "\n" includes)
  check_includes(${file} "${includes}" vmkit.h tool.h)
endforeach()

# --- all sources ------------------------------------------------------------------------------------------------------

file(READ "${top}/CMakeLists.txt" lists)
file(GLOB_RECURSE files RELATIVE "${top}" "${top}/src/*" "${top}/tests/*.[ch]" "${top}/examples/*.[ch]" "${top}/bench/*.[ch]"
  "${top}/tools/*.[ch]" "${top}/malloc/*.[ch]" "${top}/tests/malloc/*")
foreach(file IN LISTS files)
  file(READ "${top}/${file}" text)
  string(REGEX MATCHALL "\n" lines "${text}")
  list(LENGTH lines lines)
  if(file STREQUAL "src/common/base/os.h" AND lines GREATER 200)
    violation("${file} has ${lines} lines: what a system must fulfil fits in 200")
  elseif(lines GREATER 800)
    violation("${file} has ${lines} lines: more than 800 are two files")
  endif()
  if(NOT text MATCHES "SPDX-License-Identifier: MIT")
    violation("${file} says nothing about its licence")
  endif()
  if(file MATCHES "^src/common/.*[.]c$")
    string(FIND "${lists}" "${file}" listed)
    if(listed EQUAL -1)
      violation("${file} is not in CMakeLists.txt")
    endif()
  endif()
endforeach()

get_property(violations GLOBAL PROPERTY violations)
if(violations)
  list(JOIN violations "\n  " violations)
  message(FATAL_ERROR "\n  ${violations}")
endif()
list(LENGTH files count)
message(STATUS "${count} sources, all in their places")
