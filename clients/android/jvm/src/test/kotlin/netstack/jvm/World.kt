package netstack.jvm

import java.io.File
import java.nio.file.Files
import java.nio.file.Path
import java.util.concurrent.TimeUnit
import netstack.client.NetstackClient

private val repository: Path =
    Path.of(System.getProperty("netstack.repository")).toRealPath()

/** The program under test: of the preset release, or -Dnetstackd=PATH. */
fun netstackd(): File {
    val path = System.getProperty("netstackd")
        ?: "$repository/build/release/server/netstackd"
    return File(path).also {
        check(it.canExecute()) {
            "there is no $it: build it first " +
                "(cmake --preset release && cmake --build --preset release)"
        }
    }
}

/**
 * The real netstackd between an app and a server, in namespaces that no
 * traffic leaves: see the script `world` beside the tests.
 */
class World : AutoCloseable {
    // Short: a Unix socket's path has at most 107 bytes.
    val folder: Path = Files.createTempDirectory("netstack-kotlin")
    val control: Path = folder.resolve("control.sock")
    private val process: Process

    init {
        process = ProcessBuilder(
            "$repository/deploy/rootless",
            "$repository/clients/android/jvm/src/test/world",
            netstackd().path, "$control")
            .redirectError(ProcessBuilder.Redirect.INHERIT).start()
        answer()
    }

    fun client() = NetstackClient(UnixChannel.open(control))

    /** Has a command carried out; its answer, or an exception. */
    fun ask(command: String): String {
        process.outputWriter().apply { write("$command\n"); flush() }
        return answer()
    }

    private fun answer(): String {
        // The script's own deadlines end it, so this is no wait for ever.
        val line = process.inputReader().readLine()
        check(line != null && line.startsWith("ok")) { "the world: $line" }
        return line.removePrefix("ok").trim()
    }

    override fun close() {
        process.outputStream.close()
        if (!process.waitFor(30, TimeUnit.SECONDS)) process.destroyForcibly()
        folder.toFile().deleteRecursively()
    }
}
