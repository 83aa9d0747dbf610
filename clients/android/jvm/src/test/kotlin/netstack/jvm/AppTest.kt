package netstack.jvm

import java.io.FileDescriptor
import java.nio.file.Path
import java.util.concurrent.atomic.AtomicInteger
import kotlin.time.Duration.Companion.milliseconds
import kotlin.time.Duration.Companion.seconds
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.SupervisorJob
import kotlinx.coroutines.async
import kotlinx.coroutines.cancel
import kotlinx.coroutines.flow.filterIsInstance
import kotlinx.coroutines.flow.first
import kotlinx.coroutines.runBlocking
import kotlinx.coroutines.withTimeout
import netstack.client.Attachment
import netstack.client.EventUpdate
import netstack.client.NetstackClient
import netstack.client.NetstackException
import netstack.client.ProtectServer
import netstack.client.TunHandover
import netstack.v1.AppHello
import netstack.v1.AttachResponse
import netstack.v1.Config
import netstack.v1.EventType
import netstack.v1.FlowOwner
import netstack.v1.FlowState
import netstack.v1.NetworkChanged
import netstack.v1.NetworkKind
import netstack.v1.OwnerSource
import netstack.v1.OwnersConfig
import netstack.v1.Platform
import netstack.v1.ProtectConfig
import netstack.v1.ProtectProtocol
import netstack.v1.StackState
import netstack.v1.StartRequest
import netstack.v1.TunHandle
import org.junit.jupiter.api.AfterEach
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.BeforeEach
import org.junit.jupiter.api.Test
import org.junit.jupiter.params.ParameterizedTest
import org.junit.jupiter.params.provider.EnumSource

/**
 * What a VPN app does, by the code that runs on a device: it hands over a real
 * TUN, protects sockets, is attached. The world plays Android's part and makes
 * the TUN.
 */
class AppTest {
    private lateinit var world: World
    private lateinit var service: NetstackClient
    private val scope = CoroutineScope(SupervisorJob() + Dispatchers.Default)

    /** junixsocket closes what a socket received along with the socket. */
    private val givers = mutableListOf<AutoCloseable>()

    @BeforeEach
    fun begin() {
        world = World()
        service = world.client()
    }

    @AfterEach
    fun end() {
        scope.cancel()
        service.close()
        givers.forEach { it.close() }
        world.close()
    }

    private fun test(block: suspend CoroutineScope.() -> Unit) =
        runBlocking { withTimeout(60.seconds) { block() } }

    private suspend fun handover() = TunHandover(
        UnixSockets.connect(Path.of(service.status().descriptorSocket)))

    /** A TUN in the app's namespace, as establish() gives one. */
    private fun establish(name: String): FileDescriptor {
        val path = world.folder.resolve("$name.sock")
        UnixSockets.listen(path).use { listener ->
            world.ask("establish $name $path")
            val connection = listener.accept()
            givers += connection
            val byte = ByteArray(1)
            connection.read(byte, 0, 1)
            return connection.takeDescriptors().single()
        }
    }

    private suspend fun TunHandover.start(name: String) {
        val handle = hand(establish(name))
        service.start(StartRequest.newBuilder().setTun(handle).build())
        world.ask("attach $name")
    }

    private suspend fun event(type: EventType) = withTimeout(10.seconds) {
        service.watchEvents().filterIsInstance<EventUpdate.Told>()
            .first { it.event.type == type }.event
    }

    @Test
    fun `a TUN that was handed over carries traffic`() = test {
        handover().use {
            it.start("tun7")
            assertEquals("tun7", service.status().tun.name)
            assertEquals("1048576", world.ask("fetch http://10.77.1.2/big"))
            assertEquals("1048576", world.ask("fetch http://[fd77:1::2]/big"))
        }
    }

    @Test
    fun `a TUN is replaced without the loss of a flow`() = test {
        handover().use {
            it.start("tun7")
            val port = world.ask("open 10.77.1.2 80").toInt()
            service.replaceTun(it.hand(establish("tun8")))
            world.ask("attach tun8")
            assertEquals("tun8", service.status().tun.name)
            assertEquals("1048576", world.ask("fetch http://10.77.1.2/big"))
            assertEquals("200", world.ask("get $port"))
        }
    }

    @Test
    fun `a descriptor that is no TUN is refused, and why is told`() = test {
        handover().use { handover ->
            val file = world.folder.resolve("file").toFile()
            file.outputStream().use { stream ->
                val refusal = assertThrows(java.io.IOException::class.java) {
                    handover.hand(stream.fd)
                }
                assertTrue("WRONG_KIND" in refusal.message!!, refusal.message)
            }
        }
    }

