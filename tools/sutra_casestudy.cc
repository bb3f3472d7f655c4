// sutra-casestudy: learns the financial case study through a running engine as Sutra would, cold and then warm, and
// says what that took. Single-threaded. Exit codes: 0 every text got its vector; 1 some did not; 2 usage error or no
// engine; 3 the output failed.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>
#include <string>
#include <unordered_set>
#include <vector>

#include "producer/include/sutra/embed.hpp"
#include "tools/lib/case_study.h"
#include "tools/lib/engine_link.h"
#include "tools/lib/program.h"
#include "tools/lib/vector_output.h"

namespace {

constexpr const char* kName = "sutra-casestudy";
enum ExitCode : int { kAllOk = 0, kSomeFailed = 1, kUsage = 2, kOutputFailed = 3 };
constexpr double kOriginalSeconds = 216.08;
constexpr double kOriginalConcepts = 30;

struct Options {
  std::string socket, mode = "sutra";
  sutra::CaseStudyOptions study;
  uint32_t timeout_s = 120;
  bool json = false, dump = false;
};

struct Pass {
  double wall_s = 0;
  uint64_t texts = 0, tokens = 0, failed = 0, hits = 0, joined = 0, computed = 0;
  std::vector<double> text_us;     // submitted to published, per text
  std::vector<double> concept_us;  // content and fragments, as the caller waits for them
  std::vector<float> vectors;
  std::string first_error;

