// A quantised model in a file of its own, so that a later start reads what an earlier one computed.
//
// Layout (little-endian, as all our hosts): a header of fixed size, the arrays of each product in the order of
// ForEachArray, and the SHA-256 of everything before it. All lengths follow from the model's shapes, none is read from
// the file.
// Thread rule: any thread and any number of processes: a file appears whole under its name, or not at all.
// Invariants:
// - What is read is what was written for the same identity and shapes; anything else is refused, with the reason.
#pragma once

#include <string>

#include "engine/cpu/int8/quantised_model.h"
#include "shm/base/status.h"

namespace sutra::cpu {

// DIRECTORY/<identity>.int8
std::string PackedFilePath(const std::string& directory, const std::string& identity);

// Writes layers and quality, readable by the own user only; makes the last folder of the path where it is missing.
// REQUIRES: identity has 64 characters.
Status WritePackedFile(const std::string& path, const std::string& identity, const QuantisedModel& model);

// Fills in layers and quality. REQUIRES: model->rest. kNotReady: there is no such file. kStorageError: it cannot be
// used, because it is damaged, another model's, not ours, or cannot be read.
Status ReadPackedFile(const std::string& path, const std::string& identity, QuantisedModel* model);

}  // namespace sutra::cpu
