package netstack.jvm

import java.io.FileDescriptor
import java.io.FileOutputStream
import java.io.IOException
import java.nio.file.Files
import java.nio.file.Path
import netstack.client.LocalConnection
import netstack.client.LocalListener
import org.newsclub.net.unix.AFUNIXServerSocket
import org.newsclub.net.unix.AFUNIXSocket
import org.newsclub.net.unix.AFUNIXSocketAddress

/** Unix sockets that carry descriptors, by junixsocket. */
public object UnixSockets {
    @Throws(IOException::class)
    public fun connect(path: Path): LocalConnection {
        val socket = AFUNIXSocket.newInstance()
        try {
            socket.connect(AFUNIXSocketAddress.of(path))
        } catch (e: IOException) {
            socket.close()
            throw e
        }
        return UnixConnection(socket)
    }

    /** Listens at [path]; what a dead process left there is removed. */
    @Throws(IOException::class)
    public fun listen(path: Path): LocalListener {
        Files.deleteIfExists(path)
        val server = AFUNIXServerSocket.newInstance()
        server.bind(AFUNIXSocketAddress.of(path))
        return object : LocalListener {
            override fun accept() = UnixConnection(server.accept())
            override fun close() = server.close()
        }
    }
}

private class UnixConnection(
    private val socket: AFUNIXSocket,
) : LocalConnection {
    init {
        socket.ancillaryReceiveBufferSize = ANCILLARY
    }

    override fun write(bytes: ByteArray, descriptor: FileDescriptor?) {
        if (descriptor != null) socket.setOutboundFileDescriptors(descriptor)
        socket.outputStream.write(bytes)
    }

    override fun read(into: ByteArray, offset: Int, size: Int): Int =
        socket.inputStream.read(into, offset, size)

    override fun takeDescriptors(): List<FileDescriptor> =
        socket.receivedFileDescriptors?.toList().orEmpty()

    // A stream over a foreign descriptor closes it, on a JVM.
    override fun closeDescriptor(descriptor: FileDescriptor): Unit =
        FileOutputStream(descriptor).close()

    override fun close(): Unit = socket.close()

    private companion object {
        const val ANCILLARY = 1024 // bytes: more descriptors than one
    }
}
