# SPDX-License-Identifier: MIT
# cmake -Dmap=FILE -Dprogram=FILE -Dnm=NM -Dlibrary=NAME -P check_size.cmake
#
# What a program that uses only the table is made of: no symbol of a later layer (this fails), and how many bytes it has
# from the library (this is printed), as the linker's map tells.
cmake_minimum_required(VERSION 3.25)
execute_process(COMMAND "${nm}" "${program}" OUTPUT_VARIABLE symbols COMMAND_ERROR_IS_FATAL ANY)
if(NOT symbols MATCHES "vmk_table_init")
  message(FATAL_ERROR "${program} has no symbols to look at")
endif()
string(REGEX MATCHALL "[^ \n]*vmki?_(heap|gc|span|mark|sweep)_[^\n]*" later "${symbols}")
if(later)
  message(FATAL_ERROR "a program that uses only the table has in it: ${later}")
endif()

# Lines, where the name is long in two: " .text.name  0xADDRESS  0xSIZE  PATH/libvmkit.a(file.c.o)".
file(READ "${map}" text)
string(FIND "${text}" "Linker script and memory map" start) # before it: what was left out
string(SUBSTRING "${text}" ${start} -1 text)
string(REGEX MATCHALL "\n [.](text|rdata|rodata|data|bss|tbss|tdata)[^ \n]*[ \n]+0x[0-9a-f]+ +0x[0-9a-f]+ [^\n]*${library}[(:][^\n]*" sections "${text}")
foreach(kind text rdata rodata data bss)
  set(total_${kind} 0)
endforeach()
set(total 0)
foreach(section IN LISTS sections)
  string(REGEX MATCH "^\n [.]([a-z]+)[^ \n]*[ \n]+0x[0-9a-f]+ +(0x[0-9a-f]+)" ignored "${section}")
  math(EXPR total_${CMAKE_MATCH_1} "${total_${CMAKE_MATCH_1}} + ${CMAKE_MATCH_2}")
  math(EXPR total "${total} + ${CMAKE_MATCH_2}")
endforeach()
math(EXPR constants "${total_rdata} + ${total_rodata}")
if(total_text EQUAL 0)
  message(FATAL_ERROR "${map} can't be read: no code of ${library} in it")
endif()
math(EXPR kept "${total_text} + ${constants} + ${total_data}")
message(STATUS "a program that uses only the table has ${kept} bytes of text and data from the library "
  "(code ${total_text}, constants ${constants}, data ${total_data}; and ${total_bss} zeroed)")
