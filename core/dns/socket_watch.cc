#include "core/dns/socket_watch.h"

namespace netstack {

SocketWatch::Handle SocketWatch::Watch(int fd, Poller::Trigger trigger,
                                       SocketHandler* handler,
                                       uint64_t cookie) {
  Record* record = records_.Allocate();
  if (record == nullptr) return {};
  record->fd = fd;
  record->handler = handler;
  record->cookie = cookie;
  const PollToken token{PollToken::Kind::kDns, record->generation,
                        record->index};
  if (poller_->Add(fd, token, trigger) != 0) {
    records_.Free(record);
    return {};
  }
  return {record->index, record->generation};
}

bool SocketWatch::Modify(Handle handle, Poller::Trigger trigger) {
  Record* record = records_.Find(handle.index, handle.generation);
  if (record == nullptr) return false;
  const PollToken token{PollToken::Kind::kDns, record->generation,
                        record->index};
  return poller_->Modify(record->fd, token, trigger) == 0;
}

void SocketWatch::Forget(Handle handle) {
  if (!handle.valid()) return;
  Record* record = records_.Find(handle.index, handle.generation);
  if (record == nullptr) return;
  // Fails only when the descriptor is closed already, which removed it.
  (void)poller_->Remove(record->fd);
  records_.Free(record);
}

bool SocketWatch::Dispatch(const PollEvent& event, Instant now) {
  const Record* record =
      records_.Find(event.token.index, event.token.generation);
  if (record == nullptr) return false;
  // Copied: the handler may forget itself.
  SocketHandler* const handler = record->handler;
  const uint64_t cookie = record->cookie;
  handler->OnReady(cookie, event, now);
  return true;
}

}  // namespace netstack
