# How tests are declared.
#
# Every test is a ctest test, whatever runs it. One that takes longer than a minute carries the label `long`: tools/test
# leaves it out, tools/test --long runs nothing else.
#
# ctest is told of half cores: a test has two of them, one that mostly waits has one (for deadlines, beats of a second,
# a disk). So `ctest -j 4`, which is what tools/test runs on two cores, runs two tests at once, and four that wait.
#
# sutra_test(NAME SOURCES ... [LIBRARIES ...] [DEFINITIONS ...] [DEPENDS ...] [TIMEOUT seconds] [LABELS ...]
#            [WAITING pattern...] [WAITING_UNLESS_TSAN pattern...])
# makes an executable NAME of GoogleTest tests; each test of it is a ctest test. The build fails if it has none. WAITING
# are the tests, as --gtest_filter takes them, that use less than half of a core; WAITING_UNLESS_TSAN those that compute
# more under TSan. The build fails if a pattern matches none.
function(sutra_test name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "TIMEOUT"
    "SOURCES;LIBRARIES;DEFINITIONS;DEPENDS;LABELS;WAITING;WAITING_UNLESS_TSAN")
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 120)
  endif()
  if(CMAKE_CROSSCOMPILING)  # it runs in an emulator
    math(EXPR arg_TIMEOUT "10 * ${arg_TIMEOUT}")
  endif()
  add_executable(${name} ${arg_SOURCES})
  target_link_libraries(${name} PRIVATE sutra_options ${arg_LIBRARIES} GTest::gtest GTest::gtest_main)
  target_compile_definitions(${name} PRIVATE ${arg_DEFINITIONS})
  if(arg_DEPENDS)
    add_dependencies(${name} ${arg_DEPENDS})
  endif()
  set(waiting ${arg_WAITING})
  if(NOT SUTRA_SANITIZE STREQUAL "thread")
    list(APPEND waiting ${arg_WAITING_UNLESS_TSAN})
  endif()
  list(JOIN waiting ":" filter)
  if(waiting)
    sutra_discover_tests("${filter}" 1)
    sutra_discover_tests("-${filter}" 2)
  else()
    sutra_discover_tests("*" 2)
  endif()
  # An executable that lost all its tests must not look like one that passes, nor may a pattern match none any more.
  add_custom_command(TARGET ${name} POST_BUILD VERBATIM
    COMMAND sh -c "for pattern in \"$@\"; do \"$0\" --gtest_list_tests --gtest_filter=\"$pattern\" | grep -q '^  ' || { echo \"${name} lists no tests for $pattern\"; exit 1; }; done"
            $<TARGET_FILE:${name}> * ${arg_WAITING} ${arg_WAITING_UNLESS_TSAN})
endfunction()

# Of sutra_test: those tests of its executable that match `filter`, with so many half cores each.
macro(sutra_discover_tests filter half_cores)
  gtest_discover_tests(${name} TEST_PREFIX "${SUTRA_TEST_PREFIX}" DISCOVERY_TIMEOUT 60
    TEST_FILTER "${filter}" TEST_LIST ${name}_of_${half_cores}
    PROPERTIES TIMEOUT ${arg_TIMEOUT} PROCESSORS ${half_cores} LABELS "${arg_LABELS}")  # an empty value must be last
endmacro()

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
    TIMEOUT ${arg_TIMEOUT} LABELS "${arg_LABELS}" ENVIRONMENT "${arg_ENVIRONMENT}" SKIP_RETURN_CODE 77 PROCESSORS 2
    FAIL_REGULAR_EXPRESSION "Running 0 tests")  # GoogleTest calls a filter that matches nothing a success
  if(arg_WILL_FAIL)
    set_tests_properties("${name}" PROPERTIES WILL_FAIL ON)
  endif()
endfunction()
