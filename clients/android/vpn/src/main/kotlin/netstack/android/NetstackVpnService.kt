package netstack.android

import android.content.Intent
import android.net.VpnService
import android.os.Build
import android.os.ParcelFileDescriptor
import android.util.Log
import java.io.File
import java.io.FileDescriptor
import java.io.IOException
import kotlin.time.Duration.Companion.seconds
import kotlinx.coroutines.CancellationException
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.SupervisorJob
import kotlinx.coroutines.cancel
import kotlinx.coroutines.launch
import kotlinx.coroutines.runBlocking
import kotlinx.coroutines.sync.Mutex
import kotlinx.coroutines.sync.withLock
import kotlinx.coroutines.withTimeoutOrNull
import netstack.client.Attachment
import netstack.client.EmbeddedEngine
import netstack.client.NetstackClient
import netstack.client.NetstackException
import netstack.client.NetstackEngine
import netstack.client.ProgramEngine
import netstack.client.ProtectServer
import netstack.client.TunHandover
import netstack.v1.AppHello
import netstack.v1.AttachResponse
import netstack.v1.Config
import netstack.v1.OwnerSource
import netstack.v1.OwnersConfig
import netstack.v1.Platform
import netstack.v1.ProtectConfig
import netstack.v1.StackState
import netstack.v1.StartRequest

/**
 * A VpnService whose traffic netstackd carries. Say in [configure] what the
 * VPN is to catch; the rest has defaults:
 *
 *     class MyVpn : NetstackVpnService() {
 *         override fun configure(builder: Builder) {
 *             builder.setSession("My VPN")
 *                 .addAddress("10.10.0.2", 24).addRoute("0.0.0.0", 0)
 *                 .addAddress("fd10::2", 64).addRoute("::", 0)
 *         }
 *     }
 *
 * Started by `startService()` once `VpnService.prepare()` returned null. Started
 * again, it establishes the VPN anew (other routes, say) without the loss of a
 * connection. Ends by [shutDown], or when the user takes the VPN away.
 */
public abstract class NetstackVpnService : VpnService() {
    /** Addresses, routes, session; the MTU is [mtu]. */
    protected abstract fun configure(builder: Builder)

    /** Largest packet in the TUN. Greater is faster, as there is no network. */
    protected open val mtu: Int = 9000

    /** What the service is to do, beside what this class sets itself. */
    protected open fun config(): Config = Config.getDefaultInstance()

    /**
     * What does the work: libnetstack.so in this process. A program of its own
     * survives a crash of the app, see [ProgramEngine].
     */
    protected open fun engine(): NetstackEngine = EmbeddedEngine {
        protect(it)
    }

    /** Packets are carried; watch flows and stats here, in [scope]. */
    protected open fun onStarted(service: NetstackClient) {}

    /** The service tells something: a loop, an exit, a network handled. */
    protected open fun onNotice(notice: AttachResponse) {}

    /** It does not work, and was taken down. */
    protected open fun onFailed(why: Throwable) {
        Log.e(TAG, "netstackd", why)
    }

    /** Cancelled when the VPN ends. */
    protected val scope: CoroutineScope =
        CoroutineScope(SupervisorJob() + Dispatchers.Default)

    private val one = Mutex() // at a time: establish or take down
    private var session: Session? = null // under `one`

    override fun onStartCommand(intent: Intent?, flags: Int, startId: Int):
        Int {
        scope.launch {
            try {
                one.withLock { establish() }
            } catch (e: CancellationException) {
                throw e
            } catch (e: Exception) {
                shutDown()
                onFailed(e)
            }
        }
        return START_STICKY // killed, it is to come back: see app.on_death
    }

    override fun onRevoke() {
        shutDown()
    }

    override fun onDestroy() {
        // Android waits for us; what takes longer dies with the process.
        runBlocking {
            withTimeoutOrNull(3.seconds) { one.withLock { takeDown() } }
        }
        scope.cancel()
        super.onDestroy()
    }

