"""Made-up trees for check_source_tree --self-test: a clean one, and for every rule one that must make it fire."""

import os
import tempfile
import types

import source_rules as rules

CLEAN = {
    "CMakeLists.txt": "add_library(cache cache/a.cc)\nadd_library(fuzz_y tests/a_test.cc)\n",
    "shm/base/status.h": "// clean\n",
    "shm/LAYOUT.md": "| L1 | pair |\n",
    "shm/a.h": "// Invariants: one.\n// SYNC L1 (release)\n// SYNC L1 (acquire)\nstatic_assert(true);\n"
               "void F() { word.store(1, std::memory_order_release); }\n",
    "cache/a.h": "// Invariants: one, which a.cc asserts.\n",
    "cache/a.cc": '#include "shm/base/status.h"\nvoid G() { assert(true); }\n',
    "producer/include/sutra/embed.h": "// api\n",
    "tests/a_test.cc": '#include "shm/a.h"\n#include "sutra/embed.h"\nTEST_F(A, Works) {}\n',
    "tests/CMakeLists.txt": "sutra_script_test(Script.Works COMMAND x)\n",
    "tests/README.md": "`A.Works`, `Script.Works`, `B.*`\n",
}
TABLES = {"COVERED_BY": {"cache/a.cc": "tests/a_test.cc"}, "ASSERTED_ELSEWHERE": {}}
# Rule (and case) -> files, or files and tables, that must make it fire.
CANARIES = {
    "include": {"shm/b.h": '#include "cache/a.cc"\n'},
    "include: tools": {"engine/b.cc": '#include "tools/x.h"\n', "tools/x.h": ""},
    "include: tests": {"tools/b.cc": '#include "tests/x.h"\n', "tests/x.h": ""},
    "include: missing": {"shm/b.h": '#include "shm/none.h"\n'},
    "include: below the cache": {"engine/serving/b.h": '#include "cache/store/x.h"\n', "cache/store/x.h": ""},
    "seam: torch": {"engine/b.cc": "#include <torch/torch.h>\n"},
    "seam: cuda": {"engine/b.cc": "#include <cuda_runtime.h>\n"},
    "seam: hnswlib": {"engine/b.cc": "#include <hnswlib/hnswlib.h>\n"},
    "seam: liburing": {"engine/b.cc": "#include <liburing.h>\n"},
    "seam: boost": {"shm/b.cc": "#include <boost/crc.hpp>\n"},
    "seam: openssl": {"engine/b.cc": "#include <openssl/evp.h>\n"},
    "seam: arrow": {"tools/b.cc": "#include <arrow/api.h>\n"},
    "seam: CLI11": {"engine/main.cc": "#include <CLI/CLI.hpp>\n"},
    "kill-0": {"engine/b.cc": "bool alive = kill(pid, 0) == 0;\n"},
    "fixme": {"cache/b.cc": "// FIXME later\n"},
    "wall-clock": {"cache/b.cc": "auto t = std::chrono::system_clock::now();\n"},
    "wall-clock: posix": {"producer/b.cc": "clock_gettime(CLOCK_REALTIME, &now);\n"},
    "futex-private": {"shm/b.cc": "int op = FUTEX_WAIT_PRIVATE;\n"},
    "sleep-in-test": {"tests/shm/b_test.cc": "std::this_thread::sleep_for(ms);\n"},
    "reinterpret-cast": {"shm/b.cc": "auto* p = reinterpret_cast<int*>(q);\n"},
    "reinterpret-cast: cache": {"cache/b.cc": "auto* p = reinterpret_cast<int*>(q);\n"},
    "shared-memcpy": {"engine/lanes/b.cc": "std::memcpy(text, lane.text(i), bytes);\n"},
    "uring-errno": {"cache/disk/disk_io_uring.cc": "return errno;\n"},
    "std-mutex": {"cache/b.h": "std::mutex mutex_;\n"},
    "std-mutex: lock": {"tools/b.cc": "std::unique_lock lock(m);\n"},
    "std-mutex: condition": {"engine/b.cc": "std::condition_variable_any changed;\n"},
    "std-mutex: pthread": {"producer/b.h": "pthread_mutex_t mutex;\n"},
    "std-mutex: pthread call": {"producer/b.cc": "pthread_cond_signal(&changed);\n"},
    "atomic-order": {"engine/b.cc": "word.store(1);\n"},
    "sync": {"shm/b.h": "// SYNC L9 (release)\n"},
    "coverage": {"cache/b.cc": ""},
    "coverage: no such test": ({"cache/b.cc": ""}, {"COVERED_BY": {"cache/b.cc": "tests/none_test.cc"}}),
    "coverage: no such file": ({}, {"COVERED_BY": {"cache/none.cc": "tests/a_test.cc"}}),
    "coverage: has its own": {"tests/cache/a_test.cc": ""},
    "invariants": {"shm/b.h": "// Invariants: two.\n"},
    "invariants: not in a comment": {"shm/b.h": "// Invariants: two.\n", "shm/b.cc": "reassert (x);\n"},
    "invariants: asserted now": ({}, {"ASSERTED_ELSEWHERE": {"shm/a.h": "nowhere"}}),
    "invariants: no such file": ({}, {"ASSERTED_ELSEWHERE": {"shm/none.h": "nowhere"}}),
    "promise": {"tests/README.md": "`A.WorksNoMore`\n"},
    "unlisted": {"cache/b.cc": "", "cache/CMakeLists.txt": "# b.cc\nadd_library(cache ab.cc)\n"},
    "format": {"cache/b.h": "int  f( );\n"},
    "size": {"tests/big.bin": "x" * (rules.FILE_BYTES_MAX + 1)},
    "lines": {"shm/b.cc": "\n" * (rules.FILE_LINES_MAX + 1)},
    "lines: Rust": {"producer/rust/src/b.rs": "\n" * (rules.FILE_LINES_MAX + 1)},
    "width: Rust": {"producer/rust/src/b.rs": "// " + "x" * rules.LINE_WIDTH + "\n"},
    "fixme: Rust": {"producer/rust/src/b.rs": "// FIXME later\n"},
    "rust-unsafe": {"producer/rust/src/b.rs": "fn f() {\n    unsafe { g() }\n}\n"},
    "rust-unsafe: impl": {"producer/rust/src/b.rs": "unsafe impl Send for T {}\n"},
    "width": {"shm/b.cc": "// " + "x" * rules.LINE_WIDTH + "\n"},
    "machine-path": {"tools/x.sh": "cd /" + "root/project\n"},
    "top-level": {"notes.txt": "x\n"},
}


