package netstack.jvm

import io.grpc.Status
import kotlin.time.Duration.Companion.milliseconds
import kotlin.time.Duration.Companion.seconds
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.async
import kotlinx.coroutines.flow.first
import kotlinx.coroutines.flow.map
import kotlinx.coroutines.flow.take
import kotlinx.coroutines.flow.takeWhile
import kotlinx.coroutines.flow.toList
import kotlinx.coroutines.runBlocking
import kotlinx.coroutines.withTimeout
import netstack.client.EventUpdate
import netstack.client.FlowUpdate
import netstack.client.NetstackClient
import netstack.client.NetstackException
import netstack.v1.Config
import netstack.v1.EventType
import netstack.v1.FlowChangeType
import netstack.v1.FlowFilter
import netstack.v1.FlowState
import netstack.v1.Protocol
import netstack.v1.StackState
import netstack.v1.TcpConfig
import netstack.v1.TunConfig
import org.junit.jupiter.api.AfterAll
import org.junit.jupiter.api.AfterEach
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertFalse
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.BeforeAll
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.TestInstance
import org.junit.jupiter.params.ParameterizedTest
import org.junit.jupiter.params.provider.CsvSource

/** The Kotlin client and the real netstackd, over its real socket. */
@TestInstance(TestInstance.Lifecycle.PER_CLASS)
class EndToEndTest {
    private lateinit var world: World
    private lateinit var service: NetstackClient

    @BeforeAll
    fun begin() {
        world = World()
        service = world.client()
    }

    @AfterEach
    fun stopStack() = test { service.stop() }

    @AfterAll
    fun end() {
        service.close()
        world.close()
    }

    private fun test(block: suspend CoroutineScope.() -> Unit) =
        runBlocking { withTimeout(60.seconds) { block() } }

    private suspend fun refusal(block: suspend () -> Unit): NetstackException {
        try {
            block()
        } catch (e: NetstackException) {
            return e
        }
        throw AssertionError("it was not refused")
    }

    private suspend fun startWithTun() {
        service.updateConfig(Config.newBuilder()
            .setTun(TunConfig.newBuilder().setName("tun0")).build())
        service.start()
        world.ask("attach tun0")
    }

    @Test
    fun `a stack is started and stopped`() = test {
        assertEquals(StackState.STACK_STATE_STOPPED, service.status().state)
        assertEquals(StackState.STACK_STATE_RUNNING, service.start().state)
        assertEquals(StackState.STACK_STATE_RUNNING, service.status().state)
        assertTrue(service.stop())
        assertFalse(service.stop())
    }

    @Test
    fun `a second start says what stands in the way`() = test {
        service.start()
        val refusal = refusal { service.start() }
        assertEquals(Status.Code.FAILED_PRECONDITION, refusal.code)
        assertEquals("STACK_RUNNING", refusal.reason)
        assertEquals(listOf("stack"), refusal.problems.map { it.subject })
    }

    @Test
    fun `a bad config is refused field by field`() = test {
        val before = service.config()
        val refusal = refusal {
            service.updateConfig(Config.newBuilder().setTcp(
                TcpConfig.newBuilder().setBufferMax(1).setMaxHalfOpen(0)
            ).build())
        }
        assertEquals(Status.Code.INVALID_ARGUMENT, refusal.code)
        assertEquals("INVALID_CONFIG", refusal.reason)
        assertTrue(refusal.problems.map { it.subject }.containsAll(
            listOf("tcp.buffer_max", "tcp.max_half_open")),
            "${refusal.problems}")
        assertEquals(before, service.config())
    }

    @Test
    fun `a change made from an old config is refused`() = test {
        val change = Config.newBuilder().setTcp(
            TcpConfig.newBuilder().setMaxHalfOpen(1000)).build()
        val old = service.config().revision
        service.updateConfig(change, revision = old)
        assertEquals(1000, service.config().config.tcp.maxHalfOpen)
        val refusal = refusal {
            service.updateConfig(change, revision = old)
        }
        assertEquals("REVISION_MISMATCH", refusal.reason)
        // A path without a value: back to the default.
        service.updateConfig(Config.getDefaultInstance(),
                             paths = listOf("tcp.max_half_open"))
        assertFalse(service.config().config.tcp.hasMaxHalfOpen())
    }

