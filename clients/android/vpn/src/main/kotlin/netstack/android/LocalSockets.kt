package netstack.android

import android.net.LocalServerSocket
import android.net.LocalSocket
import android.net.LocalSocketAddress
import android.net.LocalSocketAddress.Namespace
import android.system.ErrnoException
import android.system.Os
import android.system.OsConstants
import java.io.File
import java.io.FileDescriptor
import java.io.IOException
import netstack.client.LocalConnection
import netstack.client.LocalListener

/** Unix sockets that carry descriptors, as Android has them. */
public object LocalSockets {
    /** Connects to a path, or to "@name" in Linux's abstract namespace. */
    @Throws(IOException::class)
    public fun connect(address: String): LocalConnection =
        LocalSocketConnection(open(address))

    /** Listens at [path]; what a dead process left there is removed. */
    @Throws(IOException::class)
    public fun listen(path: File): LocalListener {
        path.delete()
        // LocalServerSocket itself binds abstract names only, which any app
        // could take; a file in our own folder is ours.
        val socket = LocalSocket(LocalSocket.SOCKET_STREAM)
        socket.bind(LocalSocketAddress(path.path, Namespace.FILESYSTEM))
        return LocalSocketListener(socket)
    }

    internal fun open(address: String): LocalSocket {
        val socket = LocalSocket(LocalSocket.SOCKET_STREAM)
        try {
            socket.connect(
                if (address.startsWith("@")) {
                    LocalSocketAddress(address.drop(1), Namespace.ABSTRACT)
                } else {
                    LocalSocketAddress(address, Namespace.FILESYSTEM)
                })
        } catch (e: IOException) {
            socket.close()
            throw e
        }
        return socket
    }
}

private class LocalSocketConnection(
    private val socket: LocalSocket,
) : LocalConnection {
    private val input = socket.inputStream
    private val output = socket.outputStream

    override fun write(bytes: ByteArray, descriptor: FileDescriptor?) {
        if (descriptor != null) {
            socket.setFileDescriptorsForSend(arrayOf(descriptor))
        }
        try {
            output.write(bytes)
        } finally {
            // A write that failed must not leave them for the next one.
            if (descriptor != null) socket.setFileDescriptorsForSend(null)
        }
    }

    override fun read(into: ByteArray, offset: Int, size: Int): Int =
        input.read(into, offset, size)

    override fun takeDescriptors(): List<FileDescriptor> =
        socket.ancillaryFileDescriptors?.toList().orEmpty()

    override fun closeDescriptor(descriptor: FileDescriptor) {
        try {
            Os.close(descriptor)
        } catch (_: ErrnoException) {
            // It was not open; so it is closed.
        }
    }

    override fun close() {
        try {
            socket.shutdownInput() // wakes a reader, which close() does not
        } catch (_: IOException) {
            // Not connected any more.
        }
        socket.close()
    }
}

private class LocalSocketListener(
    private val bound: LocalSocket,
) : LocalListener {
    private val server = LocalServerSocket(bound.fileDescriptor) // listens

    override fun accept(): LocalConnection =
        LocalSocketConnection(server.accept())

    override fun close() {
        try {
            Os.shutdown(bound.fileDescriptor, OsConstants.SHUT_RDWR)
        } catch (_: ErrnoException) {
            // Nobody waited.
        }
        server.close()
        bound.close()
    }
}
