import Foundation
import NetworkExtension
import NetstackUtun

/// A packet tunnel whose traffic netstackd carries; see README.md.
open class NetstackTunnelProvider: NEPacketTunnelProvider {
    private var service: Service?

    /// Addresses, routes, DNS, MTU: what the tunnel is to catch.
    open var settings: NEPacketTunnelNetworkSettings {
        fatalError("a subclass says what its tunnel catches")
    }

    /// The group whose folder holds the control socket, so that the app can
    /// reach it too.
    open var appGroup: String {
        fatalError("a subclass names its app group")
    }

    /// A netstack.v1.Config. The default keeps buffers and flows within an
    /// extension's memory.
    open var config: String {
        "limits { memory_budget: 4194304 max_flows: 1000 } "
            + "tcp { buffer_floor: 16384 buffer_max: 131072 }"
    }

    open override func startTunnel(
        options: [String: NSObject]?,
        completionHandler: @escaping (Error?) -> Void
    ) {
        let wanted = settings
        setTunnelNetworkSettings(wanted) { [weak self] error in
            guard let self = self else { return }
            if let error = error {
                completionHandler(error)
                return
            }
            do {
                try self.start(mtu: wanted.mtu?.uint32Value ?? 0)
                completionHandler(nil)
            } catch {
                completionHandler(error)
            }
        }
    }

    open override func stopTunnel(
        with reason: NEProviderStopReason,
        completionHandler: @escaping () -> Void
    ) {
        service = nil  // ends it
        completionHandler()
    }

    private func start(mtu: UInt32) throws {
        let socket = try socketPath()
        // The descriptor stays NetworkExtension's; the service closes a copy.
        let utun = netstack_utun_descriptor()
        let copy = utun < 0 ? -1 : dup(utun)
        if copy >= 0 {
            service = try Service(
                socket: socket, config: config, mtu: mtu,
                packets: .descriptor(copy))
            return
        }
        // The documented way: slower, and there whatever becomes of the other.
        service = try Service(
            socket: socket, config: config, mtu: mtu,
            packets: .callback { [weak self] packet in
                self?.packetFlow.writePackets(
                    [packet], withProtocols: [Self.family(of: packet)])
            })
        readPackets()
    }

    private func readPackets() {
        packetFlow.readPackets { [weak self] packets, _ in
            guard let self = self, let service = self.service else { return }
            for packet in packets { service.input(packet) }
            self.readPackets()
        }
    }

    /// Short: a Unix socket's path has at most 103 bytes here, and the group's
    /// folder takes most of them. The service makes the folder "n", which is
    /// to be its own.
    private func socketPath() throws -> URL {
        guard
            let group = FileManager.default.containerURL(
                forSecurityApplicationGroupIdentifier: appGroup)
        else {
            throw CocoaError(.fileNoSuchFile)
        }
        return group.appendingPathComponent("n/s")
    }

    private static func family(of packet: Data) -> NSNumber {
        let version = (packet.first ?? 0) >> 4
        return NSNumber(value: version == 6 ? AF_INET6 : AF_INET)
    }
}
