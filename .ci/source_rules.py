"""The rules of check_source_tree as data: who may include whom, seams, banned calls, and the exemptions with their reasons."""

import re

TOP_LEVEL = {"CMakeLists.txt", "README.md", "shm", "producer", "engine", "cache", "tools", "tests", "bench"}
PRODUCT = ("shm/", "producer/", "cache/", "engine/", "tools/")
LINE_WIDTH = 140  # the aim is 120; this is where it stops being readable side by side
FILE_BYTES_MAX = 1 << 20
FILE_LINES_MAX = 600

# Folder (longest match wins) -> folders or single headers it may include beside its own; nobody includes tests or bench.
BASE, STATS = "shm/base", "shm/stats"
EVERYTHING = {
    BASE, STATS, "shm", "producer", "cache", "cache/disk", "cache/wal", "cache/store", "cache/index", "engine",
    "engine/lanes", "engine/serving", "engine/control", "engine/model", "engine/tokenizer", "engine/cpu",
    "engine/cpu/int8", "engine/cpu/kernels", "engine/torch", "engine/cuda", "tools", "tools/lib", "tools/cache", "tests", "tests/kit", "bench",
}
CACHE = {"cache", "cache/disk", "cache/wal", "cache/store", "cache/index"}
ENGINE = {folder for folder in EVERYTHING if folder.startswith("engine")}
MAY_INCLUDE = {
    "shm/base": set(),
    "shm": {BASE},
    "shm/stats": {BASE, "shm"},
    "producer": {BASE, "shm"},
    "cache/disk": {BASE},
    "cache/wal": {BASE, "cache/disk", "cache/key_digest.h"},
    "cache/store": {BASE, "cache/disk", "cache/key_digest.h"},
    "cache/index": {BASE, "cache/disk", "cache/store"},
    "cache": {BASE} | CACHE,
    "engine/tokenizer": {BASE},
    "engine/model": {BASE, "engine/tokenizer"},
    "engine/cpu/kernels": {BASE, "engine/model"},
    "engine/cpu/int8": {BASE, "engine/model", "engine/cpu", "engine/cpu/kernels", "engine/tokenizer/tokenizer.h"},
    "engine/cpu": {BASE, "engine/model", "engine/cpu/kernels", "engine/cpu/int8"},
    "engine/torch": {BASE, "engine/model"},
    "engine/cuda": {BASE, "engine/model"},
    "engine/lanes": {BASE, "shm", STATS, "engine/model/model_info.h"},
    "engine/serving": {BASE, "shm", STATS, "engine/lanes", "engine/model/model_backend.h",
                       "engine/model/model_info.h", "engine/tokenizer/tokenizer.h", "cache/cache_shard.h",
                       "engine/control/control_sessions.h"},
    "engine/control": {BASE, "shm", STATS, "engine/lanes", "engine/model/model_info.h", "cache",
                       "cache/disk"},
    "engine": {BASE, "shm", STATS, "cache", "cache/disk"} | ENGINE,
    "tools": {BASE, "shm", STATS, "producer", "tools/lib", "tools/cache", "engine/tokenizer", "engine/model"} | CACHE,
    "tools/lib": {BASE, "shm", STATS, "producer", "engine/tokenizer", "engine/model"},
    "tools/cache": {BASE, "shm", STATS, "tools/lib", "engine/control/cache_control.h",
                    "engine/control/cache_page.h"} | CACHE,
    "tools/gateway": {"tools/lib"},  # and the C header
    "tools/bulk": {"tools/lib"},
    "tests": EVERYTHING,
    "tests/kit": EVERYTHING,
    "bench": EVERYTHING - {"tests"} | {"tests/kit"},
}

# Header prefix -> the only files that may include it.
SEAMS = [
    (re.compile(r"^(torch|ATen|c10)/"), re.compile(r"^engine/torch/aten_encoder\.cc$")),
    (re.compile(r"^(cuda|cublas|curand|cudnn|nccl)\w*\.h$|^cuda/"), re.compile(r"^engine/cuda/")),
    (re.compile(r"^hnswlib/"), re.compile(r"^cache/index/hnsw_index\.cc$")),
    (re.compile(r"^liburing"), re.compile(r"^cache/disk/disk_io_uring\.cc$")),
    (re.compile(r"^boost/"), re.compile(r"^shm/stats/")),
    (re.compile(r"^openssl/"), re.compile(r"^shm/base/sha256\.cc$")),
    (re.compile(r"^(arrow|parquet)/"), re.compile(r"^tools/bulk/parquet_file\.cc$")),
    (re.compile(r"^CLI/"), re.compile(r"^engine/(config\.cc|option_validators\.h)$|^tools/|^bench/|^tests/(crash/survival|crash/cache_kills|sim/power_cuts)_main\.cc$")),
]

