package netstack.client

import kotlin.time.Duration.Companion.milliseconds
import kotlin.time.Duration.Companion.seconds
import kotlinx.coroutines.flow.flow
import kotlinx.coroutines.flow.flowOf
import kotlinx.coroutines.runBlocking
import netstack.v1.FlowChange
import netstack.v1.FlowChangeType
import netstack.v1.FlowChangeType.FLOW_CHANGE_TYPE_CLOSED
import netstack.v1.FlowChangeType.FLOW_CHANGE_TYPE_COUNTERS
import netstack.v1.FlowChangeType.FLOW_CHANGE_TYPE_OPENED
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertFalse
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test

class FlowTableTest {
    private fun flowOfId(id: Long, bytes: Long = 0) = NetFlow.newBuilder()
        .setId(id).setInboundBytes(bytes).build()

    private fun change(type: FlowChangeType, id: Long, bytes: Long = 0) =
        FlowUpdate.Changes(listOf(FlowChange.newBuilder().setType(type)
            .setFlow(flowOfId(id, bytes)).build()))

    /** The tables that are shown, and whether the watch is to begin anew. */
    private fun show(vararg updates: FlowUpdate) = runBlocking {
        val shown = mutableListOf<Map<Long, Long>>()
        val again = showTable(flowOf(*updates), 0.seconds) { table ->
            shown += table.mapValues { it.value.inboundBytes }
        }
        shown to again
    }

    @Test
    fun `nothing is shown before the snapshot is complete`() {
        val (shown, again) = show(FlowUpdate.Snapshot(listOf(flowOfId(1))))
        assertEquals(emptyList<Any>(), shown)
        assertFalse(again)
    }

    @Test
    fun `changes are applied to the snapshot`() {
        val (shown, again) = show(
            FlowUpdate.Snapshot(listOf(flowOfId(1), flowOfId(2))),
            FlowUpdate.SnapshotEnd(2),
            change(FLOW_CHANGE_TYPE_OPENED, 3),
            change(FLOW_CHANGE_TYPE_COUNTERS, 2, bytes = 7),
            change(FLOW_CHANGE_TYPE_CLOSED, 1))
        assertEquals(mapOf(2L to 7L, 3L to 0L), shown.last())
        assertFalse(again)
    }

    @Test
    fun `a loss asks for a new snapshot`() {
        val (_, again) = show(FlowUpdate.SnapshotEnd(0), FlowUpdate.Lost(3),
                              change(FLOW_CHANGE_TYPE_OPENED, 4))
        assertTrue(again)
    }

    @Test
    fun `what comes within one refresh is shown once`() = runBlocking {
        val shown = mutableListOf<Set<Long>>()
        val updates = flow {
            emit(FlowUpdate.SnapshotEnd(0))
            for (id in 1L..1000L) emit(change(FLOW_CHANGE_TYPE_OPENED, id))
        }
        showTable(updates, 10.seconds) { shown += it.keys }
        assertTrue(shown.size <= 2, "shown ${shown.size} times")
        assertEquals((1L..1000L).toSet(), shown.last())
    }

    @Test
    fun `the end of the watch is the end of the table`() {
        val broken = flow<FlowUpdate> {
            emit(FlowUpdate.SnapshotEnd(0))
            error("gone")
        }
        val told = assertThrows(IllegalStateException::class.java) {
            runBlocking { showTable(broken, 1.milliseconds) {} }
        }
        assertEquals("gone", told.message)
    }
}
