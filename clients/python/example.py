#!/usr/bin/python3
"""Drives netstackd as an automated test does: start, watch, assert, stop.

    cmake --preset release
    cmake --build --preset release --target netstackd netstack_python
    deploy/rootless clients/python/example.py build/release

It makes the namespaces of deploy/topology (an app behind the TUN, a gateway
where netstackd runs, a server), fetches a page through the TUN over IPv4 and
IPv6, and holds what WatchFlows told against what really happened.
"""
import contextlib
import pathlib
import subprocess
import sys
import tempfile
import time

REPO = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(sys.argv[1]).resolve()
sys.path.insert(0, str(BUILD / "clients/python"))  # the generated stubs

import grpc  # Debian: python3-grpcio; elsewhere: pip install grpcio
from netstack.v1 import (config_pb2, flow_pb2, flow_service_pb2,
                         flow_service_pb2_grpc, netstack_service_pb2,
                         netstack_service_pb2_grpc)

BODY = b"hello through the TUN\n"
NS = "python"  # prefix of the namespaces; ours alone under deploy/rootless


def run(*command):
    return subprocess.run([str(word) for word in command], check=True,
                          stdout=subprocess.PIPE, timeout=30).stdout


def spawn(stack, namespace, *command):
    """Starts a program in a namespace; it is ended when `stack` unwinds."""
    process = subprocess.Popen(["nsenter", f"--net=/run/netns/{NS}-{namespace}",
                                "--", *map(str, command)])
    stack.callback(process.wait, 30)
    stack.callback(process.terminate)


def main():
    with contextlib.ExitStack() as stack:
        work = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (work / "hello").write_bytes(BODY)
        run(REPO / "deploy/topology", "up", NS)
        stack.callback(run, REPO / "deploy/topology", "down", NS)
        spawn(stack, "srv", sys.executable, REPO / "deploy/http_server.py",
              "--port", "80", "--root", work)
        spawn(stack, "gw", BUILD / "server/netstackd", "--socket",
              work / "netstackd.sock")

        channel = stack.enter_context(
            grpc.insecure_channel(f"unix:{work}/netstackd.sock"))
        grpc.channel_ready_future(channel).result(timeout=10)
        netstack = netstack_service_pb2_grpc.NetstackServiceStub(channel)
        flows = flow_service_pb2_grpc.FlowServiceStub(channel)

        # Closed flows are to be gone at once and not remembered for 10 s.
        config = config_pb2.Config()
        config.tun.name = "tun0"
        config.tcp.time_wait.FromSeconds(0)
        netstack.UpdateConfig(
            netstack_service_pb2.UpdateConfigRequest(config=config), timeout=5)
        netstack.Start(netstack_service_pb2.StartRequest(), timeout=5)
        run(REPO / "deploy/topology", "attach", NS, "tun0")

        # The server listens when the direct route, past the TUN, answers.
        app = ["nsenter", f"--net=/run/netns/{NS}-app", "--", "curl", "-sSf"]
        run(*app, "--retry", "50", "--retry-delay", "1", "--retry-all-errors",
            "http://10.77.2.2/hello")

        # The stream's timeout is the test's: a flow never told fails it.
        watch = flows.WatchFlows(flow_service_pb2.WatchFlowsRequest(
            filter=flow_pb2.FlowFilter(remote_port=80)), timeout=20)
        for message in watch:  # what was there before us: nothing
            assert not message.snapshot.flows, message
            if message.WhichOneof("payload") == "end_of_snapshot":
                break

        for host, app_address, url in (
                ("10.77.1.2", "10.10.0.2", "http://10.77.1.2/hello"),
                ("fd77:1::2", "fd10::2", "http://[fd77:1::2]/hello")):
            assert run(*app, url) == BODY
            story = []  # of one flow, from its SYN to its end
            while not story or story[-1].state != flow_pb2.FLOW_STATE_CLOSED:
                story += [c.flow for c in next(watch).changes.changes]
            last = story[-1]
            assert len({flow.id for flow in story}) == 1, story
            assert story[0].state == flow_pb2.FLOW_STATE_DIALING, story
            assert last.close_reason == flow_pb2.CLOSE_REASON_FINISHED, last
            assert last.key.protocol == flow_pb2.PROTOCOL_TCP, last
            assert last.key.remote.address == host, last
            assert last.key.remote.port == 80, last
            assert last.key.app.address == app_address, last
            assert last.inbound_bytes > len(BODY), last  # headers as well
            assert last.outbound_bytes > len("GET /hello"), last
            print(f"flow {last.id} to {host}:", " > ".join(
                flow_pb2.FlowState.Name(f.state).removeprefix("FLOW_STATE_")
                for f in story), f"({last.inbound_bytes} bytes)")

        watch.cancel()
        assert netstack.Stop(netstack_service_pb2.StopRequest(),
                             timeout=5).stopped


if __name__ == "__main__":
    started = time.monotonic()
    main()
    print(f"all as expected, {time.monotonic() - started:.1f} s")
