// One message of the attach handshake over a SOCK_SEQPACKET Unix socket, with its descriptors and a deadline. Used by
// both sides; libc only, no exceptions, no allocation.
//
// Thread rule: one thread per socket. Invariants: descriptors arrive close-on-exec; every descriptor of an invalid
// message is closed; a peer that sends half a message or nothing costs at most the wait until the deadline.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace sutra {

enum class MessageOutcome : uint8_t {
  kOk,
  kTimeout,    // nothing (more) to read or no room to write until the deadline; with deadline 0: would block
  kClosed,     // the peer hung up
  kMalformed,  // wrong size, truncated, or not the expected number of descriptors
  kFdsLost,    // descriptors came that this process could not take: its limit of open files
  kError,      // errno says why
};

inline constexpr size_t kMessageFdsMax = 6;

// How many descriptors come with a message, if any do.
struct FdCount {
  FdCount(size_t exactly) : least(exactly), most(exactly) {}  // NOLINT: implicit on purpose
  FdCount(size_t from, size_t to) : least(from), most(to) {}
  size_t least, most;
};

// Sends `bytes` as one message with `fd_count` descriptors (at most kMessageFdsMax). `deadline_ns` is on
// CLOCK_MONOTONIC; 0 tries once. Never raises SIGPIPE.
[[nodiscard]] MessageOutcome SendMessage(int socket, const void* bytes, size_t byte_count, const int* fds,
                                         size_t fd_count, uint64_t deadline_ns);

// Receives one message of exactly `byte_count` bytes with `fd_count` descriptors, for which `fds` has room, or none;
// *fds_received says how many. On kMalformed, *received says how many bytes of `bytes` the peer sent, so that an older
// or newer hello can still be recognised and refused as such. The caller owns the descriptors on kOk only.
[[nodiscard]] MessageOutcome ReceiveMessage(int socket, void* bytes, size_t byte_count, int* fds, FdCount fd_count,
                                            size_t* fds_received, size_t* received, uint64_t deadline_ns);

}  // namespace sutra
