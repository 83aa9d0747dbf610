#include "server/dns_service.h"

#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "core/dns/name.h"
#include "server/convert.h"
#include "server/dns_config_convert.h"
#include "server/errors.h"
#include "server/query_stream.h"

namespace netstack::server {
namespace {

using Problems = std::vector<ConfigProblem>;

grpc::ServerUnaryReactor* Refuse(grpc::CallbackServerContext* context,
                                 const Problems& problems) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(ToGrpc(InvalidFields("INVALID_REQUEST", problems)));
  return reactor;
}

// Lower case, without dots at its ends.
std::string PlainName(const std::string& text) {
  std::string lower = absl::AsciiStrToLower(text);
  absl::string_view view = lower;
  absl::ConsumePrefix(&view, ".");
  absl::ConsumeSuffix(&view, ".");
  return std::string(view);
}

void CheckName(const char* field, const std::string& name, Problems& problems) {
  if (dns::DnsName::FromText(name)) return;
  problems.push_back({field, absl::StrCat("\"", name, "\" is not a name.")});
}

void ReadAddress(const std::string& text, Endpoint& out, Problems& problems) {
  if (const auto ip = IpAddress::Parse(text)) {
    out = {*ip, 0};
  } else if (const auto endpoint = Endpoint::Parse(text)) {
    out = *endpoint;
  } else {
    problems.push_back(
        {"address", absl::StrCat("\"", text,
                                 "\" is not an address with or without a "
                                 "port.")});
  }
}

DnsExplainRequest ReadExplain(const v1::ExplainRequest& in,
                              Problems& problems) {
  DnsExplainRequest out;
  if (in.name().empty() == in.address().empty()) {
    problems.push_back({"name", "either a name or an address."});
    return out;
  }
  if (!in.name().empty()) CheckName("name", in.name(), problems);
  out.name = in.name();
  if (!in.address().empty()) ReadAddress(in.address(), out.address, problems);
  if (in.type() > 65535) {
    problems.push_back({"type", absl::StrCat(in.type(), " is no type.")});
  } else if (in.type() != 0) {
    out.type = static_cast<uint16_t>(in.type());
  }
  if (!in.app().empty()) {
    if (const auto app = IpAddress::Parse(in.app())) {
      out.app = *app;
    } else {
      problems.push_back(
          {"app", absl::StrCat("\"", in.app(), "\" is not an address.")});
    }
  }
  switch (in.protocol()) {
    case v1::PROTOCOL_UNSPECIFIED:
    case v1::PROTOCOL_TCP:
      break;
    case v1::PROTOCOL_UDP:
      out.protocol = Protocol::kUdp;
      break;
    default:
      problems.push_back({"protocol", "only TCP and UDP have ports."});
  }
  return out;
}

void WriteExplanation(const DnsExplanation& in, v1::ExplainResponse* out,
                      bool of_name) {
  if (of_name) out->set_verdict(ToProto(in.verdict));
  out->set_matched(in.matched);
  out->set_group(in.group);
  for (const std::string& u : in.upstreams) out->add_upstreams(u);
  out->set_permitted(in.permitted);
  out->set_led_by(in.led_by);
  for (const std::string& reason : in.reasons) out->add_reasons(reason);
}

void WriteList(const DnsListInfo& in, v1::DnsListStatus* out) {
  out->set_name(in.name);
  out->set_names(in.names);
  out->set_exceptions(in.exceptions);
  out->set_skipped_lines(in.skipped_lines);
}

}  // namespace

grpc::ServerWriteReactor<v1::WatchQueriesResponse>*
DnsServiceImpl::WatchQueries(grpc::CallbackServerContext* context,
                             const v1::WatchQueriesRequest* request) {
  using Response = v1::WatchQueriesResponse;
  QueryFilter filter;
  Problems problems;
  filter.name_suffix = PlainName(request->name_suffix());
  filter.only_filtered = request->only_filtered();
  if (!request->app().empty()) {
    filter.app = IpPrefix::Parse(request->app());
    if (!filter.app) {
      problems.push_back({"app", absl::StrCat("\"", request->app(),
                                              "\" is neither an address nor a "
                                              "prefix.")});
    }
  }
  if (!problems.empty()) {
    return new RefusedStream<Response>(
        InvalidFields("INVALID_REQUEST", problems));
  }
  return Launch<Response, QueryStream>(watches_, context, stack_,
                                       std::move(filter));
}

grpc::ServerUnaryReactor* DnsServiceImpl::Explain(
    grpc::CallbackServerContext* context, const v1::ExplainRequest* request,
    v1::ExplainResponse* response) {
  Problems problems;
  DnsExplainRequest wanted = ReadExplain(*request, problems);
  if (!problems.empty()) return Refuse(context, problems);
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  const bool of_name = !wanted.name.empty();
  stack_->Ask(
      [wanted = std::move(wanted)](Engine& engine, FlowHub&) {
        return engine.ExplainDns(wanted);
      },
      [reactor, response, of_name](absl::StatusOr<DnsExplanation> answer,
                                   uint64_t) {
        if (answer.ok()) WriteExplanation(*answer, response, of_name);
        reactor->Finish(ToGrpc(answer.status()));
      });
  return reactor;
}

grpc::ServerUnaryReactor* DnsServiceImpl::FlushCache(
    grpc::CallbackServerContext* context, const v1::FlushCacheRequest* request,
    v1::FlushCacheResponse* response) {
  Problems problems;
  const bool named = !request->name().empty();
  if (!named && !request->all()) {
    problems.push_back(
        {"all",
         "without a name everything is meant, which \"all\" must "
         "say."});
  } else if (named && request->all()) {
    problems.push_back({"all", "says everything, but a name says some."});
  } else if (!named && request->subdomains()) {
    problems.push_back({"subdomains", "of which name?"});
  } else if (named) {
    CheckName("name", request->name(), problems);
  }
  if (!problems.empty()) return Refuse(context, problems);
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  stack_->Ask([name = request->name(), below = request->subdomains()](
                  Engine& engine,
                  FlowHub&) { return engine.FlushDnsCache(name, below); },
              [reactor, response](absl::StatusOr<size_t> flushed, uint64_t) {
                if (flushed.ok()) response->set_answers(*flushed);
                reactor->Finish(ToGrpc(flushed.status()));
              });
  return reactor;
}

grpc::ServerUnaryReactor* DnsServiceImpl::ReloadLists(
    grpc::CallbackServerContext* context, const v1::ReloadListsRequest*,
    v1::ReloadListsResponse* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  stack_->ReloadLists(
      [reactor, response](absl::StatusOr<std::vector<DnsListInfo>> lists) {
        if (lists.ok()) {
          for (const DnsListInfo& list : *lists) {
            WriteList(list, response->add_lists());
          }
        }
        reactor->Finish(ToGrpc(lists.status()));
      });
  return reactor;
}

grpc::ServerUnaryReactor* DnsServiceImpl::GetUpstreams(
    grpc::CallbackServerContext* context, const v1::GetUpstreamsRequest*,
    v1::GetUpstreamsResponse* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  stack_->Ask(
      [](Engine& engine, FlowHub&) { return engine.ListDnsUpstreams(); },
      [reactor, response](absl::StatusOr<DnsUpstreams> answer, uint64_t) {
        if (answer.ok()) {
          for (const DnsUpstreams::Upstream& u : answer->upstreams) {
            ToProto(u, response->add_upstreams());
          }
          for (const DnsListInfo& list : answer->lists) {
            WriteList(list, response->add_lists());
          }
        }
        reactor->Finish(ToGrpc(answer.status()));
      });
  return reactor;
}

}  // namespace netstack::server