    @ParameterizedTest
    @CsvSource("10.77.1.2,10.10.0.2", "fd77:1::2,fd10::2")
    fun `flows are shown and closed`(host: String, app: String) = test {
        startWithTun()
        val port = world.ask("open $host 80").toInt()
        val flow = service.flowTable(refresh = 100.milliseconds)
            .map { table -> table.values.find { it.key.app.port == port } }
            .first { it?.state == FlowState.FLOW_STATE_OPEN }!!
        assertEquals(Protocol.PROTOCOL_TCP, flow.key.protocol)
        assertEquals(host, flow.key.remote.address)
        assertEquals(80, flow.key.remote.port)
        assertEquals(app, flow.key.app.address)
        assertEquals(listOf(flow.id), service.listFlows(
            FlowFilter.newBuilder().setRemote(host).build())
            .map { it.id }.toList())

        assertEquals(1, service.closeFlows(
            FlowFilter.newBuilder().setId(flow.id).build()))
        assertEquals("reset", world.ask("ended $port"))
        service.flowTable().first { flow.id !in it }
    }

    @Test
    fun `flows that begin and end are told`() = test {
        startWithTun()
        val told = async {
            service.watchFlows().takeWhile { update ->
                update !is FlowUpdate.Changes || update.changes.none {
                    it.type == FlowChangeType.FLOW_CHANGE_TYPE_CLOSED
                }
            }.toList()
        }
        val port = world.ask("open 10.77.1.2 80")
        service.flowTable().first { it.isNotEmpty() }
        assertEquals(1, service.closeAllFlows())
        assertEquals("reset", world.ask("ended $port"))
        val states = told.await().filterIsInstance<FlowUpdate.Changes>()
            .flatMap { it.changes }.map { it.flow.state }
        // Whether the watch or the connection came first: it was seen open.
        assertTrue(FlowState.FLOW_STATE_OPEN in states ||
            told.await().any { it is FlowUpdate.Snapshot }, "$states")
    }

    @Test
    fun `many flows come in pages`() = test {
        startWithTun()
        val ports = List(20) { world.ask("open 10.77.1.2 80").toInt() }
        val listed = service.listFlows().map { it.key.app.port }.toList()
        assertEquals(ports.toSet(), listed.toSet())
        assertEquals(20, service.closeAllFlows())
    }

    @Test
    fun `counters grow with the traffic`() = test {
        startWithTun()
        val before = service.watchStats(100.milliseconds).first()
        assertEquals("1048576", world.ask("fetch http://10.77.1.2/big"))
        val after = service.watchStats(100.milliseconds).take(3).toList()
        val grown = after.last().stats.tcp.inboundBytes -
            before.stats.tcp.inboundBytes
        assertTrue(grown >= 1048576, "grew by $grown")
        assertEquals(service.status().epoch, after.last().epoch)
        assertTrue(after.zipWithNext().all { (a, b) ->
            b.time.seconds * 1e9 + b.time.nanos >
                a.time.seconds * 1e9 + a.time.nanos
        })
    }

    @Test
    fun `events are replayed, and go on where a watch ended`() = test {
        service.start()
        val started = service.watchEvents().first {
            it is EventUpdate.Told && it.event.type ==
                EventType.EVENT_TYPE_STACK_STARTED &&
                it.event.epoch == service.status().epoch
        } as EventUpdate.Told
        service.stop()
        val next = service.watchEvents(started.event.sequence)
            .first { it is EventUpdate.Told } as EventUpdate.Told
        assertEquals(started.event.sequence + 1, next.event.sequence)
        assertEquals(EventType.EVENT_TYPE_STACK_STOPPED, next.event.type)
    }

    @Test
    fun `a flow watch ends with the stack`() = test {
        service.start()
        val end = async { refusal { service.watchFlows().toList() } }
        service.watchFlows().first { it is FlowUpdate.SnapshotEnd }
        service.stop()
        assertEquals(Status.Code.FAILED_PRECONDITION, end.await().code)
    }
}
