# Compile options that every target of the project shares.

add_compile_options(-Wall -Wextra -Wno-unused-parameter -fno-rtti)
if(CMAKE_CXX_COMPILER_ID MATCHES "Clang")
  add_compile_options(-fcolor-diagnostics)
  # PCH with ccache: the time stamp inside a precompiled header would miss.
  add_compile_options("SHELL:-Xclang -fno-pch-timestamp")
  add_link_options(-fuse-ld=lld)
endif()

if(GPTQ_SANITIZE)
  add_compile_options(-fsanitize=${GPTQ_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${GPTQ_SANITIZE})
endif()
if(GPTQ_BUILD_FUZZERS)
  add_compile_options(-fsanitize=fuzzer-no-link)
endif()

# gptq_add_fuzzer(gptq-fuzz-<subject> source LINK libs...): a libFuzzer target in
# bin/. scripts/test.sh runs it on the seeds of that subject: the folder
# corpus/<subject> beside it, or what its make_<subject>_corpus.py writes.
if(GPTQ_BUILD_FUZZERS)
  add_custom_target(gptq-fuzzers)
endif()
function(gptq_add_fuzzer name source)
  cmake_parse_arguments(ARG "" "" "LINK" ${ARGN})
  if(NOT name MATCHES "^gptq-fuzz-")
    message(FATAL_ERROR "fuzzer '${name}' is not named gptq-fuzz-<subject>, so scripts/test.sh would not run it")
  endif()
  if(GPTQ_BUILD_FUZZERS)
    add_executable(${name} ${source})
    target_link_libraries(${name} PRIVATE ${ARG_LINK})
    target_link_options(${name} PRIVATE -fsanitize=fuzzer)
    add_dependencies(gptq-fuzzers ${name})
  endif()
endfunction()
