package netstack.client

import java.io.FileDescriptor
import java.io.IOException
import java.util.Collections
import kotlin.concurrent.thread

/**
 * Answers the service's requests to protect its sockets
 * (`protect.app_socket`): for every socket, [protect] says whether it is kept
 * out of the VPN now; what it throws is a no. The service connects no socket
 * without a yes.
 *
 * A thread per connection; with [pipelined] (the default, as in the config
 * `protect.app_protocol`) the service keeps one connection for all sockets,
 * else it makes one for each, as the `protect_path` of existing apps.
 * [protect] gets a socket of this process, which is closed afterwards.
 */
public class ProtectServer(
    private val listener: LocalListener,
    private val pipelined: Boolean = true,
    private val protect: (FileDescriptor) -> Boolean,
) : AutoCloseable {
    private val connections: MutableSet<LocalConnection> =
        Collections.synchronizedSet(mutableSetOf())

    @Volatile
    private var closed = false

    init {
        thread(name = "netstack-protect", isDaemon = true) { accept() }
    }

    private fun accept() {
        while (!closed) {
            val connection = try {
                listener.accept()
            } catch (_: IOException) {
                if (!closed) Thread.sleep(RETRY_MS) // out of descriptors
                continue
            }
            connections += connection
            thread(name = "netstack-protect", isDaemon = true) {
                serve(connection)
            }
        }
    }

    private fun serve(connection: LocalConnection) {
        try {
            connection.use { if (pipelined) answerAll(it) else answerOne(it) }
        } catch (_: IOException) {
            // The service is gone, or broke the rules; it will connect anew.
        } finally {
            connections -= connection
        }
    }

    // id (4), kind (1), family (1), zeros (2); answer: id (4), verdict, zeros.
    private fun answerAll(connection: LocalConnection) {
        val request = ByteArray(REQUEST)
        while (true) {
            val socket = receive(connection, request) ?: return
            val answer = request.copyOf(REQUEST)
            answer.fill(0, fromIndex = ID)
            answer[ID] = verdict(connection, socket)
            connection.write(answer)
        }
    }

    private fun answerOne(connection: LocalConnection) {
        val socket = receive(connection, ByteArray(1)) ?: return
        connection.write(byteArrayOf(verdict(connection, socket)))
    }

    /** Fills [request]; its one socket, or null at the end of the stream. */
    private fun receive(connection: LocalConnection, request: ByteArray):
        FileDescriptor? {
        val sockets = mutableListOf<FileDescriptor>()
        var have = 0
        try {
            while (have < request.size) {
                val got = connection.read(request, have, request.size - have)
                sockets += connection.takeDescriptors()
                if (got < 0) {
                    if (have == 0 && sockets.isEmpty()) return null
                    throw IOException("the request was cut short")
                }
                have += got
            }
            if (sockets.size != 1) {
                throw IOException("${sockets.size} sockets in one request")
            }
            return sockets.single()
        } catch (e: IOException) {
            sockets.forEach(connection::closeDescriptor)
            throw e
        }
    }

    private fun verdict(connection: LocalConnection, socket: FileDescriptor):
        Byte = try {
        if (protect(socket)) YES else NO
    } catch (_: RuntimeException) {
        NO
    } finally {
        connection.closeDescriptor(socket)
    }

    /** The service is refused its dials from now on. */
    override fun close() {
        closed = true
        listener.close()
        synchronized(connections) { connections.toList() }
            .forEach(LocalConnection::close)
    }

    private companion object {
        const val REQUEST = 8
        const val ID = 4
        const val YES: Byte = 0
        const val NO: Byte = 1
        const val RETRY_MS = 100L
    }
}
