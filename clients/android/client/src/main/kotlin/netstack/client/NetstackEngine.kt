package netstack.client

import java.io.File
import java.io.IOException
import kotlin.concurrent.thread

/** What carries the packets: in this process, or a program of its own. */
public interface NetstackEngine {
    /** It protects its sockets itself; else a [ProtectServer] is asked. */
    public val protects: Boolean get() = false

    /** Starts it, to listen on [control]. [NetstackClient.ready] waits. */
    @Throws(IOException::class)
    public fun start(control: File)

    /** Returns when it has ended. Without effect when it does not run. */
    public fun stop()
}

/**
 * The program `netstackd` as a child of this process.
 *
 * On Android it is packed as `lib/ABI/libnetstackd.so`, since only what is
 * named so is installed where it may be executed
 * (`applicationInfo.nativeLibraryDir`, with `extractNativeLibs`).
 *
 * @param log gets what it logs, line by line, on a thread of its own.
 */
public class ProgramEngine(
    private val program: File,
    private val arguments: List<String> = emptyList(),
    private val log: (String) -> Unit = {},
) : NetstackEngine {
    private var running: Process? = null

    @Synchronized
    override fun start(control: File) {
        check(running == null) { "it was started already" }
        val process = ProcessBuilder(
            listOf(program.path, "--socket", control.path) + arguments)
            .redirectErrorStream(true).start()
        running = process
        thread(name = "netstackd-log", isDaemon = true) {
            try {
                process.inputStream.bufferedReader().forEachLine(log)
            } catch (_: IOException) {
                // It was killed in the middle of a line.
            }
        }
    }

    @Synchronized
    override fun stop() {
        val process = running ?: return
        running = null
        process.destroy() // SIGTERM, upon which it ends within a second
        process.waitFor()
    }
}
