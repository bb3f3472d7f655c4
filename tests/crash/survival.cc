// The course of a run: what is drawn, and what is asked of the engines.
#include "tests/crash/survival.h"

#include <poll.h>
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <future>
#include <nlohmann/json.hpp>

namespace sutra::test {
namespace {

constexpr size_t kEngines = 3, kClients = 8;
constexpr uint64_t kDrawNs = 20 * kNsPerMs;  // mean time between two draws
constexpr uint64_t kSampleKills = 80;        // between two looks into the shard
constexpr size_t kSampleTexts = 40;
constexpr uint64_t kBeatsNs = 20 * kNsPerMs;  // the figures of an engine may be so old
constexpr uint64_t kFailuresMax = 30;         // then the run ends

EngineOptions OneEngine(const std::string& socket, const std::string& data, const SurvivalOptions& options) {
  EngineOptions engine;
  engine.socket = socket;
  engine.data = data;
  engine.environment = {"SUTRA_FAKE_DELAY_US=300"};
  // A small log of small segments, so that kills meet recycling too.
  engine.args = {"--wal-segment-bytes", "65536", "--wal-bytes-max", "16777216", "--attach-rate-max", "100000"};
  if (options.engine_forgets) engine.args.insert(engine.args.end(), {"--durability", "none"});
  return engine;
}

}  // namespace

std::string ToJson(const SurvivalTotals& totals, const SurvivalOptions& options) {
  const nlohmann::ordered_json json = {{"kills", totals.kills},
                                       {"lost", totals.lost},
                                       {"wrong", totals.wrong},
                                       {"wedged", totals.wedged},
                                       {"leaked", totals.leaked},
                                       {"ended", totals.ended},
                                       {"engine_kills", totals.engine_kills},
                                       {"standby_kills", totals.standby_kills},
                                       {"client_kills", totals.client_kills},
                                       {"takeovers", totals.takeovers},
                                       {"hand_overs", totals.hand_overs},
                                       {"terminations", totals.terminations},
                                       {"stops", totals.stops},
                                       {"restarts", totals.restarts},
                                       {"client_restarts", totals.client_restarts},
                                       {"answers", totals.answers},
                                       {"resubmitted", totals.resubmitted},
                                       {"engines_of_one_client", totals.engines_of_one_client},
                                       {"found_again", totals.found_again},
                                       {"longest_gap_ms", totals.longest_gap_ms},
                                       {"seconds", static_cast<double>(totals.ms) / 1000.0},
                                       {"rust", !options.rust_client.empty()},
                                       {"seed", options.seed},
                                       {"failures", totals.failures}};
  return json.dump();
}

Survival::Survival(SurvivalOptions options, const std::atomic<bool>* stop)
    : options_(std::move(options)),
      stop_(stop),
      random_(options_.seed),
      socket_(directory_ / "engine.sock"),
      data_(directory_ / "data") {
  for (size_t i = 0; i < kEngines; ++i) {
    Member engine;
    engine.engine = std::make_unique<EngineProcess>(OneEngine(socket_, data_, options_));
    engine.prefix = "engine " + std::to_string(i);
    engine.start_ns = UINT64_MAX;
    engines_.push_back(std::move(engine));
  }
  std::vector<std::string> kinds = {"C", "C++"};
  if (!options_.rust_client.empty()) kinds.emplace_back("Rust");
  for (size_t i = 0; i < kClients; ++i) {
    Member client;
    client.kind = kinds[i % kinds.size()];
    client.prefix = "client " + std::to_string(i);
    client.elder = i < kinds.size();
    client.start_ns = UINT64_MAX;
    clients_.push_back(std::move(client));
  }
}

Survival::~Survival() {
  for (Member& client : clients_) {
    client.process.reset();
    if (client.tally != nullptr) munmap(client.tally, kTallyWords * 8);
  }
}

SurvivalTotals Survival::Run() {
  began_ns_ = gap_ended_ns_ = MonotonicNs();
  if (Prepare()) {
    drawing_ = true;
    for (Member& client : clients_) client.start_ns = 1;
    while (totals_.kills < options_.kills && !stop_->load() && totals_.failures.size() < kFailuresMax) {
      Turn();
      if (MonotonicNs() >= next_draw_ns_) {
        Draw();
        next_draw_ns_ = MonotonicNs() + Random(2 * kDrawNs);
      }
      if (totals_.kills >= sampled_at_kills_ + kSampleKills) CheckShard();
      if (options_.end_at_first && !totals_.good()) break;
    }
    if (stop_->load()) std::fprintf(stderr, "asked to stop: the run ends early\n");
    drawing_ = false;
    EndAndLookForLeaks();
  }
  for (Member& client : clients_) EndOfClient(&client);
  totals_.ms = (MonotonicNs() - began_ns_) / kNsPerMs;
  Progress(true);
  if (!totals_.good() && !options_.keep.empty()) {
    std::filesystem::create_directories(options_.keep);
    for (size_t i = 0; i < kEngines; ++i) {
      WriteFile(options_.keep + "/engine." + std::to_string(i) + ".log", engines_[i].engine->Log());
    }
    WriteFile(options_.keep + "/clients.log", ReadFile(directory_ / "clients.log"));
  }
  return totals_;
}

// What an engine holds that just began, and one that just took over: what no later one may exceed.
bool Survival::Prepare() {
  const auto measure = [this] {
    // What a first lane makes the engine keep is not a leak.
    if (!WaitUntil(10'000, [this] { return ClientHandle().Attach(socket_) == SUTRA_OK; })) return false;
    const bool idle = WaitUntil(10'000, [this] {
      const Member* serving = Serving();
      if (serving == nullptr || !shard_open_ || serving->engine->Stats().gauge(Gauge::kLanes) != 0) return false;
      // The log makes its reserve beside the serving; an engine without log makes none.
      const bool reserve = DescriptorsOf(serving->child().pid()).find("reserve.tmp") != std::string::npos;
      return reserve || options_.engine_forgets;
    });
    if (!idle) return false;
    const ProcessFootprint now = FootprintOf(Serving()->child().pid());
    most_.descriptors = std::max(most_.descriptors, now.descriptors);
    most_.lane_maps = std::max(most_.lane_maps, now.lane_maps);
    most_.threads = std::max(most_.threads, now.threads);
    return true;
  };
  StartEngine(&engines_[0]);
  bool good = measure();
  StartEngine(&engines_[1]);
  const auto waits = [this] { return engines_[1].engine->Log().find("waiting for") != std::string::npos; };
  good = good && WaitUntil(10'000, waits);
  Kill({&engines_[0]});
  good = good && measure();
  if (!good || own_client_.Attach(socket_) != SUTRA_OK) {
    Fail(&totals_.wedged, "no engine serves at the start: " + engines_[0].engine->Log() + engines_[1].engine->Log());
    return false;
  }
  engines_[2].start_ns = 1;
  return true;
}

void Survival::Draw() {
  const uint64_t drawn = Random(100);
  if (drawn < 50) return KillClients();
  if (drawn < 60) return StopClient();
  if (Serving() == nullptr) return;  // there is no engine: first one comes back, so that no deadline ends meanwhile
  // Who never was attached loses nothing.
  if (options_.never_restart) return totals_.answers > 0 ? KillAllEngines() : void();
  if (drawn < 74) return KillServing(drawn < 66);
  if (drawn < 82) return KillStandby();
  if (drawn < 85) return KillAllEngines();
  if (drawn < 90) return Terminate();
  if (drawn < 95) return HandOver();
  StopEngine();
}

void Survival::KillServing(bool with_clients) {
  std::vector<Member*> victims = {Serving()};
  for (Member* client : Alive(&clients_)) {
    if (with_clients && !client->elder && Random(3) == 0) victims.push_back(client);
  }
  Kill(victims);
}

void Survival::KillStandby() {
  std::vector<Member*> standbys = Alive(&engines_);
  std::erase(standbys, Serving());
  if (!standbys.empty()) Kill({standbys[Random(standbys.size())]});
}

void Survival::KillAllEngines() { Kill(Alive(&engines_)); }

void Survival::KillClients() {
  std::vector<Member*> victims = Alive(&clients_);
  std::erase_if(victims, [](const Member* client) { return client->elder; });
  std::shuffle(victims.begin(), victims.end(), random_);
  victims.resize(std::min<size_t>(victims.size(), 1 + Random(4)));
  Kill(victims);
}

// The engine that serves, or one that waits.
void Survival::Terminate() {
  const std::vector<Member*> engines = Alive(&engines_);
  Member* victim = Random(3) != 0 ? Serving() : engines[Random(engines.size())];
  victim->may_end = true;
  if (victim->asked_ns == 0) victim->asked_ns = MonotonicNs();
  victim->child().Signal(SIGTERM);
  ++totals_.terminations;
}

void Survival::HandOver() {
  for (Member* engine : Alive(&engines_)) engine->may_end = true;
  SpawnOptions spawn;
  spawn.args = {EngineProgram(), "--hand-over", socket_};
  spawn.log_path = directory_ / "hand_overs.log";
  hand_overs_.push_back(std::make_unique<ChildProcess>(spawn));
}

void Survival::StopEngine() {
  const std::vector<Member*> engines = Alive(&engines_);
  StopFor(Random(2) == 0 ? Serving() : engines[Random(engines.size())], Random(800) * kNsPerMs);
}

void Survival::StopClient() {
  const std::vector<Member*> clients = Alive(&clients_);
  if (!clients.empty()) StopFor(clients[Random(clients.size())], Random(1500) * kNsPerMs);
}

// Engines have to be started and continued while the call waits for one.
std::vector<Reply> Survival::EmbedMeanwhile(const std::vector<std::string>& texts) {
  std::future<std::vector<Reply>> call =
      std::async(std::launch::async, [this, &texts] { return own_client_.EmbedBatch(texts); });
  while (call.wait_for(std::chrono::seconds(0)) != std::future_status::ready) Turn();
  return call.get();
}

// What an engine has written before its death is in the shard of the next one. The figures of an engine that others
// have not killed meanwhile show that it has written.
void Survival::CheckShard() {
  sampled_at_kills_ = totals_.kills;
  if (options_.never_restart || options_.fail_fast) return;
  const auto open = [this] { return Serving() != nullptr && shard_open_; };
  if (!WaitUntil(10'000, open)) return;
  Member* const engine = Serving();
  const uint64_t generation = serving_generation_;
  const std::vector<std::string> texts = NumberedTexts("sample " + std::to_string(++samples_), kSampleTexts);
  for (const Reply& reply : EmbedMeanwhile(texts)) {
    if (reply.status != SUTRA_OK)
      return Fail(&totals_.lost, std::string("a sample: ") + sutra_status_text(reply.status));
  }
  // The clients go on, so something is always unwritten; but in the end nothing that is as old as the sample.
  const uint64_t answered_ns = MonotonicNs();
  uint64_t dropped = 0;
  const bool written = WaitUntil(5'000, [&] {
    if (Random(16) == 0) KillClients();
    const StatsSnapshot stats = engine->engine->Stats();
    dropped = stats.gauge(Gauge::kWalDroppedInserts) + stats.gauge(Gauge::kInsertsDropped);
    const uint64_t beat_ns = stats.gauge(Gauge::kHeartbeatNs);
    const uint64_t oldest_ns = stats.gauge(Gauge::kWalOldestUnwrittenUs) * 1000;
    return beat_ns > answered_ns + kBeatsNs && beat_ns - oldest_ns > answered_ns + kBeatsNs;
  });
  if (!written || dropped > 0 || Serving() != engine || serving_generation_ != generation) return;  // proves nothing
  Kill({engine});
  if (!WaitUntil(20'000, [&] { return open() && serving_generation_ != generation; })) {
    return Fail(&totals_.wedged, "no engine opens the shard after a kill");
  }
  const uint64_t next_generation = serving_generation_;
  const std::vector<Reply> replies = EmbedMeanwhile(texts);
  LookWhoServes();
  const bool same = open() && serving_generation_ == next_generation;  // or perhaps one whose shard is still closed
  for (size_t i = 0; i < texts.size(); ++i) {
    const std::string wrong = WhatIsWrong(replies[i], texts[i]);
    if (!wrong.empty()) {
      Fail(replies[i].status == SUTRA_OK ? &totals_.wrong : &totals_.lost, texts[i] + " after a kill: " + wrong);
    } else if (!replies[i].FromCache() && same) {
      Fail(&totals_.lost, texts[i] + " was written, and is not in the shard after a kill");
    } else if (same) {
      ++totals_.found_again;
    }
  }
}

void Survival::Progress(bool last) {
  const uint64_t now_ns = MonotonicNs();
  if (!last && now_ns < next_progress_ns_) return;
  next_progress_ns_ = now_ns + options_.progress_s * kNsPerSecond;
  std::fprintf(stderr,
               "%5.1f s: %llu kills (%llu engines, %llu standbys, %llu clients), %llu takeovers, %llu hand-overs, "
               "%llu stops, %llu answers of clients that ended; lost %llu, wrong %llu, wedged %llu, leaked %llu\n",
               static_cast<double>(now_ns - began_ns_) / 1e9, static_cast<unsigned long long>(totals_.kills),
               static_cast<unsigned long long>(totals_.engine_kills),
               static_cast<unsigned long long>(totals_.standby_kills),
               static_cast<unsigned long long>(totals_.client_kills),
               static_cast<unsigned long long>(totals_.takeovers), static_cast<unsigned long long>(totals_.hand_overs),
               static_cast<unsigned long long>(totals_.stops), static_cast<unsigned long long>(totals_.answers),
               static_cast<unsigned long long>(totals_.lost), static_cast<unsigned long long>(totals_.wrong),
               static_cast<unsigned long long>(totals_.wedged), static_cast<unsigned long long>(totals_.leaked));
}

}  // namespace sutra::test
