// One WatchQueries stream.
//
// The loop thread appends to the stream's bounded queue. When it is full,
// queries are counted as lost until it is written out; then the count is told,
// and queries go on.
#ifndef SERVER_QUERY_STREAM_H_
#define SERVER_QUERY_STREAM_H_

#include <deque>
#include <memory>
#include <optional>
#include <string>

#include "core/wire/ip_address.h"
#include "netstack/v1/dns_service.pb.h"
#include "server/query_hub.h"
#include "server/stack.h"
#include "server/watch_stream.h"

namespace netstack::server {

struct QueryFilter {
  std::string name_suffix;  // lower case, without dots at its ends
  std::optional<IpPrefix> app;
  bool only_filtered = false;

  bool Matches(const dns::DnsQueryInfo& query) const;
};

class QueryStream final : public WatchStream<v1::WatchQueriesResponse>,
                          public QueryWatcher {
 public:
  // `stack` outlives the stream.
  QueryStream(Watches* watches, grpc::CallbackServerContext* context,
              Stack* stack, QueryFilter filter);

  void Begin();

  // QueryWatcher, on the loop thread (or after its end).
  void OnQuery(const dns::DnsQueryInfo& query) override;
  void OnStackEnd(const absl::Status& why) override { End(why); }

 private:
  bool Next(v1::WatchQueriesResponse* out) override
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void OnEnded() override;

  Stack* const stack_;
  const QueryFilter filter_;
  const size_t queue_limit_;
  std::deque<v1::DnsQuery> queue_ ABSL_GUARDED_BY(mu_);
  uint64_t lost_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t epoch_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace netstack::server

#endif  // SERVER_QUERY_STREAM_H_
