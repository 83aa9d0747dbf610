package netstack.sample

import android.app.Activity
import android.content.Intent
import android.net.VpnService
import android.os.Bundle
import android.os.Handler
import android.os.Looper
import android.widget.Button
import android.widget.LinearLayout
import android.widget.ScrollView
import android.widget.TextView
import java.util.concurrent.Executor
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.SupervisorJob
import kotlinx.coroutines.asCoroutineDispatcher
import kotlinx.coroutines.cancel
import kotlinx.coroutines.launch
import netstack.client.NetFlow
import netstack.sample.SampleVpn.State

/** A button to turn the VPN on and off, and the flows. */
class MainActivity : Activity() {
    // kotlinx-coroutines-android has Dispatchers.Main; this needs less.
    private val main = Handler(Looper.getMainLooper())
    private val scope = CoroutineScope(
        SupervisorJob() + Executor { main.post(it) }.asCoroutineDispatcher())
    private lateinit var button: Button
    private lateinit var text: TextView

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        button = Button(this).apply { setOnClickListener { toggle() } }
        text = TextView(this)
        setContentView(LinearLayout(this).apply {
            orientation = LinearLayout.VERTICAL
            addView(button)
            addView(ScrollView(context).apply { addView(text) })
        })
        scope.launch { SampleVpn.state.collect(::show) }
    }

    override fun onDestroy() {
        scope.cancel()
        super.onDestroy()
    }

    private fun toggle() {
        if (SampleVpn.state.value is State.On) {
            startService(intent().setAction(SampleVpn.STOP))
            return
        }
        // The user is asked once; null: has agreed before.
        val question = VpnService.prepare(this)
        if (question == null) startService(intent())
        else startActivityForResult(question, ASKED)
    }

    override fun onActivityResult(
        requestCode: Int, resultCode: Int, data: Intent?,
    ) {
        if (requestCode == ASKED && resultCode == RESULT_OK) {
            startService(intent())
        }
    }

    private fun intent() = Intent(this, SampleVpn::class.java)

    private fun show(state: State) {
        button.text = if (state is State.On) "Turn off" else "Turn on"
        text.text = when (state) {
            State.Off -> ""
            is State.Failed -> state.why
            is State.On -> state.flows.joinToString("\n", transform = ::line)
        }
    }

    private fun line(flow: NetFlow) =
        "${flow.owner.`package`} ${flow.key.remote.address}" +
            ":${flow.key.remote.port} ${flow.state.name.drop(11)}" +
            " ↑${flow.outboundBytes} ↓${flow.inboundBytes}"

    private companion object {
        const val ASKED = 1
    }
}
