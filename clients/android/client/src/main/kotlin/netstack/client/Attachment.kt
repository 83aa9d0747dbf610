package netstack.client

import io.grpc.StatusException
import kotlinx.coroutines.CompletableDeferred
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.Job
import kotlinx.coroutines.cancelChildren
import kotlinx.coroutines.channels.BufferOverflow
import kotlinx.coroutines.channels.Channel
import kotlinx.coroutines.flow.Flow
import kotlinx.coroutines.flow.consumeAsFlow
import kotlinx.coroutines.flow.receiveAsFlow
import kotlinx.coroutines.launch
import netstack.v1.AppHello
import netstack.v1.AppServiceGrpcKt.AppServiceCoroutineStub
import netstack.v1.AttachRequest
import netstack.v1.AttachResponse
import netstack.v1.FlowKey
import netstack.v1.FlowOwner
import netstack.v1.Goodbye
import netstack.v1.NetworkChanged
import netstack.v1.OwnerAnswer
import netstack.v1.OwnerQuery
import netstack.v1.PowerChanged
import netstack.v1.Welcome

/**
 * The app's channel to the service: tells it what only the app knows, and
 * answers what it asks. Made by [NetstackClient.attach]; stands until
 * [goodbye], or until one of the two dies. Without a goodbye the app counts as
 * dead (see `app.on_death`). From any thread.
 */
public class Attachment internal constructor(
    stub: AppServiceCoroutineStub,
    scope: CoroutineScope,
    hello: AppHello,
    private val ownerOf: (suspend (FlowKey) -> FlowOwner?)?,
) {
    private val outgoing = Channel<AttachRequest>(QUEUE)
    private val told = Channel<AttachResponse>(
        QUEUE, BufferOverflow.DROP_OLDEST)
    private val welcomed = CompletableDeferred<Welcome>()
    private val job: Job

    /**
     * What the service tells: exits, loops, upstreams, network changes that
     * were handled. For one collector; the oldest are dropped when nobody
     * collects. Ends with the attachment, by a [NetstackException] when that
     * broke.
     */
    public val notices: Flow<AttachResponse> = told.receiveAsFlow()

    init {
        say(AttachRequest.newBuilder().setHello(hello))
        job = scope.launch {
            val end = runCatching {
                stub.attach(outgoing.consumeAsFlow()).collect { hear(this, it) }
            }.exceptionOrNull()
            val why = if (end is StatusException) NetstackException.of(end)
                      else end
            coroutineContext.cancelChildren() // lookups that nobody waits for
            told.close(why)
            outgoing.close()
            welcomed.completeExceptionally(
                why ?: IllegalStateException("the attachment ended"))
        }
    }

    private fun hear(scope: CoroutineScope, message: AttachResponse) {
        when (message.payloadCase) {
            AttachResponse.PayloadCase.WELCOME ->
                welcomed.complete(message.welcome)
            // Beside each other: one slow lookup must not hold up the rest.
            AttachResponse.PayloadCase.OWNER_QUERY ->
                scope.launch { answer(message.ownerQuery) }
            else -> told.trySend(message)
        }
    }

    private suspend fun answer(query: OwnerQuery) {
        val owner = ownerOf?.let { find ->
            runCatching { find(query.key) }.getOrNull()
        }
        val answer = OwnerAnswer.newBuilder().setId(query.id)
        owner?.let { answer.owner = it }
        say(AttachRequest.newBuilder().setOwnerAnswer(answer))
    }

    /** Waits until the service has taken the app in. */
    public suspend fun welcome(): Welcome = welcomed.await()

    /** False when the attachment has ended. */
    public fun networkChanged(change: NetworkChanged): Boolean =
        say(AttachRequest.newBuilder().setNetworkChanged(change))

    /** False when the attachment has ended. */
    public fun powerChanged(change: PowerChanged): Boolean =
        say(AttachRequest.newBuilder().setPowerChanged(change))

    private fun say(request: AttachRequest.Builder) =
        outgoing.trySend(request.build()).isSuccess

    /** Ends it in peace; returns when the service has taken note. */
    public suspend fun goodbye() {
        say(AttachRequest.newBuilder()
            .setGoodbye(Goodbye.getDefaultInstance()))
        outgoing.close()
        job.join()
    }

    private companion object {
        const val QUEUE = 256
    }
}
