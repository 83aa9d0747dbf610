import CNetstack
import Foundation

/// Why the service did not start: a sentence, and the C library's result.
public struct NetstackError: LocalizedError {
    public let result: netstack_result
    public let errorDescription: String?
}

/// The whole service in this process. Stats, flows, config and events are gRPC
/// over its socket, for this process and for those that share the folder.
public final class Service {
    /// What carries packets.
    public enum Packets {
        /// A utun. The service owns the descriptor once it has started.
        case descriptor(Int32)
        /// Called with each packet to the apps, on the service's loop thread;
        /// it must not wait. Packets of the apps go in by `input`.
        case callback((Data) -> Void)
    }

    private let handle: OpaquePointer
    private let context: Context

    /// - Parameters:
    ///   - socket: where the control socket is made: at most 103 bytes.
    ///   - config: a netstack.v1.Config as textproto or JSON.
    ///   - protect: keeps a socket out of the VPN; false refuses the
    ///     connection. nil: the system does, as it does for the sockets of
    ///     packet tunnel providers.
    public init(
        socket: URL, config: String? = nil, mtu: UInt32 = 0, packets: Packets,
        protect: ((Int32) -> Bool)? = nil
    ) throws {
        let context = Context(packets: packets, protect: protect)
        var options = netstack_options()
        netstack_options_init(&options)
        options.mtu = mtu
        options.context = Unmanaged.passUnretained(context).toOpaque()
        switch packets {
        case .descriptor(let descriptor):
            options.tun_fd = descriptor
        case .callback:
            options.write_packet = { context, packet, size in
                guard case .callback(let write) = Context.of(context).packets,
                    let packet = packet
                else { return EINVAL }
                write(Data(bytes: packet, count: size))
                return 0
            }
        }
        if protect != nil {
            options.protect = { context, descriptor in
                Context.of(context).protect!(descriptor) ? 0 : -1
            }
        }
        var handle: OpaquePointer?
        var why = [CChar](repeating: 0, count: 256)
        let result = socket.path.withCString { path -> netstack_result in
            options.socket_path = path
            guard let config = config else {
                return netstack_start(&options, &handle, &why, why.count)
            }
            return config.withCString { text -> netstack_result in
                options.config = text
                return netstack_start(&options, &handle, &why, why.count)
            }
        }
        guard result == NETSTACK_OK, let started = handle else {
            throw NetstackError(
                result: result, errorDescription: String(cString: why))
        }
        self.handle = started
        self.context = context
    }

    /// Ends it: no callback comes any more when this returns.
    deinit {
        netstack_stop(handle)
    }

    /// One packet of an app. False: the service has not caught up, or was not
    /// made for packets; drop it, as a network would. Never waits.
    @discardableResult
    public func input(_ packet: Data) -> Bool {
        packet.withUnsafeBytes {
            netstack_input(handle, $0.baseAddress, $0.count) == 0
        }
    }

    /// What the C callbacks are given; lives as long as the service.
    private final class Context {
        let packets: Packets
        let protect: ((Int32) -> Bool)?

        init(packets: Packets, protect: ((Int32) -> Bool)?) {
            self.packets = packets
            self.protect = protect
        }

        static func of(_ pointer: UnsafeMutableRawPointer?) -> Context {
            Unmanaged<Context>.fromOpaque(pointer!).takeUnretainedValue()
        }
    }
}