    /** Ends the VPN and this Android service. */
    protected fun shutDown() {
        scope.launch {
            one.withLock { takeDown() }
            stopSelf()
        }
    }

    private suspend fun establish() {
        val builder = Builder().setMtu(mtu)
        configure(builder)
        // The TUN before anything else: from here on no packet passes us by.
        val tun = builder.establish() ?: throw IOException(
            "the user has not allowed this VPN: ask VpnService.prepare()")
        tun.use {
            val now = session ?: begin().also { session = it }
            val handle = now.handover.hand(it.fileDescriptor, mtu)
            if (now.service.status().state == StackState.STACK_STATE_RUNNING) {
                now.service.replaceTun(handle)
            } else {
                now.service.start(
                    StartRequest.newBuilder().setTun(handle).build())
                onStarted(now.service)
            }
        }
    }

    private suspend fun begin(): Session {
        val folder = File(noBackupFilesDir, "netstack")
        if (!folder.isDirectory && !folder.mkdirs()) {
            throw IOException("$folder cannot be made")
        }
        val made = mutableListOf<AutoCloseable>()
        try {
            val config = Config.newBuilder().setOwners(
                OwnersConfig.newBuilder().setSource(
                    if (Owners.known) OwnerSource.OWNER_SOURCE_APP
                    else OwnerSource.OWNER_SOURCE_OFF))
            val engine = engine()
            if (!engine.protects) {
                val questions = File(folder, "protect.sock")
                ProtectServer(LocalSockets.listen(questions),
                              protect = ::protectSocket).also(made::add)
                config.setProtect(
                    ProtectConfig.newBuilder().setAppSocket(questions.path))
            }
            val control = File(folder, "control.sock")
            engine.start(control)
            made += AutoCloseable(engine::stop)
            val service = NetstackClient(LocalSocketChannel.open(control))
                .also(made::add)
            service.ready()
            service.updateConfig(config.mergeFrom(config()).build())
            val attachment = service.attach(
                scope, hello(), if (Owners.known) Owners(this)::of else null)
            attachment.welcome()
            scope.launch { listen(attachment) }
            val device = DeviceWatch(this, attachment)
                .also(made::add)
            val handover = TunHandover(
                LocalSockets.connect(service.status().descriptorSocket))
                .also(made::add)
            return Session(service, attachment, device, handover, made)
        } catch (e: Throwable) {
            made.asReversed().forEach(AutoCloseable::close)
            throw e
        }
    }

    private suspend fun listen(attachment: Attachment) {
        try {
            attachment.notices.collect { onNotice(it) }
        } catch (e: NetstackException) { // the service is gone
            shutDown()
            onFailed(e)
        }
    }

    private fun hello() = AppHello.newBuilder()
        .setPlatform(Platform.PLATFORM_ANDROID)
        .setHostname(Build.MODEL)
        .setOsVersion(Build.VERSION.RELEASE)
        .setPackage(packageName)
        .setAppVersion(packageManager.getPackageInfo(packageName, 0)
            .versionName.orEmpty())
        .setOwnsTun(true)
        .setAnswersOwners(Owners.known)
        .build()

    // protect() takes a number, and Android gives numbers to duplicates only:
    // they are the same socket.
    private fun protectSocket(socket: FileDescriptor): Boolean =
        ParcelFileDescriptor.dup(socket).use { protect(it.fd) }

    private suspend fun takeDown() {
        val last = session ?: return
        session = null
        runCatching { last.service.stop() }
        runCatching { last.attachment.goodbye() }
        last.made.asReversed().forEach { runCatching(it::close) }
    }

    private class Session(
        val service: NetstackClient,
        val attachment: Attachment,
        @Suppress("unused") val device: DeviceWatch,
        val handover: TunHandover,
        val made: List<AutoCloseable>,
    )

    private companion object {
        const val TAG = "netstack"
    }
}
