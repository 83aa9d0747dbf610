# shellcheck shell=bash
# What the scripts of this folder share. Sourced, never run.
#
#   . "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
#
# Gives: REPO and DEPS (paths), say/die/warn, have, in_ns, build_preset.

REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
DEPS=$REPO/build/deps   # everything downloaded; build/ is not in git
LOGS=$REPO/build/logs
# shellcheck disable=SC2034  # used by the scripts that source this file
LWIP_VERSION=2.2.1

# Tools that deploy/install put beside the sources, and ip/nft/sysctl, which a
# normal user's PATH misses on Debian.
PATH=$DEPS/bin:$DEPS/npm/node_modules/.bin:$PATH:/usr/local/sbin:/usr/sbin:/sbin
export PATH

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
    BOLD=$'\e[1m' RED=$'\e[31m' PLAIN=$'\e[0m'
else
    BOLD='' RED='' PLAIN=''
fi

# One line per step, with the seconds since the script began.
say() { printf '%s[%3ds] %s%s\n' "$BOLD" "$SECONDS" "$*" "$PLAIN"; }
warn() { printf '%s%s%s\n' "$RED" "$*" "$PLAIN" >&2; }
die() {
    printf '%s%s: %s%s\n' "$RED" "${0##*/}" "$*" "$PLAIN" >&2
    exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# Prints the comment block at the head of a script (from line 2 to the first
# line that is no comment): help text and comment cannot drift apart.
head_comment() { sed -n '2,${/^#/!q;s/^# \{0,1\}//;p}' "$1"; }

# Runs a command in a named namespace. nsenter, not "ip netns exec": that one
# remounts /sys, which a container may refuse inside a user namespace.
in_ns() {
    local ns=$1
    shift
    nsenter --net="/run/netns/$ns" -- "$@"
}

# Builds a preset: build_preset PRESET [TARGET...]; without targets, all.
# The output goes to build/logs; its tail is shown when something fails.
# NETSTACK_WRAP (words) is put before cmake, see .ci/run.
build_preset() {
    local preset=$1 log=$LOGS/build-$1.log launcher=()
    shift
    mkdir -p "$LOGS"
    # By itself: below, under `!`, bash takes a failed redirection for success.
    : >"$log" || return 1
    if have ccache; then
        launcher=(-DCMAKE_C_COMPILER_LAUNCHER=ccache
                  -DCMAKE_CXX_COMPILER_LAUNCHER=ccache)
    fi
    local targets=()
    [ $# -eq 0 ] || targets=(--target "$@")
    # shellcheck disable=SC2086  # NETSTACK_WRAP is meant to be split
    if ! (cd "$REPO" &&
          ${NETSTACK_WRAP:-} cmake --preset "$preset" "${launcher[@]}" &&
          ${NETSTACK_WRAP:-} cmake --build --preset "$preset" \
              -j "${NETSTACK_JOBS:-$(nproc)}" "${targets[@]}" -- -k 0
         ) >"$log" 2>&1; then
        # The first error tells more than the last line of a parallel build.
        grep -n -m 10 -E '(: (fatal )?error:|CMake Error|undefined reference)' "$log" >&2 || true
        echo "--- the end of ${log#"$REPO"/}:" >&2
        tail -n 40 "$log" >&2
        return 1
    fi
}

# Fails with a sentence when this machine cannot give us namespaces and a TUN.
need_tun() {
    [ -c /dev/net/tun ] || die "there is no /dev/net/tun here: load the module" \
        "(modprobe tun), or give the container the device" \
        "(--device /dev/net/tun)"
    # Opened, not tested with -w: a container's device filter refuses later.
    { : <>/dev/net/tun; } 2>/dev/null || die "/dev/net/tun may not be opened by" \
        "$(id -un): it must have mode 0666, as udev makes it" \
        "(chmod 0666 /dev/net/tun as root), or run this as root"
}
