package netstack.jvm

import java.io.FileDescriptor
import java.io.FileOutputStream
import java.nio.file.Files
import java.nio.file.Path
import java.util.concurrent.CopyOnWriteArrayList
import netstack.client.LocalConnection
import netstack.client.ProtectServer
import org.junit.jupiter.api.AfterEach
import org.junit.jupiter.api.Assertions.assertArrayEquals
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.BeforeEach
import org.junit.jupiter.api.Test

/** The app's side of both protocols; the test plays the service by hand. */
class ProtectServerTest {
    private lateinit var folder: Path
    private lateinit var file: Path
    private val asked = CopyOnWriteArrayList<FileDescriptor>()

    @BeforeEach
    fun begin() {
        folder = Files.createTempDirectory("netstack-protect")
        file = Files.createFile(folder.resolve("file"))
    }

    @AfterEach
    fun end() {
        folder.toFile().deleteRecursively()
    }

    private fun serve(
        pipelined: Boolean,
        protect: (FileDescriptor) -> Boolean,
        test: (connect: () -> LocalConnection) -> Unit,
    ) {
        val path = folder.resolve("protect.sock")
        ProtectServer(UnixSockets.listen(path), pipelined) {
            asked += it
            protect(it)
        }.use {
            test { UnixSockets.connect(path) }
        }
    }

    private fun LocalConnection.ask(bytes: ByteArray, with: FileDescriptor?,
                                    answer: Int): ByteArray {
        write(bytes, with)
        return readAll(answer)
    }

    private fun LocalConnection.readAll(size: Int): ByteArray {
        val bytes = ByteArray(size)
        var have = 0
        while (have < size) {
            val got = read(bytes, have, size - have)
            if (got < 0) return bytes.copyOf(have)
            have += got
        }
        return bytes
    }

    private fun request(id: Int) = byteArrayOf(0, 0, 1, id.toByte(), 6, 4, 0, 0)
    private fun answer(id: Int, verdict: Int) =
        byteArrayOf(0, 0, 1, id.toByte(), verdict.toByte(), 0, 0, 0)

    private fun withDescriptor(block: (FileDescriptor) -> Unit) =
        file.toFile().outputStream().use { block(it.fd) }

    private fun openDescriptors() =
        Files.list(Path.of("/proc/self/fd")).use { it.count() }

    @Test
    fun `protect_path, one byte each way`() = withDescriptor { fd ->
        serve(pipelined = false, protect = { asked.size != 2 }) { connect ->
            val verdicts = List(3) {
                connect().use { c -> c.ask(byteArrayOf(1), fd, 1).single() }
            }
            assertEquals(listOf<Byte>(0, 1, 0), verdicts)
        }
    }

    @Test
    fun `pipelined, requests answered by their ids`() = withDescriptor { fd ->
        serve(pipelined = true, protect = { asked.size != 2 }) { connect ->
            connect().use { c ->
                for (id in 7..9) c.write(request(id), fd)
                assertArrayEquals(
                    answer(7, 0) + answer(8, 1) + answer(9, 0), c.readAll(24))
            }
        }
    }

    @Test
    fun `what protecting throws is a no`() = withDescriptor { fd ->
        serve(pipelined = true, protect = { error("no permission") }) {
            connect ->
            connect().use { c ->
                assertArrayEquals(answer(1, 1), c.ask(request(1), fd, 8))
                assertArrayEquals(answer(2, 1), c.ask(request(2), fd, 8))
            }
        }
    }

    @Test
    fun `a request without a socket ends the connection, unasked`() {
        serve(pipelined = true, protect = { true }) { connect ->
            connect().use { c ->
                assertEquals(0, c.ask(request(1), null, 8).size)
            }
            assertEquals(0, asked.size)
        }
    }

    @Test
    fun `a request that comes in pieces is one request`() =
        withDescriptor { fd ->
            serve(pipelined = true, protect = { true }) { connect ->
                connect().use { c ->
                    c.write(request(5).copyOfRange(0, 3), fd)
                    assertArrayEquals(answer(5, 0),
                        c.ask(request(5).copyOfRange(3, 8), null, 8))
                }
            }
        }

    @Test
    fun `the descriptor is the one that was sent, and is closed`() =
        withDescriptor { fd ->
            serve(pipelined = true, protect = {
                // Write through it: it must be our file.
                FileOutputStream(it).write(asked.size)
                true
            }) { connect ->
                connect().use { c ->
                    c.ask(request(1), fd, 8) // what is made once, is made
                    val before = openDescriptors()
                    for (id in 2..100) c.ask(request(id), fd, 8)
                    // A leak would show a hundred.
                    assertTrue(openDescriptors() < before + 10,
                               "$before before, ${openDescriptors()} after")
                }
            }
            assertArrayEquals(ByteArray(100) { (it + 1).toByte() },
                              Files.readAllBytes(file))
            assertTrue(asked.none { it.valid() })
        }

    @Test
    fun `closing it ends its connections`() = withDescriptor { fd ->
        lateinit var open: LocalConnection
        serve(pipelined = true, protect = { true }) { connect ->
            open = connect()
            open.ask(request(1), fd, 8)
        }
        open.use { assertEquals(-1, it.read(ByteArray(1), 0, 1)) }
    }
}