# Rule, folders or files it holds in, pattern, files excused, why. A memcpy from a mapping that a peer writes cannot be told
# from another by its text, so memcpy is banned where the engine reads lanes.
OURS = ("shm/", "engine/", "cache/")
BANNED = [
    ("kill-0", OURS, re.compile(r"\bkill\s*\([^,()]+,\s*0\s*\)"), None, "a pid may be reused: ask the lock"),
    ("fixme", OURS + ("producer/", "tools/"), re.compile(r"\bFIXME\b"), None, "finish it or file it"),
    ("wall-clock", OURS + ("producer/",),
     re.compile(r"\bsystem_clock\b|\bCLOCK_REALTIME\b|\bgettimeofday\s*\(|[^_\w]time\s*\(\s*(nullptr|NULL|0)\s*\)"),
     re.compile(r"^shm/base/time\.h$"),
     "timeouts are monotonic; wall time comes from shm/base/time.h or the clock seam"),
    ("futex-private", OURS + ("producer/",), re.compile(r"FUTEX_\w*PRIVATE|FUTEX_PRIVATE_FLAG"),
     re.compile(r"^engine/"), "a private futex does not cross processes"),
    ("sleep-in-test", ("tests/",), re.compile(r"\b(sleep_for|sleep_until|usleep|nanosleep|sleep)\s*\("),
     re.compile(r"^tests/(fuzz|system|crash|hostile|kit)/"), "wait for the event, not for time"),
    ("reinterpret-cast", OURS, re.compile(r"\breinterpret_cast\b"),
     re.compile(r"^shm/(layout\.h|hot_table\.h|lane_memory\.cc|shared_word\.h|stats/\w+\.(h|cc)|sleep_wake\.h)$"
                r"|^engine/lanes/listening_socket\.cc$|^engine/serving/wake_gate\.h$"  # a sockaddr; a futex word
                r"|^engine/torch/plugin_loader\.cc$"),  # a function from dlsym
     "typed views of shared bytes belong to layout.h"),
    ("shared-memcpy", ("engine/lanes/", "engine/serving/", "engine/control/"), re.compile(r"\bmem(cpy|move)\s*\("),
     re.compile(r"^engine/lanes/(untrusted_copy\.(h|cc)|acceptor\.cc|listening_socket\.cc)$"),
     "bytes that a client may write meanwhile are copied by untrusted_copy"),
    ("uring-errno", ("cache/disk/disk_io_uring.cc",), re.compile(r"\berrno\b"), None,
     "liburing returns the error; errno is another call's"),
    ("std-mutex", PRODUCT,
     re.compile(r"\bstd::((recursive_|shared_|timed_)?mutex|lock_guard|unique_lock|shared_lock|scoped_lock"
                r"|condition_variable(_any)?)\b|\bpthread_(mutex|cond|rwlock)_\w+"),
     re.compile(r"^shm/base/mutex\.h$"), "use shm/base/mutex.h, whose rules clang checks"),
]

