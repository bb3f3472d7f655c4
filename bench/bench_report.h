// What every native benchmark prints: where it ran, a table of medians with their spread, and with --json one flat JSON
// object as the last line. Thread rule: one thread.
#pragma once

#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

namespace sutra::bench {

inline double Median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

class Report {
 public:
  explicit Report(std::string name) : name_(std::move(name)) {}

  // A figure measured several times, in the order of the table. `key` is the JSON key, `title` is for people. One that
  // could not be measured (no values) is null in the JSON object; say why in a note.
  void Add(const std::string& key, const std::string& title, std::vector<double> values) {
    rows_.push_back(Row{key, title, std::move(values)});
  }
  // A line below the table, and a single value in the JSON object.
  void Note(const std::string& line) { notes_.push_back(line); }
  void AddValue(const std::string& key, double value) { values_.emplace_back(key, value); }

  void Print(bool json) const {
    const Machine machine = ReadMachine();
    std::printf("%s\n  cpu      %s, %ld cores\n  features %s\n  kernel   %s\n  compiler %s\n  commit   %s\n\n",
                name_.c_str(), machine.cpu.c_str(), machine.cores, machine.features.c_str(), machine.kernel.c_str(),
                __VERSION__, machine.commit.c_str());
    std::printf("%-52s %5s %14s %14s %14s %14s\n", "", "runs", "median", "MAD", "min", "max");
    for (const Row& row : rows_) {
      if (row.values.empty()) {
        std::printf("%-52s %5d %14s\n", row.title.c_str(), 0, "-");
        continue;
      }
      const Spread s = SpreadOf(row.values);
      std::printf("%-52s %5zu", row.title.c_str(), row.values.size());
      for (const double value : {s.median, s.mad, s.min, s.max}) std::printf(" %14.*f", Decimals(s.median), value);
      std::printf("\n");
    }
    for (const std::string& note : notes_) std::printf("%s\n", note.c_str());
    if (!json) return;
    std::printf(
        "{\"benchmark\": \"%s\", \"machine_cpu\": \"%s\", \"machine_cores\": %ld, \"machine_features\": \"%s\", "
        "\"machine_kernel\": \"%s\", \"machine_commit\": \"%s\"",
        name_.c_str(), machine.cpu.c_str(), machine.cores, machine.features.c_str(), machine.kernel.c_str(),
        machine.commit.c_str());
    for (const Row& row : rows_) {
      if (row.values.empty()) {
        std::printf(", \"%s\": null", row.key.c_str());
        continue;
      }
      const Spread s = SpreadOf(row.values);
      std::printf(", \"%s\": %.6g, \"%s_mad\": %.6g, \"%s_min\": %.6g, \"%s_max\": %.6g, \"%s_runs\": %zu",
                  row.key.c_str(), s.median, row.key.c_str(), s.mad, row.key.c_str(), s.min, row.key.c_str(), s.max,
                  row.key.c_str(), row.values.size());
    }
    for (const auto& [key, value] : values_) std::printf(", \"%s\": %.6g", key.c_str(), value);
    std::printf("}\n");
  }

 private:
  struct Row {
    std::string key, title;
    std::vector<double> values;
  };
  struct Spread {
    double median = 0, mad = 0, min = 0, max = 0;
  };
  struct Machine {
    std::string cpu = "unknown", features, kernel, commit;
    long cores = 0;
  };

  // Ratios are small numbers, and a tenth says little about them.
  static int Decimals(double value) { return std::abs(value) < 10 ? 3 : 1; }

  static Spread SpreadOf(const std::vector<double>& values) {
    Spread spread;
    if (values.empty()) return spread;
    spread.median = Median(values);
    std::vector<double> distances;
    for (const double value : values) distances.push_back(std::abs(value - spread.median));
    spread.mad = Median(distances);
    spread.min = *std::min_element(values.begin(), values.end());
    spread.max = *std::max_element(values.begin(), values.end());
    return spread;
  }

  static Machine ReadMachine() {
    Machine machine;
    std::ifstream file("/proc/cpuinfo");
    for (std::string line; std::getline(file, line);) {
      const size_t colon = line.find(": ");
      if (colon == std::string::npos) continue;
      if (line.rfind("model name", 0) == 0) machine.cpu = line.substr(colon + 2);
      if (line.rfind("flags", 0) != 0) continue;
      const std::string flags = line.substr(colon + 1) + " ";
      for (const char* feature :
           {"sse4_2", "avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_bf16", "amx_int8"}) {
        if (flags.find(std::string(" ") + feature + " ") == std::string::npos) continue;
        machine.features += (machine.features.empty() ? "" : " ") + std::string(feature);
      }
      break;
    }
    utsname names{};
    if (uname(&names) == 0) machine.kernel = names.release;
    machine.cores = sysconf(_SC_NPROCESSORS_ONLN);
    const char* commit = std::getenv("SUTRA_COMMIT");
    machine.commit = commit != nullptr && *commit != '\0' ? commit : "unknown";
    return machine;
  }

  std::string name_;
  std::vector<Row> rows_;
  std::vector<std::string> notes_;
  std::vector<std::pair<std::string, double>> values_;
};

}  // namespace sutra::bench