  double hit_rate() const {
    const uint64_t lookups = hits + joined + computed;
    return lookups == 0 ? 0 : static_cast<double>(hits) / static_cast<double>(lookups);
  }
};

// One ordered list of texts, and where each call of the client begins.
struct Calls {
  std::vector<const char*> texts;
  std::vector<size_t> bytes;
  std::vector<std::pair<size_t, size_t>> ranges;  // [begin, end) of one embed call
  size_t concepts = 0;
};

Calls PlanCalls(const std::vector<sutra::Concept>& concepts, bool as_sutra) {
  Calls calls;
  calls.concepts = concepts.size();
  const auto add = [&](const std::string& text) {
    calls.texts.push_back(text.c_str());
    calls.bytes.push_back(text.size());
  };
  for (const sutra::Concept& entry : concepts) {
    const size_t content = calls.texts.size();
    add(entry.content);
    for (const std::string& fragment : entry.fragments) add(fragment);
    if (!as_sutra) continue;
    calls.ranges.emplace_back(content, content + 1);
    calls.ranges.emplace_back(content + 1, calls.texts.size());
  }
  if (!as_sutra) calls.ranges.emplace_back(0, calls.texts.size());
  return calls;
}

Pass RunPass(sutra_client* client, const sutra_info& info, const Calls& calls, const Options& options) {
  using Clock = std::chrono::steady_clock;
  const auto us = [](Clock::duration d) { return std::chrono::duration<double, std::micro>(d).count(); };
  sutra_options request{};
  request.size = sizeof(request);
  request.timeout_ms = options.timeout_s * 1000;
  Pass pass;
  pass.texts = calls.texts.size();
  pass.vectors.assign(calls.texts.size() * info.width, 0);
  std::vector<sutra_result> results(calls.texts.size(), sutra::embed::Result());
  const auto start = Clock::now();
  auto concept_start = start;
  for (size_t i = 0; i < calls.ranges.size(); ++i) {
    const auto [begin, end] = calls.ranges[i];
    const sutra_status status =
        sutra_embed_batch(client, &calls.texts[begin], &calls.bytes[begin], end - begin, &request, nullptr,
                          &pass.vectors[begin * info.width], &results[begin], sizeof(sutra_result));
    if (status != SUTRA_OK && pass.first_error.empty()) pass.first_error = sutra::WithErrorText(status);
    if (calls.ranges.size() > 1 && i % 2 == 1) {
      const auto now = Clock::now();
      pass.concept_us.push_back(us(now - concept_start));
      concept_start = now;
    }
  }
  pass.wall_s = us(Clock::now() - start) / 1e6;
  for (const sutra_result& result : results) {
    if (result.status != SUTRA_OK) {
      ++pass.failed;
      continue;
    }
    pass.tokens += result.token_count;
    if (result.source == SUTRA_SOURCE_MODEL)
      ++pass.computed;
    else if (result.source == SUTRA_SOURCE_JOINED)
      ++pass.joined;
    else
      ++pass.hits;
    if (result.stage_ns[5] >= result.stage_ns[0] && result.stage_ns[0] != 0) {
      pass.text_us.push_back(static_cast<double>(result.stage_ns[5] - result.stage_ns[0]) / 1e3);
    }
  }
  return pass;
}

double Percentile(std::vector<double> values, double fraction) {
  if (values.empty()) return 0;
  const auto rank = static_cast<size_t>(std::ceil(fraction * static_cast<double>(values.size())));
  const auto nth = values.begin() + static_cast<ptrdiff_t>(std::max<size_t>(rank, 1) - 1);
  std::nth_element(values.begin(), nth, values.end());
  return *nth;
}

nlohmann::json PassJson(const Pass& pass, size_t concepts) {
  const auto spread = [](const std::vector<double>& values) {
    return nlohmann::json{
        {"p50", Percentile(values, 0.5)}, {"p95", Percentile(values, 0.95)}, {"p99", Percentile(values, 0.99)}};
  };
  return {{"wall_s", pass.wall_s},
          {"concepts_per_s", static_cast<double>(concepts) / pass.wall_s},
          {"texts_per_s", static_cast<double>(pass.texts) / pass.wall_s},
          {"tokens_per_s", static_cast<double>(pass.tokens) / pass.wall_s},
          {"tokens", pass.tokens},
          {"hits", pass.hits},
          {"joined", pass.joined},
          {"computed", pass.computed},
          {"failed", pass.failed},
          {"hit_rate", pass.hit_rate()},
          {"text_us", spread(pass.text_us)},
          {"concept_us", spread(pass.concept_us)}};
}

std::string PassText(const char* name, const Pass& pass, size_t concepts) {
  std::string text =
      fmt::format("{:<5} {:>9.4f} s {:>11.1f} concepts/s {:>10.0f} texts/s {:>11.0f} tokens/s\n", name, pass.wall_s,
                  static_cast<double>(concepts) / pass.wall_s, static_cast<double>(pass.texts) / pass.wall_s,
                  static_cast<double>(pass.tokens) / pass.wall_s);
  text += fmt::format("      hits {} ({:.1f} %), joined {}, computed {}{}\n", pass.hits, 100 * pass.hit_rate(),
                      pass.joined, pass.computed,
                      pass.failed == 0 ? "" : fmt::format(", FAILED {} ({})", pass.failed, pass.first_error));
  text += fmt::format("      per text, from submit to answer: p50 {:.1f} us, p95 {:.1f} us, p99 {:.1f} us\n",
                      Percentile(pass.text_us, 0.5), Percentile(pass.text_us, 0.95), Percentile(pass.text_us, 0.99));
  if (!pass.concept_us.empty()) {
    text += fmt::format("      per concept, as the caller waits: p50 {:.2f} ms, p95 {:.2f} ms, p99 {:.2f} ms\n",
                        Percentile(pass.concept_us, 0.5) / 1e3, Percentile(pass.concept_us, 0.95) / 1e3,
                        Percentile(pass.concept_us, 0.99) / 1e3);
  }
  return text;
}

std::string ComparisonText(const Pass& cold, const Calls& calls, const sutra_info& info) {
  return fmt::format(
      "\nThe original run of this case study took {:.0f} s for {:.0f} concepts (7.2 s each). That figure is probably\n"
      "not inference: with its default limits both calls of every concept are refused and retried, and the\n"
      "delays alone add up to 7.0 s. This cannot be proven from its sources. So {:.1f} s -> {:.3f} s for {} concepts\n"
      "tells how long a caller waits, not how much faster the model runs; for that see bench/run engine, which runs\n"
      "sentence-transformers on the same texts and cores. Model here: {}.\n",
      kOriginalSeconds, kOriginalConcepts, kOriginalSeconds / kOriginalConcepts * static_cast<double>(calls.concepts),
      cold.wall_s, calls.concepts, info.model);
}

// Prints the text and returns `code`, unless that failed.
int PrintAndEnd(const std::string& text, int code) {
  const sutra::Status status = sutra::Print(text);
  return status.ok() ? code : sutra::Fail(kName, kOutputFailed, status.message());
}

std::string DumpText(const std::vector<sutra::Concept>& concepts) {
  std::string text;
  const auto add = [&](const std::string& line, const sutra::Concept& entry, const char* kind) {
    text += fmt::format("{{\"text\":{},\"ticker\":\"{}\",\"date\":\"{}\",\"kind\":\"{}\"}}\n", sutra::JsonText(line),
                        entry.ticker, entry.date, kind);
  };
  for (const sutra::Concept& entry : concepts) {
    add(entry.content, entry, "content");
    for (const std::string& fragment : entry.fragments) add(fragment, entry, "fragment");
  }
  return text;
}

int Learn(const Options& options, const std::vector<sutra::Concept>& concepts) {
  sutra_attach_options attach = sutra::embed::AttachOptions();
  attach.client_name = kName;
  sutra_client* client = nullptr;
  const sutra_status status = sutra_attach(options.socket.c_str(), &attach, &client);
  if (status != SUTRA_OK) {
    return sutra::Fail(kName, kUsage, "attaching to " + options.socket + ": " + sutra::WithErrorText(status));
  }
  sutra_info info = sutra::embed::Info();
  sutra_get_info(client, &info);
  const Calls calls = PlanCalls(concepts, options.mode == "sutra");
  std::unordered_set<std::string_view> unique;
  for (size_t i = 0; i < calls.texts.size(); ++i) unique.emplace(calls.texts[i], calls.bytes[i]);
  const Pass cold = RunPass(client, info, calls, options);
  const Pass warm = RunPass(client, info, calls, options);
  double difference = 0;
  for (size_t i = 0; i < cold.vectors.size(); ++i) {
    difference = std::max(difference, static_cast<double>(std::abs(cold.vectors[i] - warm.vectors[i])));
  }
  sutra_detach(client);
  const int code = cold.failed + warm.failed == 0 ? kAllOk : kSomeFailed;

  if (options.json) {
    const nlohmann::json json = {{"model", info.model},
                                 {"width", info.width},
                                 {"seed", options.study.seed},
                                 {"mode", options.mode},
                                 {"concepts", calls.concepts},
                                 {"texts", calls.texts.size()},
                                 {"unique_texts", unique.size()},
                                 {"cold", PassJson(cold, calls.concepts)},
                                 {"warm", PassJson(warm, calls.concepts)},
                                 {"warm_difference_max", difference}};
    return PrintAndEnd(json.dump() + "\n", code);
  }
  std::string text = fmt::format(
      "case study: {} concepts, {} texts ({} unique), {} tokens, seed {}, {}\n", calls.concepts, calls.texts.size(),
      unique.size(), cold.tokens, options.study.seed,
      options.mode == "sutra" ? "call by call as Sutra does (1 content, then its fragments)" : "all texts in one call");
  text += PassText("cold", cold, calls.concepts);
  if (cold.failed == 0 && cold.computed < unique.size()) {
    text += fmt::format("      (not all cold: the cache already held {} of the {} unique texts)\n",
                        unique.size() - cold.computed, unique.size());
  }
  text += PassText("warm", warm, calls.concepts);
  if (code == kAllOk) {
    text += fmt::format("      largest difference between cold and warm vectors: {}\n", difference);
    text += ComparisonText(cold, calls, info);
  } else {
    sutra::Say(kName, fmt::format("{} texts got no vector: {}", cold.failed + warm.failed,
                                  cold.failed != 0 ? cold.first_error : warm.first_error));
  }
  return PrintAndEnd(text, code);
}

}  // namespace

