// What every tool does the same way: standard descriptors, arguments, printing, and SIGINT and SIGTERM as a flag.
//
// Printing throws nothing. A failed write of results is a Status, which becomes the exit code; a failed write to
// standard error is dropped, because there is nobody left to tell and the results matter more.
//
// Thread rule: the program's main thread; InterruptedBy may be called by any thread.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "shm/base/status.h"

namespace CLI {
class App;
}

namespace sutra {

// The first call of every main. A standard descriptor that the caller closed is never taken by a file that is opened
// later, and its use fails: a closed standard output must not look like one that took the results.
void StartProgram();

// Writes `rest` from its front and removes what was written. RETURNS 0 or an errno; ECANCELED: interrupted
// (CatchInterruptions) while the output, a pipe that is full, took nothing.
int WriteAll(int fd, std::string_view* rest);
// All of `text` to standard output, past any buffer. kCancelled: as above.
[[nodiscard]] Status Print(std::string_view text);
// Standard error: "PROGRAM: MESSAGE\n", or the text as it is.
void Say(std::string_view program, std::string_view message);
void SayAsIs(std::string_view text);
// Says the message and returns the code.
int Fail(std::string_view program, int code, std::string_view message);

// Reads the arguments; the exit code if the program ends here (0 after --help, `output_code` when that could not be
// written, `usage_code` for a wrong call).
std::optional<int> ParseArguments(CLI::App* app, int argc, char** argv, int usage_code, int output_code);

// From now on the first SIGINT or SIGTERM only sets a flag; the second of its kind ends the process at once.
void CatchInterruptions();
int InterruptedBy();  // the signal, or 0

}  // namespace sutra
