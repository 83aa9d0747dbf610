package netstack.client

import com.google.protobuf.ByteString
import java.io.FileDescriptor
import java.io.IOException
import java.nio.ByteBuffer
import java.security.SecureRandom
import netstack.v1.DescriptorVerdict
import netstack.v1.TunHandle

/**
 * Hands TUN descriptors to the service, over its descriptor socket
 * ([netstack.v1.StackStatus.getDescriptorSocket]).
 *
 *     val handover = TunHandover(connectTo(status.descriptorSocket))
 *     service.start(handover.hand(tun, mtu = 1500))
 *
 * Keep it open as long as the TUN is yours: its end without a goodbye is how
 * the service learns that the app died. Blocking; the service answers at once.
 */
public class TunHandover(
    private val connection: LocalConnection,
) : AutoCloseable {
    private val random = SecureRandom()

    /**
     * Sends [tun] and returns what `Start` and `ReplaceTun` name it by. The
     * service has a copy then: the caller's stays its own, to keep or close.
     */
    @Throws(IOException::class)
    public fun hand(tun: FileDescriptor, mtu: Int? = null): TunHandle {
        val nonce = ByteArray(NONCE).also(random::nextBytes)
        connection.write(
            ByteBuffer.allocate(Long.SIZE_BYTES + NONCE)
                .putLong(NONCE.toLong()).put(nonce).array(),
            tun)
        val answer = ByteArray(1)
        if (connection.read(answer, 0, 1) != 1) {
            throw IOException("the service closed the descriptor socket")
        }
        // The zero of an enum has no good name; here it is the good answer.
        if (answer[0] != 0.toByte()) {
            throw IOException("the service refused the descriptor: " +
                DescriptorVerdict.forNumber(answer[0].toInt()))
        }
        val handle = TunHandle.newBuilder()
            .setNonce(ByteString.copyFrom(nonce))
        mtu?.let { handle.mtu = it }
        return handle.build()
    }

    override fun close(): Unit = connection.close()

    private companion object {
        const val NONCE = 16
    }
}
