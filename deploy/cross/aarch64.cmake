# Cross-compiling for arm64 Linux with Debian's g++-aarch64-linux-gnu and the
# libraries that `deploy/install --cross` put into build/deps/arm64; what is
# built runs here through qemu-user. Used by the preset arm64.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)

get_filename_component(_root
  "${CMAKE_CURRENT_LIST_DIR}/../../build/deps/arm64" REALPATH)
if(NOT EXISTS "${_root}/usr/include")
  message(FATAL_ERROR "There are no libraries for arm64 in build/deps/arm64: "
                      "run deploy/install --cross")
endif()
set(CMAKE_SYSROOT "${_root}")

# Libraries from there only, programs (protoc, gRPC's plugins) from here only.
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
set(ENV{PKG_CONFIG_LIBDIR}
    "${_root}/usr/lib/aarch64-linux-gnu/pkgconfig:${_root}/usr/share/pkgconfig")
set(ENV{PKG_CONFIG_SYSROOT_DIR} "${_root}")

# -L: the dynamic linker and the libraries; a file that is there hides the
# machine's own.
set(CMAKE_CROSSCOMPILING_EMULATOR "qemu-aarch64;-L;${_root}")
