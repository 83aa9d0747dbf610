package netstack.client

import com.google.protobuf.FieldMask
import io.grpc.ManagedChannel
import io.grpc.Status
import io.grpc.StatusException
import java.util.concurrent.TimeUnit
import kotlin.time.Duration
import kotlin.time.Duration.Companion.milliseconds
import kotlin.time.Duration.Companion.seconds
import kotlin.time.TimeSource
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.ExperimentalCoroutinesApi
import kotlinx.coroutines.coroutineScope
import kotlinx.coroutines.delay
import kotlinx.coroutines.flow.Flow
import kotlinx.coroutines.flow.catch
import kotlinx.coroutines.flow.flow
import kotlinx.coroutines.flow.mapNotNull
import kotlinx.coroutines.flow.produceIn
import kotlinx.coroutines.selects.onTimeout
import kotlinx.coroutines.selects.select
import netstack.v1.AppHello
import netstack.v1.AppServiceGrpcKt.AppServiceCoroutineStub
import netstack.v1.CloseFlowsRequest
import netstack.v1.Config
import netstack.v1.FlowFilter
import netstack.v1.FlowKey
import netstack.v1.FlowOwner
import netstack.v1.FlowServiceGrpcKt.FlowServiceCoroutineStub
import netstack.v1.GetConfigRequest
import netstack.v1.GetConfigResponse
import netstack.v1.GetStatsRequest
import netstack.v1.GetStatusRequest
import netstack.v1.ListFlowsRequest
import netstack.v1.NetstackServiceGrpcKt.NetstackServiceCoroutineStub
import netstack.v1.ReplaceTunRequest
import netstack.v1.StackStatus
import netstack.v1.StartRequest
import netstack.v1.Stats
import netstack.v1.StopRequest
import netstack.v1.TunHandle
import netstack.v1.UpdateConfigRequest
import netstack.v1.UpdateConfigResponse
import netstack.v1.WatchEventsRequest
import netstack.v1.WatchFlowsRequest
import netstack.v1.WatchStatsRequest
import netstack.v1.WatchStatsResponse

/** One flow of the service. Kotlin's own `Flow` has the name already. */
public typealias NetFlow = netstack.v1.Flow

/**
 * The service, as coroutines.
 *
 *     NetstackClient(channel).use { service ->
 *         service.start()
 *         service.watchStats().collect { println(it.stats.tcp.active) }
 *     }
 *
 * Where the channel comes from: `LocalSocketChannel` on Android, `UnixChannel`
 * on a JVM. The client owns it and closes it.
 *
 * Calls end within [timeout]; watches go on until their collector is cancelled
 * or the service ends them. What the service refuses is a [NetstackException],
 * which says why in words and names. Every member may be used from any thread.
 */