int main(int argc, char** argv) {
  sutra::StartProgram();
  Options options;
  CLI::App app("Learns the financial case study through a running engine, cold and warm.", kName);
  app.add_option("--socket", options.socket, "Socket of the engine");
  app.add_option("--mode", options.mode, "sutra: one content, then its fragments; batch: all texts in one call")
      ->check(CLI::IsMember({"sutra", "batch"}))
      ->capture_default_str();
  app.add_option("--seed", options.study.seed, "Seed of the generated prices")->capture_default_str();
  app.add_option("--companies", options.study.companies, "Number of companies")
      ->check(CLI::Range(1u, 100u))
      ->capture_default_str();
  app.add_option("--days", options.study.days, "Weekdays per company")
      ->check(CLI::Range(1u, 2000u))
      ->capture_default_str();
  app.add_option("--timeout", options.timeout_s, "Timeout per text in seconds")->check(CLI::Range(1u, 86'400u));
  app.add_flag("--json", options.json, "Print the figures as one JSON object");
  app.add_flag("--dump", options.dump, "Print the texts as JSON lines instead; needs no engine");
  app.footer(
      "Exit codes: 0 every text got its vector; 1 some did not; 2 usage error or no engine; 3 the output failed.");
  if (const auto code = sutra::ParseArguments(&app, argc, argv, kUsage, kOutputFailed)) return *code;
  const std::vector<sutra::Concept> concepts = sutra::MakeCaseStudy(options.study);
  if (options.dump) return PrintAndEnd(DumpText(concepts), kAllOk);
  if (options.socket.empty()) {
    return sutra::Fail(kName, kUsage, "--socket PATH is required: the socket of a running engine (or use --dump)");
  }
  return Learn(options, concepts);
}
