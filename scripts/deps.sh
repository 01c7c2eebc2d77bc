#!/usr/bin/env bash
# Installs what is missing to build and run the platform (`deps.sh run`), to test it too (`deps.sh test`), to take
# pictures of the console as well (`deps.sh screenshots`), to compare the router with another one (`deps.sh router`), or to let
# hostile clients loose on it (`deps.sh hostile`).
# For Debian 12 and 13 and Ubuntu 24.04. What is there already is left alone.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

purpose=${1:-run}
missing=()
# want PACKAGE TEST...: the package, unless the test says that it is not needed
want() {
  local package=$1
  shift
  "$@" >/dev/null 2>&1 || missing+=("$package")
}
have() { command -v "$1"; }

want containerd have containerd
want runc have runc
want containernetworking-plugins test -x /usr/lib/cni/ptp -o -x /opt/cni/bin/ptp
want mmdebstrap have mmdebstrap
want debian-archive-keyring test -e /usr/share/keyrings/debian-archive-keyring.gpg
want gpg have gpg
want git have git
want openssh-client have ssh
want nftables have nft
want e2fsprogs have mkfs.ext4
want iproute2 have ip
want curl have curl
want ca-certificates test -e /etc/ssl/certs/ca-certificates.crt
want gcc have cc
want libc6-dev test -e /usr/include/stdio.h
want protobuf-compiler have protoc
# The well-known types that containerd's API is written with.
want libprotobuf-dev test -e /usr/include/google/protobuf/any.proto
if [ "$purpose" = screenshots ]; then
  want pngquant have pngquant
  want fonts-inter sh -c 'fc-list | grep -q Inter'
fi
if [ "$purpose" = router ]; then
  want haproxy have haproxy
  want nginx-light have nginx
  want wrk have wrk
  want nghttp2-client have h2load
  want openssl have openssl
  want strace have strace
  want python3 have python3
elif [ "$purpose" = hostile ]; then
  want nginx-light have nginx
  want slowhttptest have slowhttptest
  want testssl.sh have testssl
  want openssl have openssl
  want python3 have python3
elif [ "$purpose" != run ]; then
  want busybox-static test -x /bin/busybox -o -x /usr/bin/busybox
  want wrk have wrk
  want postgresql sh -c 'ls /usr/lib/postgresql/*/bin/initdb'
  want procps have ps
  # What reads the images that the platform writes.
  want skopeo have skopeo
  want umoci have umoci
  want oci-image-tool have oci-image-tool
  want docker-registry have docker-registry
  want openssh-server test -x /usr/sbin/sshd
  # The console is tested in a browser; CHROMIUM names one where the package is none, as on Ubuntu.
  want chromium have "${CHROMIUM:-chromium}"
  want nodejs have node
  want npm have npm
  # A clock that jumps, for the platform alone.
  want libfaketime sh -c 'ls /usr/lib/*/faketime/libfaketime.so.1'
  want python3-venv python3 -c 'import ensurepip, venv'
  want openssl have openssl
fi

# The package starts a system-wide containerd. We start a private one: leave the machine as it was.
quiet_containerd() {
  [ -d /run/systemd/system ] && systemctl disable --now containerd.service || true
}
quiet_rivals() {
  [ -d /run/systemd/system ] && systemctl disable --now haproxy.service nginx.service || true
}
# Nor does anybody want to be reached by SSH for having run the tests.
quiet_sshd() {
  [ -d /run/systemd/system ] && systemctl disable --now ssh.service ssh.socket || true
}

if [ ${#missing[@]} -gt 0 ]; then
  need_root "make ${MAKE_TARGET:-demo}"
  command -v apt-get >/dev/null || die "These are missing: ${missing[*]}" "Install them; this script knows only Debian and Ubuntu."
  export DEBIAN_FRONTEND=noninteractive
  step "Refreshing the package lists" apt-get update
  step "Installing ${missing[*]}" apt-get install -y --no-install-recommends "${missing[@]}"
  case " ${missing[*]} " in *" containerd "*) quiet_containerd >/dev/null 2>&1 ;; esac
  case " ${missing[*]} " in *" haproxy "* | *" nginx-light "*) quiet_rivals >/dev/null 2>&1 ;; esac
  case " ${missing[*]} " in *" openssh-server "*) quiet_sshd >/dev/null 2>&1 ;; esac
fi

# The toolchain that the house is linted with: a newer one may find new faults in old code.
toolchain=1.95.0

install_rust() {
  if apt-get install -y --no-install-recommends rustup; then
    rustup toolchain install "$toolchain" --profile minimal -c clippy -c rustfmt
    rustup default "$toolchain"
  else
    curl --proto '=https' --tlsv1.2 -fsSL https://static.rust-lang.org/rustup/rustup-init.sh |
      sh -s -- -y --profile minimal -c clippy -c rustfmt --default-toolchain "$toolchain"
  fi
}

if ! command -v cargo >/dev/null; then
  need_root "make ${MAKE_TARGET:-demo}"
  step "Installing a Rust toolchain" install_rust
fi
