package netstack.client

import com.google.protobuf.Duration as ProtoDuration
import kotlin.time.Duration
import kotlin.time.Duration.Companion.nanoseconds
import kotlin.time.Duration.Companion.seconds
import netstack.v1.Event
import netstack.v1.FlowChangeType
import netstack.v1.FlowChange
import netstack.v1.WatchEventsResponse
import netstack.v1.WatchFlowsResponse

/** One message of [NetstackClient.watchFlows]. */
public sealed interface FlowUpdate {
    /** A page of the snapshot. */
    public data class Snapshot(val flows: List<NetFlow>) : FlowUpdate

    /** The snapshot is complete; it held this many flows. */
    public data class SnapshotEnd(val flows: Long) : FlowUpdate

    /** Changes in the order in which they happened. */
    public data class Changes(val changes: List<FlowChange>) : FlowUpdate

    /** So many changes were dropped: what you know may be wrong for good. */
    public data class Lost(val changes: Long) : FlowUpdate

    public companion object {
        internal fun of(message: WatchFlowsResponse): FlowUpdate? =
            when (message.payloadCase) {
                WatchFlowsResponse.PayloadCase.SNAPSHOT ->
                    Snapshot(message.snapshot.flowsList)
                WatchFlowsResponse.PayloadCase.END_OF_SNAPSHOT ->
                    SnapshotEnd(message.endOfSnapshot.flows)
                WatchFlowsResponse.PayloadCase.CHANGES ->
                    Changes(message.changes.changesList)
                WatchFlowsResponse.PayloadCase.LOSS ->
                    Lost(message.loss.changes)
                else -> null // of a newer service
            }
    }
}

/** One message of [NetstackClient.watchEvents]. */
public sealed interface EventUpdate {
    public data class Told(val event: Event) : EventUpdate

    /** What was kept has been told; from here on it happens now. */
    public data class ReplayEnd(val sequence: Long) : EventUpdate

    /** So many events were dropped. */
    public data class Lost(val events: Long) : EventUpdate

    public companion object {
        internal fun of(message: WatchEventsResponse): EventUpdate? =
            when (message.payloadCase) {
                WatchEventsResponse.PayloadCase.EVENT -> Told(message.event)
                WatchEventsResponse.PayloadCase.END_OF_REPLAY ->
                    ReplayEnd(message.endOfReplay.sequence)
                WatchEventsResponse.PayloadCase.LOSS ->
                    Lost(message.loss.events)
                else -> null // of a newer service
            }
    }
}

/** The flows that updates leave open. Not thread-safe. */
internal class FlowTable {
    private val flows = sortedMapOf<Long, NetFlow>()
    private var complete = false

    /** Something to show has changed since the last [copy]. */
    var dirty = false
        private set

    /** False when the table can no longer be trusted. */
    fun apply(update: FlowUpdate): Boolean {
        when (update) {
            is FlowUpdate.Snapshot -> update.flows.forEach { flows[it.id] = it }
            is FlowUpdate.SnapshotEnd -> complete = true
            is FlowUpdate.Changes -> update.changes.forEach {
                if (it.type == FlowChangeType.FLOW_CHANGE_TYPE_CLOSED) {
                    flows.remove(it.flow.id)
                } else {
                    flows[it.flow.id] = it.flow
                }
            }
            is FlowUpdate.Lost -> return false
        }
        dirty = complete
        return true
    }

    fun copy(): Map<Long, NetFlow> {
        dirty = false
        return LinkedHashMap(flows)
    }
}

public fun Duration.toProto(): ProtoDuration =
    toComponents { seconds, nanoseconds ->
        ProtoDuration.newBuilder().setSeconds(seconds).setNanos(nanoseconds)
            .build()
    }

public fun ProtoDuration.toKotlin(): Duration =
    seconds.seconds + nanos.nanoseconds