public class NetstackClient(
    private val channel: ManagedChannel,
    private val timeout: Duration = 10.seconds,
) : AutoCloseable {
    private val stack = NetstackServiceCoroutineStub(channel)
    private val flows = FlowServiceCoroutineStub(channel)

    /** Waits until the service answers, for a service that just starts. */
    public suspend fun ready(): StackStatus {
        val end = TimeSource.Monotonic.markNow() + timeout
        while (true) {
            try {
                return status()
            } catch (e: NetstackException) {
                val may = e.code == Status.Code.UNAVAILABLE
                if (!may || end.hasPassedNow()) throw e
            }
            // Without this gRPC would wait longer with every attempt.
            channel.resetConnectBackoff()
            delay(RETRY)
        }
    }

    /** Starts the stack; returns when packets are read. */
    public suspend fun start(
        request: StartRequest = StartRequest.getDefaultInstance(),
    ): StackStatus = call { stack.within(timeout).start(request).status }

    /** Stops the stack; false when none ran. */
    public suspend fun stop(
        request: StopRequest = StopRequest.getDefaultInstance(),
    ): Boolean = call { stack.within(timeout).stop(request).stopped }

    /** Takes another TUN into use; flows stay. When it can't, the old stays. */
    public suspend fun replaceTun(tun: TunHandle): StackStatus = call {
        stack.within(timeout).replaceTun(
            ReplaceTunRequest.newBuilder().setTun(tun).build()
        ).status
    }

    /**
     * Opens the app's channel to the service, in [scope]. With [ownerOf] the
     * app says whose a flow is (`owners.source`); null is "unknown".
     */
    public fun attach(
        scope: CoroutineScope,
        hello: AppHello,
        ownerOf: (suspend (FlowKey) -> FlowOwner?)? = null,
    ): Attachment =
        Attachment(AppServiceCoroutineStub(channel), scope, hello, ownerOf)

    public suspend fun status(): StackStatus = call {
        stack.within(timeout)
            .getStatus(GetStatusRequest.getDefaultInstance()).status
    }

    public suspend fun stats(): Stats = call {
        stack.within(timeout)
            .getStats(GetStatsRequest.getDefaultInstance()).stats
    }

    public suspend fun config(): GetConfigResponse = call {
        stack.within(timeout).getConfig(GetConfigRequest.getDefaultInstance())
    }

    /**
     * Sets the fields that are set in [config], or those that [paths] name
     * ("tcp.dial_timeout"; one that is unset returns to its default). With
     * [revision], only if nobody changed the config since.
     */
    public suspend fun updateConfig(
        config: Config,
        paths: List<String> = emptyList(),
        revision: Long? = null,
        validateOnly: Boolean = false,
    ): UpdateConfigResponse = call {
        val request = UpdateConfigRequest.newBuilder()
            .setConfig(config).setValidateOnly(validateOnly)
        if (paths.isNotEmpty()) {
            request.setUpdateMask(FieldMask.newBuilder().addAllPaths(paths))
        }
        revision?.let { request.revision = it }
        stack.within(timeout).updateConfig(request.build())
    }

    /** All matching flows of now, by ascending id, page by page. */
    public fun listFlows(
        filter: FlowFilter = FlowFilter.getDefaultInstance(),
    ): Flow<NetFlow> = flow {
        val request = ListFlowsRequest.newBuilder()
            .setFilter(filter).setPageSize(PAGE)
        do {
            val page = call { flows.within(timeout).listFlows(request.build()) }
            page.flowsList.forEach { emit(it) }
            request.afterId = page.nextAfterId
        } while (request.afterId != 0L)
    }

    /** Resets all matching flows, on both sides; says how many. */
    public suspend fun closeFlows(filter: FlowFilter): Long = call {
        flows.within(timeout).closeFlows(
            CloseFlowsRequest.newBuilder().setFilter(filter).build()
        ).closed
    }

    /** Resets every flow; says how many. */
    public suspend fun closeAllFlows(): Long = call {
        flows.within(timeout).closeFlows(
            CloseFlowsRequest.newBuilder().setAll(true).build()
        ).closed
    }

    /**
     * All counters, at once and then every [interval]. A slow collector misses
     * readings, never gets old ones.
     */
    public fun watchStats(interval: Duration = 1.seconds):
        Flow<WatchStatsResponse> = stack.watchStats(
            WatchStatsRequest.newBuilder().setInterval(interval.toProto())
                .build()
        ).refusals()

    /**
     * What the service tells: first what it kept, then as it happens. With
     * [afterSequence] only what came after that event, to go on where a broken
     * watch ended.
     */
    public fun watchEvents(afterSequence: Long? = null): Flow<EventUpdate> {
        val request = WatchEventsRequest.newBuilder()
        afterSequence?.let { request.afterSequence = it }
        return stack.watchEvents(request.build()).refusals()
            .mapNotNull(EventUpdate::of)
    }

    /**
     * A snapshot of the matching flows, its end, then every change. Counters
     * are told only with an [updateInterval].
     */
    public fun watchFlows(
        filter: FlowFilter = FlowFilter.getDefaultInstance(),
        updateInterval: Duration? = null,
    ): Flow<FlowUpdate> {
        val request = WatchFlowsRequest.newBuilder().setFilter(filter)
        updateInterval?.let { request.updateInterval = it.toProto() }
        return flows.watchFlows(request.build()).refusals()
            .mapNotNull(FlowUpdate::of)
    }

    /**
     * The table of open flows by id, for a screen: once it is complete, then
     * anew when something changed, at most every [refresh]. When changes were
     * lost it begins again with a fresh snapshot, by itself.
     */
    public fun flowTable(
        filter: FlowFilter = FlowFilter.getDefaultInstance(),
        refresh: Duration = 500.milliseconds,
    ): Flow<Map<Long, NetFlow>> = flow {
        do {
            val again = showTable(watchFlows(filter, refresh), refresh) {
                emit(it)
            }
        } while (again)
    }

    override fun close() {
        channel.shutdownNow()
        channel.awaitTermination(timeout.inWholeMilliseconds,
                                 TimeUnit.MILLISECONDS)
    }

    private companion object {
        const val PAGE = 1000
        val RETRY = 20.milliseconds
    }
}

/** Turns gRPC's errors into ours. */
internal suspend fun <T> call(block: suspend () -> T): T = try {
    block()
} catch (e: StatusException) {
    throw NetstackException.of(e)
}

private fun <T> Flow<T>.refusals(): Flow<T> =
    catch { throw if (it is StatusException) NetstackException.of(it) else it }

private fun NetstackServiceCoroutineStub.within(time: Duration) =
    withDeadlineAfter(time.inWholeMilliseconds, TimeUnit.MILLISECONDS)

private fun FlowServiceCoroutineStub.within(time: Duration) =
    withDeadlineAfter(time.inWholeMilliseconds, TimeUnit.MILLISECONDS)

/**
 * Keeps a table from [updates] and shows copies of it. True when changes were
 * lost, false when the updates ended.
 */
@OptIn(ExperimentalCoroutinesApi::class)
internal suspend fun showTable(
    updates: Flow<FlowUpdate>,
    refresh: Duration,
    show: suspend (Map<Long, NetFlow>) -> Unit,
): Boolean = coroutineScope {
    val table = FlowTable()
    val incoming = updates.produceIn(this)
    var shown = TimeSource.Monotonic.markNow() - refresh
    var lost: Boolean? = null
    while (lost == null) {
        // A change waits for the end of `refresh`; more may come meanwhile.
        val update = select {
            incoming.onReceiveCatching { it }
            if (table.dirty) onTimeout(refresh - shown.elapsedNow()) { null }
        }
        if (update == null) {
            show(table.copy())
            shown = TimeSource.Monotonic.markNow()
        } else if (update.isClosed) {
            update.exceptionOrNull()?.let { throw it }
            if (table.dirty) show(table.copy())
            lost = false
        } else if (!table.apply(update.getOrThrow())) {
            incoming.cancel()
            lost = true
        }
    }
    lost
}
