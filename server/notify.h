// systemd's readiness protocol (sd_notify(3)): one datagram to
// $NOTIFY_SOCKET. Written out here, as libsystemd is a heavy thing to link for
// one sendto().
#ifndef SERVER_NOTIFY_H_
#define SERVER_NOTIFY_H_

#include "absl/strings/string_view.h"

namespace netstack::server {

// Does nothing where there is no systemd.
void NotifyReady();
void NotifyReloading();
void NotifyStopping();

}  // namespace netstack::server

#endif  // SERVER_NOTIFY_H_
