package netstack.jvm

import io.grpc.ManagedChannel
import io.grpc.netty.shaded.io.grpc.netty.NettyChannelBuilder
import io.grpc.netty.shaded.io.netty.channel.epoll.EpollDomainSocketChannel
import io.grpc.netty.shaded.io.netty.channel.epoll.EpollEventLoopGroup
import io.grpc.netty.shaded.io.netty.channel.unix.DomainSocketAddress
import io.grpc.netty.shaded.io.netty.util.concurrent.DefaultThreadFactory
import java.nio.file.Path

/** The way to the service's control socket on Linux. */
public object UnixChannel {
    // One daemon thread for all channels of the process, as long as it lives.
    private val loop by lazy {
        EpollEventLoopGroup(1, DefaultThreadFactory("netstack-client", true))
    }

    /** Connects when the first call is made. */
    public fun open(socket: Path): ManagedChannel =
        NettyChannelBuilder.forAddress(DomainSocketAddress(socket.toFile()))
            .channelType(EpollDomainSocketChannel::class.java)
            .eventLoopGroup(loop)
            .overrideAuthority("localhost")
            .usePlaintext()
            .build()
}
