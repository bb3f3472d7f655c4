// Written by hand, because nlohmann prints floats as doubles; read by nlohmann.
#include "tools/cache/export_format.h"

#include <fmt/format.h>

#include <bit>
#include <cstring>
#include <iterator>
#include <nlohmann/json.hpp>

#include "tools/cache/base64.h"
#include "tools/cache/command_support.h"
#include "tools/lib/vector_output.h"

namespace sutra {

namespace {

using Json = nlohmann::json;

static_assert(std::endian::native == std::endian::little, "the format says little-endian");

Json Parse(std::string_view line) { return Json::parse(line, nullptr, /*allow_exceptions=*/false); }

Status Wrong(const std::string& what) { return Status(StatusCode::kBadOption, what); }

// False: it is not there, or not a number that fits.
template <typename T>
bool Number(const Json& json, const char* name, T* value) {
  const auto found = json.find(name);
  if (found == json.end() || !found->is_number_unsigned()) return false;
  const auto wide = found->get<uint64_t>();
  *value = static_cast<T>(wide);
  return *value == wide;
}

bool Text(const Json& json, const char* name, std::string* value) {
  const auto found = json.find(name);
  if (found == json.end() || !found->is_string()) return false;
  *value = found->get<std::string>();
  return true;
}

bool ReadText(const Json& json, std::string* text) {
  if (Text(json, "text", text)) return true;
  std::string encoded;
  if (!Text(json, "text_base64", &encoded)) return false;
  std::optional<std::string> bytes = FromBase64(encoded);
  if (!bytes) return false;
  *text = std::move(*bytes);
  return true;
}

Status ReadVector(const Json& json, uint32_t width, std::vector<float>* vector) {
  std::string encoded;
  if (Text(json, "vector_base64", &encoded)) {
    const std::optional<std::string> bytes = FromBase64(encoded);
    if (!bytes || bytes->size() % sizeof(float) != 0) return Wrong("\"vector_base64\" holds no floats");
    vector->resize(bytes->size() / sizeof(float));
    std::memcpy(vector->data(), bytes->data(), bytes->size());
  } else {
    const auto found = json.find("vector");
    if (found == json.end() || !found->is_array()) return Wrong("there is no \"vector_base64\" and no \"vector\"");
    vector->clear();
    for (const Json& number : *found) {
      if (!number.is_number()) return Wrong("\"vector\" holds something that is no number");
      vector->push_back(number.get<float>());
    }
  }
  if (vector->size() == width) return {};
  return Wrong(fmt::format("the vector has {} floats, not {}", vector->size(), width));
}

}  // namespace

std::string ExportHeaderLine(const ExportHeader& header) {
  return fmt::format("{{\"sutra_cache_export\":1,\"identity\":{},\"model\":{},\"width\":{},\"time\":{}}}",
                     JsonText(header.identity), JsonText(header.model), header.width, header.time_s);
}

std::string ExportEndLine(const ExportEnd& end) {
  const std::string crc = end.vectors_crc32c ? fmt::format(",\"vectors_crc32c\":{}", *end.vectors_crc32c) : "";
  return fmt::format("{{\"end\":true,\"entries\":{}{}}}", end.entries, crc);
}

void AppendExportLine(const CacheEntry& entry, bool with_vector, std::string* out) {
  *out += '{';
  AppendTextJson(entry.text, out);
  fmt::format_to(std::back_inserter(*out), ",\"variant\":{},\"tokens\":{},\"truncated\":{},\"norm\":{},\"left_s\":{}",
                 entry.variant, entry.value.token_count, entry.value.truncated, entry.value.norm, entry.left_s);
  if (with_vector) {
    std::string bytes(entry.vector.size() * sizeof(float), '\0');
    std::memcpy(bytes.data(), entry.vector.data(), bytes.size());
    *out += ",\"vector_base64\":\"" + ToBase64(bytes) + "\"";
  }
  *out += "}\n";
}

Result<ExportHeader> ParseExportHeader(std::string_view line) {
  const Json json = Parse(line);
  uint64_t version = 0;
  if (!json.is_object() || !Number(json, "sutra_cache_export", &version)) {
    return Wrong("its first line is not that of an export; texts to compute are for: sutra-cache warm");
  }
  if (version != 1) return Wrong("it is of a later version of this program");
  ExportHeader header;
  if (!Text(json, "identity", &header.identity) || !Number(json, "width", &header.width) ||
      !Number(json, "time", &header.time_s)) {
    return Wrong("its first line lacks \"identity\", \"width\" or \"time\"");
  }
  Text(json, "model", &header.model);
  return header;
}

std::optional<ExportEnd> ParseExportEnd(std::string_view line) {
  if (!line.starts_with("{\"end\"")) return std::nullopt;
  const Json json = Parse(line);
  ExportEnd end;
  if (!json.is_object() || !Number(json, "entries", &end.entries)) return std::nullopt;
  uint32_t crc = 0;
  if (Number(json, "vectors_crc32c", &crc)) end.vectors_crc32c = crc;
  return end;
}

Result<CacheEntry> ParseExportLine(std::string_view line, uint32_t width) {
  const Json json = Parse(line);
  if (!json.is_object()) return Wrong("it is no JSON object");
  CacheEntry entry;
  if (!ReadText(json, &entry.text)) return Wrong("there is no \"text\" and no \"text_base64\"");
  const auto norm = json.find("norm"), truncated = json.find("truncated");
  if (norm == json.end() || !norm->is_number() || truncated == json.end() || !truncated->is_boolean() ||
      !Number(json, "variant", &entry.variant) || !Number(json, "tokens", &entry.value.token_count) ||
      !Number(json, "left_s", &entry.left_s)) {
    return Wrong("\"variant\", \"tokens\", \"truncated\", \"norm\" or \"left_s\" is missing or no such value");
  }
  entry.value.norm = norm->get<float>();
  entry.value.truncated = truncated->get<bool>();
  if (width == 0) return entry;
  if (Status status = ReadVector(json, width, &entry.vector); !status.ok()) return status;
  return entry;
}

}  // namespace sutra
