package netstack.android

import android.net.LocalSocket
import io.grpc.ManagedChannel
import io.grpc.okhttp.OkHttpChannelBuilder
import java.io.File
import java.io.InputStream
import java.io.OutputStream
import java.net.InetAddress
import java.net.InetSocketAddress
import java.net.Socket
import java.net.SocketAddress
import java.net.SocketException
import javax.net.SocketFactory

/** The way to the service's control socket on Android. */
public object LocalSocketChannel {
    /** Connects when the first call is made. */
    public fun open(control: File): ManagedChannel =
        // The address is for the eye of OkHttp; the factory does not look at
        // it. Nothing is resolved and no packet is sent.
        OkHttpChannelBuilder.forAddress("localhost", 1)
            .socketFactory(LocalSocketFactory(control.path))
            .proxyDetector { null }
            .usePlaintext()
            .build()
}

private class LocalSocketFactory(private val path: String) : SocketFactory() {
    override fun createSocket(): Socket = LocalSocketAsSocket(path)

    override fun createSocket(host: String?, port: Int): Socket = connected()

    override fun createSocket(
        host: String?, port: Int, localHost: InetAddress?, localPort: Int,
    ): Socket = connected()

    override fun createSocket(host: InetAddress?, port: Int): Socket =
        connected()

    override fun createSocket(
        address: InetAddress?, port: Int, localAddress: InetAddress?,
        localPort: Int,
    ): Socket = connected()

    private fun connected() = createSocket().apply {
        connect(InetSocketAddress(InetAddress.getLoopbackAddress(), 1))
    }
}

/**
 * A LocalSocket in the shape of a java.net.Socket, as far as OkHttp's transport
 * uses one. TCP's options mean nothing here and are taken without effect.
 */
private class LocalSocketAsSocket(private val path: String) : Socket() {
    private var local: LocalSocket? = null
    private var closed = false

    private fun socket() =
        local ?: throw SocketException("Socket is not connected")

    override fun connect(endpoint: SocketAddress?) = connect(endpoint, 0)

    @Synchronized
    override fun connect(endpoint: SocketAddress?, timeout: Int) {
        if (closed) throw SocketException("Socket is closed")
        local = LocalSockets.open(path)
    }

    override fun getInputStream(): InputStream = socket().inputStream
    override fun getOutputStream(): OutputStream = socket().outputStream

    @Synchronized
    override fun close() {
        if (closed) return
        closed = true
        val it = local ?: return
        // LocalSocket's close() leaves a reader waiting.
        runCatching { it.shutdownInput() }
        runCatching { it.shutdownOutput() }
        it.close()
    }

    override fun isConnected(): Boolean = local != null
    override fun isBound(): Boolean = local != null
    @Synchronized
    override fun isClosed(): Boolean = closed
    override fun isInputShutdown(): Boolean = isClosed
    override fun isOutputShutdown(): Boolean = isClosed
    override fun shutdownInput(): Unit = socket().shutdownInput()
    override fun shutdownOutput(): Unit = socket().shutdownOutput()

    override fun getInetAddress(): InetAddress =
        InetAddress.getLoopbackAddress()
    override fun getLocalAddress(): InetAddress =
        InetAddress.getLoopbackAddress()
    override fun getPort(): Int = 1
    override fun getLocalPort(): Int = -1
    override fun getRemoteSocketAddress(): SocketAddress =
        InetSocketAddress(inetAddress, port)
    override fun getLocalSocketAddress(): SocketAddress =
        InetSocketAddress(inetAddress, 0)

    override fun setTcpNoDelay(on: Boolean) {}
    override fun getTcpNoDelay(): Boolean = true
    override fun setKeepAlive(on: Boolean) {}
    override fun getKeepAlive(): Boolean = false
    override fun setSoTimeout(timeout: Int) {
        local?.soTimeout = timeout
    }
    override fun getSoTimeout(): Int = local?.soTimeout ?: 0
    override fun setSoLinger(on: Boolean, linger: Int) {}
}
