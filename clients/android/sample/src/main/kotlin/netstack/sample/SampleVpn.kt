package netstack.sample

import android.content.Intent
import kotlinx.coroutines.flow.MutableStateFlow
import kotlinx.coroutines.flow.StateFlow
import kotlinx.coroutines.launch
import netstack.android.NetstackVpnService
import netstack.client.NetFlow
import netstack.client.NetstackClient

/** Catches everything, IPv4 and IPv6, and shows who talks to whom. */
class SampleVpn : NetstackVpnService() {
    override fun configure(builder: Builder) {
        builder.setSession("Netstack sample")
            .addAddress("10.10.0.2", 24).addRoute("0.0.0.0", 0)
            .addAddress("fd10::2", 64).addRoute("::", 0)
    }

    override fun onStartCommand(intent: Intent?, flags: Int, startId: Int):
        Int {
        if (intent?.action == STOP) {
            shutDown()
            return START_NOT_STICKY
        }
        return super.onStartCommand(intent, flags, startId)
    }

    override fun onStarted(service: NetstackClient) {
        scope.launch {
            service.flowTable().collect { shown.value = State.On(it.values) }
        }
    }

    override fun onFailed(why: Throwable) {
        super.onFailed(why)
        shown.value = State.Failed(why.message ?: why.toString())
    }

    override fun onDestroy() {
        super.onDestroy()
        if (shown.value is State.On) shown.value = State.Off
    }

    sealed interface State {
        data object Off : State
        data class On(val flows: Collection<NetFlow>) : State
        data class Failed(val why: String) : State
    }

    companion object {
        const val STOP = "netstack.sample.STOP"
        private val shown = MutableStateFlow<State>(State.Off)

        /** For the screen, which lives in the same process. */
        val state: StateFlow<State> = shown
    }
}
