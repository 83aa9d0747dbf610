package netstack.jvm

import io.grpc.Status
import kotlin.time.Duration.Companion.seconds
import kotlinx.coroutines.CompletableDeferred
import kotlinx.coroutines.async
import kotlinx.coroutines.flow.collect
import kotlinx.coroutines.flow.onEach
import kotlinx.coroutines.runBlocking
import kotlinx.coroutines.withTimeout
import netstack.client.NetstackException
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Test

class ServiceDeathTest {
    @Test
    fun `a service that dies is UNAVAILABLE, for watches and calls`() {
        World().use { world ->
            world.client().use { service ->
                runBlocking {
                    withTimeout(30.seconds) {
                        val watching = CompletableDeferred<Unit>()
                        val watch = async {
                            code {
                                service.watchStats()
                                    .onEach { watching.complete(Unit) }
                                    .collect()
                            }
                        }
                        watching.await()
                        world.ask("kill")
                        assertEquals(Status.Code.UNAVAILABLE, watch.await())
                        assertEquals(Status.Code.UNAVAILABLE,
                                     code { service.status() })
                    }
                }
            }
        }
    }

    private suspend fun code(block: suspend () -> Unit): Status.Code? = try {
        block()
        null
    } catch (e: NetstackException) {
        e.code
    }
}
