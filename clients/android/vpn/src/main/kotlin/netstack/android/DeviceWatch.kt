package netstack.android

import android.content.BroadcastReceiver
import android.content.Context
import android.content.Intent
import android.content.IntentFilter
import android.net.ConnectivityManager
import android.net.LinkProperties
import android.net.Network
import android.net.NetworkCapabilities
import android.net.NetworkRequest
import android.net.VpnService
import android.os.PowerManager
import netstack.client.Attachment
import netstack.v1.NetworkChanged
import netstack.v1.NetworkKind
import netstack.v1.PowerChanged

/**
 * Tells the service which network the device uses and whether it saves power,
 * now and whenever that changes; and Android, which network the VPN uses.
 */
internal class DeviceWatch(
    private val vpn: VpnService,
    private val attachment: Attachment,
) : AutoCloseable {
    private val connectivity =
        vpn.getSystemService(ConnectivityManager::class.java)
    private val power = vpn.getSystemService(PowerManager::class.java)

    private val callback = object : ConnectivityManager.NetworkCallback() {
        private val known = linkedMapOf<Network, LinkProperties>()
        private var told: NetworkChanged? = null

        override fun onLinkPropertiesChanged(
            network: Network, properties: LinkProperties,
        ) {
            known[network] = properties
            tell()
        }

        override fun onCapabilitiesChanged(
            network: Network, capabilities: NetworkCapabilities,
        ) = tell()

        override fun onLost(network: Network) {
            known.remove(network)
            tell()
        }

        // Callbacks come one after the other, on Android's thread.
        private fun tell() {
            val network = known.keys.maxByOrNull(::rank)
            vpn.setUnderlyingNetworks(network?.let { arrayOf(it) })
            val change = change(network, known[network])
            if (change == told) return
            told = change
            attachment.networkChanged(change)
        }
    }

    private val receiver = object : BroadcastReceiver() {
        override fun onReceive(context: Context?, intent: Intent?) {
            attachment.powerChanged(
                PowerChanged.newBuilder().setDoze(power.isDeviceIdleMode)
                    .setBatterySaver(power.isPowerSaveMode).build())
        }
    }

    init {
        connectivity.registerNetworkCallback(
            NetworkRequest.Builder()
                .addCapability(NetworkCapabilities.NET_CAPABILITY_INTERNET)
                .addCapability(NetworkCapabilities.NET_CAPABILITY_NOT_VPN)
                .build(),
            callback)
        vpn.registerReceiver(receiver, IntentFilter().apply {
            addAction(PowerManager.ACTION_DEVICE_IDLE_MODE_CHANGED)
            addAction(PowerManager.ACTION_POWER_SAVE_MODE_CHANGED)
        })
        receiver.onReceive(null, null)
    }

    private fun capabilities(network: Network) =
        connectivity.getNetworkCapabilities(network)

    // As Android itself prefers them.
    private fun rank(network: Network): Int {
        val can = capabilities(network) ?: return -1
        return listOf(
            NetworkCapabilities.TRANSPORT_CELLULAR,
            NetworkCapabilities.TRANSPORT_WIFI,
            NetworkCapabilities.TRANSPORT_ETHERNET,
        ).indexOfLast(can::hasTransport)
    }

    private fun change(network: Network?, link: LinkProperties?):
        NetworkChanged {
        val change = NetworkChanged.newBuilder()
        if (network == null || link == null) {
            return change.setKind(NetworkKind.NETWORK_KIND_NONE).build()
        }
        link.interfaceName?.let { change.setInterface(it) }
        link.dnsServers.mapNotNull { it.hostAddress }
            .forEach { change.addDnsServers(it) }
        val can = capabilities(network)
        change.kind = when {
            can == null -> NetworkKind.NETWORK_KIND_OTHER
            can.hasTransport(NetworkCapabilities.TRANSPORT_ETHERNET) ->
                NetworkKind.NETWORK_KIND_ETHERNET
            can.hasTransport(NetworkCapabilities.TRANSPORT_WIFI) ->
                NetworkKind.NETWORK_KIND_WIFI
            can.hasTransport(NetworkCapabilities.TRANSPORT_CELLULAR) ->
                NetworkKind.NETWORK_KIND_CELLULAR
            else -> NetworkKind.NETWORK_KIND_OTHER
        }
        change.metered = can?.hasCapability(
            NetworkCapabilities.NET_CAPABILITY_NOT_METERED) == false
        return change.build()
    }

    override fun close() {
        connectivity.unregisterNetworkCallback(callback)
        vpn.unregisterReceiver(receiver)
    }
}
