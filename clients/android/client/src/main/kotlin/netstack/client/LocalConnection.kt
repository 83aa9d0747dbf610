package netstack.client

import java.io.FileDescriptor
import java.io.IOException

/**
 * A connected Unix stream socket that carries descriptors: LocalSocket on
 * Android, junixsocket on a JVM. Not thread-safe.
 */
public interface LocalConnection : AutoCloseable {
    /**
     * Writes all of [bytes]; [descriptor] travels as SCM_RIGHTS with the first
     * of them, and stays the caller's.
     */
    @Throws(IOException::class)
    public fun write(bytes: ByteArray, descriptor: FileDescriptor? = null)

    /** Reads at most [size] bytes; -1 at the end of the stream. */
    @Throws(IOException::class)
    public fun read(into: ByteArray, offset: Int, size: Int): Int

    /** The descriptors that came with the last [read]; now the caller's. */
    @Throws(IOException::class)
    public fun takeDescriptors(): List<FileDescriptor>

    /** Closes a descriptor that [takeDescriptors] gave. */
    public fun closeDescriptor(descriptor: FileDescriptor)

    /** Ends it; also wakes a thread that reads. */
    override fun close()
}

/** A listening Unix socket. */
public interface LocalListener : AutoCloseable {
    /** Waits for the next connection. */
    @Throws(IOException::class)
    public fun accept(): LocalConnection

    /** Ends it; also wakes a thread in [accept], which then throws. */
    override fun close()
}
