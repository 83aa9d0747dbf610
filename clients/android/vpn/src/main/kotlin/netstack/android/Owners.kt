package netstack.android

import android.annotation.TargetApi
import android.content.Context
import android.net.ConnectivityManager
import android.os.Build
import android.os.Process
import java.net.InetAddress
import java.net.InetSocketAddress
import netstack.v1.Endpoint
import netstack.v1.FlowKey
import netstack.v1.FlowOwner

/** Whose a flow is. Android tells it to the VPN in use, from API 29 on. */
internal class Owners(context: Context) {
    private val connectivity =
        context.getSystemService(ConnectivityManager::class.java)
    private val packages = context.packageManager

    @TargetApi(Build.VERSION_CODES.Q)
    suspend fun of(key: FlowKey): FlowOwner? {
        val uid = connectivity.getConnectionOwnerUid(
            key.protocolValue, address(key.app), address(key.remote))
        if (uid == Process.INVALID_UID) return null
        return FlowOwner.newBuilder().setUid(uid)
            .setPackage(packages.getPackagesForUid(uid)?.firstOrNull().orEmpty())
            .build()
    }

    // A literal address: nothing is resolved.
    private fun address(of: Endpoint) =
        InetSocketAddress(InetAddress.getByName(of.address), of.port)

    companion object {
        val known = Build.VERSION.SDK_INT >= Build.VERSION_CODES.Q
    }
}
