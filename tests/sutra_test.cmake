# How tests are declared.
#
# Every test is a ctest test, whatever runs it. One that takes longer than a minute carries the label `long`: tools/test
# leaves it out, tools/test --long runs nothing else.
#
# sutra_test(NAME SOURCES ... [LIBRARIES ...] [DEFINITIONS ...] [DEPENDS ...] [TIMEOUT seconds] [LABELS ...])
# makes an executable NAME of GoogleTest tests; each test of it is a ctest test. The build fails if it has none.
function(sutra_test name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "TIMEOUT" "SOURCES;LIBRARIES;DEFINITIONS;DEPENDS;LABELS")
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 120)
  endif()
  add_executable(${name} ${arg_SOURCES})
  target_link_libraries(${name} PRIVATE sutra_options ${arg_LIBRARIES} GTest::gtest GTest::gtest_main)
  target_compile_definitions(${name} PRIVATE ${arg_DEFINITIONS})
  if(arg_DEPENDS)
    add_dependencies(${name} ${arg_DEPENDS})
  endif()
  gtest_discover_tests(${name} TEST_PREFIX "${SUTRA_TEST_PREFIX}" DISCOVERY_TIMEOUT 60
    PROPERTIES TIMEOUT ${arg_TIMEOUT} LABELS "${arg_LABELS}")
  # An executable that lost all its tests must not look like one that passes.
  add_custom_command(TARGET ${name} POST_BUILD VERBATIM
    COMMAND sh -c "\"$1\" --gtest_list_tests | grep -q '^  ' || { echo ${name} lists no tests; exit 1; }"
            sh $<TARGET_FILE:${name}>)
endfunction()

# sutra_script_test(NAME COMMAND ... [TIMEOUT seconds] [LABELS ...] [ENVIRONMENT ...] [WILL_FAIL])
# adds a test that a script, cargo, Python or any other program runs; exit code 77 means that it was skipped.
function(sutra_script_test name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "WILL_FAIL" "TIMEOUT" "COMMAND;LABELS;ENVIRONMENT")
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 120)
  endif()
  set(name "${SUTRA_TEST_PREFIX}${name}")
  add_test(NAME "${name}" COMMAND ${arg_COMMAND})
  set_tests_properties("${name}" PROPERTIES
    TIMEOUT ${arg_TIMEOUT} LABELS "${arg_LABELS}" ENVIRONMENT "${arg_ENVIRONMENT}" SKIP_RETURN_CODE 77
    FAIL_REGULAR_EXPRESSION "Running 0 tests")  # GoogleTest calls a filter that matches nothing a success
  if(arg_WILL_FAIL)
    set_tests_properties("${name}" PROPERTIES WILL_FAIL ON)
  endif()
endfunction()
