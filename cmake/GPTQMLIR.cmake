# Finds LLVM, MLIR and lld 22.1 and sets up TableGen.

find_package(MLIR 22.1 REQUIRED CONFIG HINTS /usr/lib/llvm-22/lib/cmake/mlir)
find_package(LLD REQUIRED CONFIG HINTS /usr/lib/llvm-22/lib/cmake/lld)
# Debian ships libMLIR as a shared library but does not say so in its config.
set(MLIR_LINK_MLIR_DYLIB ON)
list(APPEND CMAKE_MODULE_PATH ${MLIR_CMAKE_DIR} ${LLVM_CMAKE_DIR})
include(TableGen)
include(AddLLVM)
include(AddMLIR)
include_directories(SYSTEM ${LLVM_INCLUDE_DIRS} ${MLIR_INCLUDE_DIRS})
add_definitions(${LLVM_DEFINITIONS})

# MLIR libraries reach a target only through mlir_target_link_libraries, which
# maps them to the shared libMLIR; naming one directly would bring a second
# copy of MLIR into the process.
function(gptq_add_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;LINK;MLIR;DEPENDS" ${ARGN})
  add_library(${name} STATIC ${ARG_SOURCES})
  target_link_libraries(${name} PUBLIC ${ARG_LINK} LLVM)
  mlir_target_link_libraries(${name} PUBLIC ${ARG_MLIR})
  if(ARG_DEPENDS)
    add_dependencies(${name} ${ARG_DEPENDS})
  endif()
  if(TARGET gptq_pch AND NOT name STREQUAL gptq_pch)
    target_precompile_headers(${name} REUSE_FROM gptq_pch)
  endif()
endfunction()
