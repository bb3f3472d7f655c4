// Descriptors 0, 1 and 2 of a program that was started without some of them. The first file that such a program opens
// takes a free one of these numbers, and whatever is then written to "standard error" ends in that file: in a log
// segment, in a socket, in an output that was asked for. Every main calls this before it opens anything.
//
// Thread rule: before the first thread and before the first open.
#pragma once

namespace sutra {

// Opens /dev/null on each of 0, 1 and 2 that is closed, so that its use fails (EBADF): a missing input must not look
// like an empty one, nor a missing output like one that took the results. What is written to a missing standard error
// goes nowhere. Says false, having changed nothing that was open, if that is impossible (no /dev/null); errno has the
// reason.
[[nodiscard]] bool OpenStandardDescriptors();

}  // namespace sutra
