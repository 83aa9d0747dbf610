// netload: servers and clients that put a load on a path and measure it.
//
// Every subcommand is bounded in count and time and prints one JSON line per
// result; `serve` runs until it is killed or its standard input closes.
#include <csignal>
#include <cstdio>
#include <cstring>

#include "tests/bench/load/tools.h"

namespace {

constexpr char kHelp[] =
    R"(usage: netload serve    [--echo PORT] [--sink PORT] [--source PORT]
                        [--processes N]
       netload pingpong --to ADDRESS:PORT [--seconds S] [--size BYTES]
       netload connect  --to ADDRESS:PORT [--seconds S] [--clients N]
                        [--max N]
       netload idle     --to ADDRESS:PORT [--count N] [--batch N]
                        [--from ADDRESS,...] [--timeout S] [--hold S]
       netload udpserve [--port PORT]
       netload udp      --to ADDRESS:PORT [--what rtt|up|down|voice|idle]
                        [--seconds S] [--size BYTES] [--segments N]
                        [--rate N] [--count N] [--hold -1]

serve     TCP servers on all addresses, IPv4 and IPv6: echo (default port
          7001), sink (reads and forgets) and source (writes without end);
          port 0 leaves one out. N processes share the ports. Prints a line
          when it listens; ends when standard input closes.
pingpong  round-trip times of one-byte (or --size) messages on one connection.
connect   connect, echo one byte, close; over and over from N clients at once,
          for S seconds or --max connections. Times are from connect() to the
          echo's arrival.
idle      opens N connections, --batch at a time, each proven by an echo;
          prints a line; waits S seconds, or with --hold -1 until standard
          input closes; proves each again; prints a second line. --from names
          source addresses, since one has only 64,511 ports.

udpserve  the server of `udp`, default port 7002; runs until it is killed.
udp       rtt: round-trip times of datagrams, one at a time. up, down: the
          highest rate with less than one in a thousand lost, found in steps of
          S seconds; --segments N sends N datagrams per call (UDP_SEGMENT).
          voice: --rate datagrams per second there and back: losses, and by how
          much the gaps between arrivals differ from what was sent. idle: N
          sockets, each proven by an echo, as `idle` above.

Servers for the three TCP clients are `netload serve`. IPv6: [ADDRESS]:PORT.
)";

}  // namespace

int main(int argc, char** argv) {
  using netload::Options;
  std::signal(SIGPIPE, SIG_IGN);
  const char* command = argc > 1 ? argv[1] : "--help";
  const auto options = [&](std::vector<std::string> known) {
    return Options(argc - 2, argv + 2, std::move(known));
  };
  if (std::strcmp(command, "serve") == 0) {
    return netload::Serve(options({"echo", "sink", "source", "processes"}));
  }
  if (std::strcmp(command, "pingpong") == 0) {
    return netload::PingPong(options({"to", "seconds", "size"}));
  }
  if (std::strcmp(command, "connect") == 0) {
    return netload::Connect(options({"to", "seconds", "clients", "max"}));
  }
  if (std::strcmp(command, "idle") == 0) {
    return netload::Idle(
        options({"to", "count", "batch", "from", "timeout", "hold"}));
  }
  if (std::strcmp(command, "udpserve") == 0) {
    return netload::UdpServe(options({"port"}));
  }
  if (std::strcmp(command, "udp") == 0) {
    return netload::Udp(options({"to", "what", "seconds", "size", "segments",
                                 "rate", "count", "hold"}));
  }
  const bool asked =
      std::strcmp(command, "--help") == 0 || std::strcmp(command, "-h") == 0;
  std::fputs(kHelp, asked ? stdout : stderr);
  return asked ? 0 : 2;
}