def findings_of(check_tree, files, tables, format_program):
    with tempfile.TemporaryDirectory() as root:
        for path, text in files.items():
            full = os.path.join(root, path)
            os.makedirs(os.path.dirname(full), exist_ok=True)
            with open(full, "w", encoding="utf-8") as file:
                file.write(text)
        return check_tree(root, types.SimpleNamespace(**{**TABLES, **tables}), format_program)


def self_test(check_tree, format_program):
    failures = []
    if clean := findings_of(check_tree, CLEAN, {}, format_program):
        failures.append(f"a clean tree has findings: {clean}")
    for rule, canary in CANARIES.items():
        name = rule.split(":")[0]
        if name == "format" and format_program is None:
            print("check_source_tree self-test: no clang-format, the canary of the format is left out")
            continue
        files, tables = canary if isinstance(canary, tuple) else (canary, {})
        program = format_program if name == "format" else None
        found = findings_of(check_tree, {**CLEAN, **files}, tables, program)
        if not any(f": {name}: " in finding for finding in found):
            failures.append(f"rule '{rule}' did not fire")
    known = {name for name, *_ in rules.BANNED} | {"seam", "include"}
    for name in known - {rule.split(":")[0] for rule in CANARIES}:
        failures.append(f"rule '{name}' has no canary")
    for failure in failures:
        print(f"check_source_tree self-test: {failure}")
    print(f"{len(CANARIES)} canaries, {len(failures)} failures")
    return 1 if failures else 0
