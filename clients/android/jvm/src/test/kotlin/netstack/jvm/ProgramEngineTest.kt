package netstack.jvm

import io.grpc.Status
import java.nio.file.Files
import java.util.concurrent.CopyOnWriteArrayList
import kotlin.time.Duration.Companion.milliseconds
import kotlinx.coroutines.runBlocking
import netstack.client.NetstackClient
import netstack.client.NetstackException
import netstack.client.ProgramEngine
import netstack.v1.StackState
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertFalse
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test

class ProgramEngineTest {
    private val folder = Files.createTempDirectory("netstack-engine")
    private val control = folder.resolve("control.sock")

    @Test
    fun `it starts, answers and ends`() {
        val log = CopyOnWriteArrayList<String>()
        val engine = ProgramEngine(netstackd(), log = log::add)
        engine.start(control.toFile())
        NetstackClient(UnixChannel.open(control)).use { service ->
            runBlocking {
                service.ready()
                assertEquals(StackState.STACK_STATE_STOPPED,
                             service.status().state)
            }
        }
        assertThrows(IllegalStateException::class.java) {
            engine.start(control.toFile())
        }
        engine.stop()
        engine.stop()
        assertFalse(Files.exists(control))
        assertTrue(log.any { "netstackd" in it }, "$log")
        folder.toFile().deleteRecursively()
    }

    @Test
    fun `a service that does not come is UNAVAILABLE in time`() {
        NetstackClient(UnixChannel.open(control), 300.milliseconds).use {
            val refusal = assertThrows(NetstackException::class.java) {
                runBlocking { it.ready() }
            }
            assertEquals(Status.Code.UNAVAILABLE, refusal.code)
        }
        folder.toFile().deleteRecursively()
    }
}
