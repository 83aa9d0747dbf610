package netstack.client

import com.google.protobuf.InvalidProtocolBufferException
import google.rpc.ErrorDetails.BadRequest
import google.rpc.ErrorDetails.ErrorInfo
import google.rpc.ErrorDetails.PreconditionFailure
import io.grpc.Metadata
import io.grpc.Status
import io.grpc.StatusException

/**
 * What the service refused, or why it was not reached.
 *
 * @property code gRPC's code; UNAVAILABLE when nobody answers on the socket.
 * @property reason a name to compare with, "STACK_RUNNING"; the list is at the
 *     head of netstack_service.proto. Empty when the service did not answer.
 * @property problems what stands in the way: fields by path
 *     ("tcp.buffer_max"), or subjects of preconditions ("stack").
 */
public class NetstackException(
    public val code: Status.Code,
    public val reason: String,
    public val problems: List<Problem>,
    message: String,
    cause: Throwable? = null,
) : Exception(message, cause) {
    public data class Problem(val subject: String, val description: String)

    internal companion object {
        /** Where gRPC keeps a google.rpc.Status; the lite runtime has no API. */
        private val DETAILS = Metadata.Key.of("grpc-status-details-bin",
                                              Metadata.BINARY_BYTE_MARSHALLER)

        fun of(e: StatusException): NetstackException {
            var reason = ""
            val problems = mutableListOf<Problem>()
            try {
                val bytes = e.trailers?.get(DETAILS) ?: ByteArray(0)
                val status = google.rpc.StatusOuterClass.Status.parseFrom(bytes)
                for (detail in status.detailsList) {
                    when (detail.typeUrl.substringAfterLast('/')) {
                        "google.rpc.ErrorInfo" ->
                            reason = ErrorInfo.parseFrom(detail.value).reason
                        "google.rpc.BadRequest" ->
                            BadRequest.parseFrom(detail.value)
                                .fieldViolationsList.mapTo(problems) {
                                    Problem(it.field, it.description)
                                }
                        "google.rpc.PreconditionFailure" ->
                            PreconditionFailure.parseFrom(detail.value)
                                .violationsList.mapTo(problems) {
                                    Problem(it.subject, it.description)
                                }
                    }
                }
            } catch (_: InvalidProtocolBufferException) {
                // The code and the message stand without their details.
            }
            return NetstackException(
                e.status.code, reason, problems,
                e.status.description ?: e.status.code.name, e)
        }
    }
}