# A product file without tests/<its path>_test.cc -> the test file that covers it.
COVERED_BY = {
    "cache/identity_removal.cc": "tests/cache/other_identities_test.cc",
    "cache/segment_verifier.cc": "tests/cache/shard_verifier_test.cc",
    "cache/store/slot_lookup.cc": "tests/cache/store/slot_table_test.cc",
    "cache/store/slot_walk.cc": "tests/cache/store/slot_table_test.cc",
    "cache/wal/recovery_replay.cc": "tests/cache/wal/recovery_test.cc",
    "cache/wal/wal_log_bound.cc": "tests/cache/wal/wal_log_test.cc",
    "cache/wal/wal_log_compaction.cc": "tests/cache/shard_admin_test.cc",
    "cache/wal/wal_log_sync.cc": "tests/cache/wal/wal_log_test.cc",
    "engine/cpu/activation_curve.cc": "tests/engine/cpu/kernels_test.cc",
    "engine/cpu/int8/gram.cc": "tests/engine/cpu/int8/gptq_test.cc",
    "engine/cpu/int8/input_moments.cc": "tests/engine/cpu/int8/calibration_test.cc",
    "engine/cpu/int8/quality_texts.cc": "tests/engine/cpu/int8/int8_quality_test.cc",
    "engine/cpu/pass_steps.cc": "tests/engine/model/encoder_backend_test.cc",
    "engine/cpu/kernels/amx_bf16.cc": "tests/engine/cpu/kernels_test.cc",
    "engine/cpu/kernels/avx2_f32.cc": "tests/engine/cpu/kernels_test.cc",
    "engine/cpu/kernels/avx512_bf16.cc": "tests/engine/cpu/kernels_test.cc",
    "engine/cpu/kernels/avx512_f32.cc": "tests/engine/cpu/kernels_test.cc",
    "engine/cpu/kernels/amx_int8.cc": "tests/engine/cpu/kernels/int8_kernels_test.cc",
    "engine/cpu/kernels/avx_vnni.cc": "tests/engine/cpu/kernels/int8_kernels_test.cc",
    "engine/cpu/kernels/avx512_vnni.cc": "tests/engine/cpu/kernels/int8_kernels_test.cc",
    "engine/cpu/kernels/avx512_vnni_bf16.cc": "tests/engine/cpu/kernels/int8_kernels_test.cc",
    "engine/cpu/kernels/portable_int8.cc": "tests/engine/cpu/kernels/int8_kernels_test.cc",
    "engine/cpu/kernels/portable.cc": "tests/engine/cpu/kernels_test.cc",
    "engine/cpu/int8_trial.cc": "tests/engine/cpu/kernel_trial_test.cc",
    "engine/cpu/reference_forward.cc": "tests/engine/cpu/canary_test.cc",
    "engine/cpu/packed_model.cc": "tests/engine/cpu/kernels_test.cc",
    "engine/engine.cc": "tests/system/engine_lifecycle_test.cc",
    "engine/engine_log.cc": "tests/system/control_test.cc",
    "engine/engine_options.cc": "tests/system/engine_lifecycle_test.cc",
    "engine/lanes/acceptor_ends.cc": "tests/engine/lanes/acceptor_test.cc",
    "engine/operator_call.cc": "tests/system/control_test.cc",
    "engine/main.cc": "tests/system/engine_lifecycle_test.cc",
    "engine/model/families/family.cc": "tests/engine/model/families/bert_test.cc",
    "engine/model/sentence_config.cc": "tests/engine/model/folder_keys_test.cc",
    "engine/tokenizer/unicode_data.cc": "tests/engine/tokenizer/wordpiece_parity_test.cc",
    "engine/tokenizer/wordpiece_config.cc": "tests/engine/tokenizer/wordpiece_load_test.cc",
    "engine/torch/aten_encoder.cc": "tests/engine/torch/parity_test.cc",
    "shm/memory_file.cc": "tests/shm/lane_memory_test.cc",
    "tools/cache/cache_target.cc": "tests/system/cache_tool_test.cc",
    "tools/cache/command_support.cc": "tests/tools/cache/commands_test.cc",
    "tools/cache/data_directory.cc": "tests/tools/cache/commands_test.cc",
    "tools/cache/export_command.cc": "tests/tools/cache/transfer_test.cc",
    "tools/cache/identity_commands.cc": "tests/tools/cache/commands_test.cc",
    "tools/cache/import_command.cc": "tests/tools/cache/transfer_test.cc",
    "tools/cache/import_source.cc": "tests/tools/cache/transfer_test.cc",
    "tools/cache/live_target.cc": "tests/system/cache_tool_test.cc",
    "tools/cache/look_commands.cc": "tests/tools/cache/commands_test.cc",
    "tools/cache/removal_commands.cc": "tests/tools/cache/commands_test.cc",
    "tools/cache/rest_target.cc": "tests/tools/cache/commands_test.cc",
    "tools/cache/verify_command.cc": "tests/tools/cache/commands_test.cc",
    "tools/cache/warm_command.cc": "tests/system/cache_tool_test.cc",
    "tools/lib/embed_engine.cc": "tests/system/embed_restart_test.cc",
    "tools/lib/embed_ids.cc": "tests/tools/sutra_embed_test.cc",
    "tools/lib/embed_job.cc": "tests/tools/sutra_embed_test.cc",
    "tools/lib/embed_options.cc": "tests/tools/sutra_embed_test.cc",
    "tools/lib/engine_link.cc": "tests/system/embed_restart_test.cc",
    "tools/lib/program.cc": "tests/system/tool_output_test.cc",
    "tools/lib/progress.cc": "tests/tools/sutra_embed_test.cc",
    "tools/sutra_cache.cc": "tests/tools/cache/commands_test.cc",
    "tools/sutra_casestudy.cc": "tests/system/tools_test.cc",
    "tools/sutra_stat.cc": "tests/system/tools_test.cc",
    "producer/lane_attachments.cc": "tests/producer/client_lane_test.cc",
}

# A header that lists invariants which neither it nor its .cc could assert -> where they hold instead.
ASSERTED_ELSEWHERE = {
    "cache/cache_shard.h": "an interface; logged_shard.cc and store/ are the code",
    "engine/cpu/kernels/amx_int8_body.h": "tests compile it over emulated tiles; int8_pass.cc makes the memory",
    "engine/cpu/kernels/amx_gemm_body.h": "tests compile it over emulated tiles; packed_model.cc checks the shapes",
    "engine/cpu/forward_pass.h": "an interface; float_pass.cc and int8/int8_pass.cc are the code",
    "engine/cpu/kernels/kernels.h": "a table of function pointers; packed_model.cc checks the shapes",
}

# How a folder's CMakeLists.txt names files that it lists by another word.
LISTED_AS = [(re.compile(r"^tests/fuzz/(\w+)_fuzz\.cc$"), r"\1")]
