// The handler, which a fault inside a guarded read leaves by a jump, and its installation in front of the old one.
#include "engine/lanes/sigbus_guard.h"

#include <signal.h>

namespace sutra {
namespace {

struct sigaction previous_action;

void Handle(int signal_number, siginfo_t* info, void* context) {
  sigbus::Guard* guard = sigbus::current;
  if (guard != nullptr) {
    sigbus::current = nullptr;
    siglongjmp(guard->environment, 1);
  }
  if ((previous_action.sa_flags & SA_SIGINFO) != 0 && previous_action.sa_sigaction != nullptr) {
    previous_action.sa_sigaction(signal_number, info, context);
    return;
  }
  if (previous_action.sa_handler == SIG_IGN) return;
  if (previous_action.sa_handler != SIG_DFL) {
    previous_action.sa_handler(signal_number);
    return;
  }
  sigaction(SIGBUS, &previous_action, nullptr);  // the default action on return, at the faulting instruction
}

}  // namespace

bool InstallSigbusGuard() {
  struct sigaction action = {};
  action.sa_sigaction = Handle;
  action.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK;
  sigemptyset(&action.sa_mask);
  struct sigaction before = {};
  if (sigaction(SIGBUS, nullptr, &before) != 0) return false;
  if ((before.sa_flags & SA_SIGINFO) != 0 && before.sa_sigaction == Handle) return true;
  previous_action = before;
  return sigaction(SIGBUS, &action, nullptr) == 0;
}

}  // namespace sutra
