package netstack.client

import java.io.File
import java.io.IOException

/**
 * libnetstack.so in this process (`vpn/src/main/cpp`, over clients/embed).
 *
 * @param config a netstack.v1.Config as textproto or JSON.
 * @param protect keeps a socket, given as its number, out of the VPN; called on
 *     the service's loop thread for every socket before it is connected. What
 *     it throws is a no.
 */
public class EmbeddedEngine(
    private val config: String = "",
    private val protect: (Int) -> Boolean,
) : NetstackEngine {
    private var running = 0L // the native object

    override val protects: Boolean get() = true

    @Synchronized
    override fun start(control: File) {
        check(running == 0L) { "it was started already" }
        running = nativeStart(control.path, config)
    }

    @Synchronized
    override fun stop() {
        if (running != 0L) nativeStop(running)
        running = 0
    }

    /** Called by the native side. */
    @Suppress("unused")
    private fun protectDescriptor(descriptor: Int) = protect(descriptor)

    @Throws(IOException::class)
    private external fun nativeStart(control: String, config: String): Long

    private external fun nativeStop(handle: Long)

    private companion object {
        init {
            System.loadLibrary("netstack")
        }
    }
}