    @Test
    fun `a nonce that never came is not found`() = test {
        val refusal = runCatching {
            service.start(StartRequest.newBuilder().setTun(
                TunHandle.newBuilder().setNonce(
                    com.google.protobuf.ByteString.copyFromUtf8("unheard of")))
                .build())
        }.exceptionOrNull() as NetstackException
        assertEquals("DESCRIPTOR_NOT_FOUND", refusal.reason)
    }

    @ParameterizedTest
    @EnumSource(value = ProtectProtocol::class, names = [
        "PROTECT_PROTOCOL_PROTECT_PATH", "PROTECT_PROTOCOL_PIPELINED"])
    fun `no socket is connected without the app's yes`(how: ProtectProtocol) =
        test {
            val path = world.folder.resolve("protect.sock")
            val asked = AtomicInteger()
            val pipelined = how == ProtectProtocol.PROTECT_PROTOCOL_PIPELINED
            service.updateConfig(Config.newBuilder().setProtect(
                ProtectConfig.newBuilder().setAppSocket("$path")
                    .setAppProtocol(how).setPoolSize(0)).build())
            handover().use {
                it.start("tun7")
                ProtectServer(UnixSockets.listen(path), pipelined) {
                    asked.incrementAndGet() > 0
                }.use {
                    world.ask("fetch http://10.77.1.2/big")
                    world.ask("fetch http://[fd77:1::2]/big")
                    assertEquals(2, asked.get())
                }
                ProtectServer(UnixSockets.listen(path), pipelined) { false }
                    .use {
                        assertThrows(IllegalStateException::class.java) {
                            world.ask("fetch http://10.77.1.2/big")
                        }
                    }
                // Nobody answers now: that is a no as well.
                assertThrows(IllegalStateException::class.java) {
                    world.ask("fetch http://10.77.1.2/big")
                }
                event(EventType.EVENT_TYPE_PROTECT_FAILED)
                assertEquals(2, service.stats().dial.protectAsked -
                    service.stats().dial.protectRefused -
                    service.stats().dial.protectUnanswered)
            }
        }

    private suspend fun attached(
        owner: (suspend (netstack.v1.FlowKey) -> FlowOwner?)? = null,
    ): Attachment = service.attach(
        scope,
        AppHello.newBuilder().setHostname("test")
            .setPlatform(Platform.PLATFORM_LINUX).setOwnsTun(true)
            .setAnswersOwners(owner != null).build(),
        owner).also { it.welcome() }

    @Test
    fun `the app says whose a flow is`() = test {
        service.updateConfig(Config.newBuilder().setOwners(
            OwnersConfig.newBuilder()
                .setSource(OwnerSource.OWNER_SOURCE_APP)).build())
        val attachment = attached { key ->
            FlowOwner.newBuilder().setUid(10_000 + key.remote.port)
                .setPackage("org.example.browser").build()
        }
        handover().use {
            it.start("tun7")
            world.ask("open 10.77.1.2 80")
            val owned = service.flowTable(refresh = 100.milliseconds)
                .first { table ->
                    table.values.any { flow ->
                        flow.hasOwner() &&
                            flow.state == FlowState.FLOW_STATE_OPEN
                    }
                }.values.single()
            assertEquals(10_080, owned.owner.uid)
            assertEquals("org.example.browser", owned.owner.`package`)
        }
        attachment.goodbye()
        event(EventType.EVENT_TYPE_APP_DETACHED)
    }

    @Test
    fun `a network change is handled and answered`() = test {
        val attachment = attached()
        handover().use {
            it.start("tun7")
            val answer = async {
                attachment.notices.first(AttachResponse::hasNetworkHandled)
            }
            val port = world.ask("open 10.77.1.2 80")
            attachment.networkChanged(NetworkChanged.newBuilder()
                .setInterface("gs").setKind(NetworkKind.NETWORK_KIND_WIFI)
                .setResetAllFlows(true).build())
            assertEquals(1, answer.await().networkHandled.flowsReset)
            assertEquals("reset", world.ask("ended $port"))
        }
        attachment.goodbye()
    }

    @Test
    fun `an app that dies is noticed, and the VPN goes on`() = test {
        val other = world.client()
        other.attach(scope, AppHello.newBuilder().setOwnsTun(true).build())
            .welcome()
        handover().start("tun7")
        other.close() // without a goodbye
        event(EventType.EVENT_TYPE_APP_DIED)
        assertEquals(StackState.STACK_STATE_RUNNING, service.status().state)
        assertEquals("1048576", world.ask("fetch http://10.77.1.2/big"))
    }
}
