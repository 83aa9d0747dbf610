package netstack.client

import kotlin.time.Duration.Companion.milliseconds
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Test

class DurationTest {
    @Test
    fun `a duration survives the way there and back`() {
        val proto = 12_345.milliseconds.toProto()
        assertEquals(12, proto.seconds)
        assertEquals(345_000_000, proto.nanos)
        assertEquals(12_345.milliseconds, proto.toKotlin())
    }
}
