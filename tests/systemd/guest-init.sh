#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# From new namespaces to PID 1 of a guest; started by ./guest, which says in the environment what is where.
set -eu
umask 022

if [ "$1" = cgroup ]; then
	# A cgroup namespace begins where the process is that makes it.
	echo 0 >"$GUEST_CGROUP/cgroup.procs"
	exec unshare --cgroup sh "$0" root
fi

mount --make-rprivate /
top=$GUEST_WORK
mount -t tmpfs -o mode=755,size=2g guest "$top"
mkdir -m 755 "$top/upper" "$top/work" "$top/root"
root=$top/root
mount -t overlay -o "lowerdir=$GUEST_ROOT,upperdir=$top/upper,workdir=$top/work" guest-root "$root"
mkdir -p "$root/proc" "$root/sys" "$root/dev" "$root/run" "$root/tmp"

# What is the machine's, and not of our namespaces, can be read only.
mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro,nosuid,nodev,noexec "$root/proc/sys"
mount --bind "$root/proc/sys/net" "$root/proc/sys/net"
mount -o remount,bind,rw,nosuid,nodev,noexec "$root/proc/sys/net"
for file in sysrq-trigger kcore; do
	[ ! -e "$root/proc/$file" ] || mount --bind /dev/null "$root/proc/$file"
done
mount -t sysfs -o nosuid,nodev,noexec sysfs "$root/sys"
mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 "$root/sys/fs/cgroup"
mount -o remount,bind,ro,nosuid,nodev,noexec "$root/sys"

dev=$root/dev
mount -t tmpfs -o mode=755,nosuid,size=64m guest-dev "$dev"
mkdir "$dev/pts" "$dev/shm" "$dev/mqueue"
for node in 'null 1 3' 'zero 1 5' 'full 1 7' 'random 1 8' 'urandom 1 9' 'tty 5 0'; do
	# shellcheck disable=SC2086
	set -- $node
	mknod -m 666 "$dev/$1" c "$2" "$3"
done
mount -t devpts -o newinstance,mode=620,gid=5,ptmxmode=666,nosuid,noexec devpts "$dev/pts"
ln -s pts/ptmx "$dev/ptmx"
ln -s /proc/self/fd "$dev/fd"
ln -s fd/0 "$dev/stdin"
ln -s fd/1 "$dev/stdout"
ln -s fd/2 "$dev/stderr"
mount -t tmpfs -o mode=1777,nosuid,nodev guest-shm "$dev/shm"
: >"$dev/console"
mount --bind "$GUEST_CONSOLE" "$dev/console"
mount -t tmpfs -o mode=755,nosuid,nodev guest-run "$root/run"
mount -t tmpfs -o mode=1777,nosuid,nodev guest-tmp "$root/tmp"

# No unit that the machine's administrator enabled, and none that is about hardware or other machines.
units=$root/run/systemd/system
mkdir -p "$units" "$root/run/systemd/journald.conf.d" "$root/run/lock"
rm -rf "$root"/etc/systemd/system/* "$root"/etc/systemd/system.control
for unit in dev-hugepages.mount sys-kernel-debug.mount sys-kernel-tracing.mount \
	sys-kernel-config.mount sys-fs-fuse-connections.mount proc-sys-fs-binfmt_misc.automount \
	systemd-journald-audit.socket systemd-modules-load.service systemd-sysctl.service \
	systemd-firstboot.service systemd-udevd.service systemd-udev-trigger.service \
	systemd-hwdb-update.service systemd-networkd.service systemd-resolved.service \
	systemd-timesyncd.service systemd-update-utmp.service getty.target; do
	ln -s /dev/null "$units/$unit"
done
cat >"$root/run/systemd/journald.conf.d/guest.conf" <<'END'
[Journal]
Storage=volatile
RateLimitIntervalSec=0
Audit=no
END
cat >"$units/guest.target" <<'END'
[Unit]
Description=The guest is up
Requires=basic.target dbus.socket
After=basic.target dbus.socket
AllowIsolate=yes
END
echo guest >"$root/etc/hostname"
: >"$root/etc/fstab"
printf '127.0.0.1 localhost guest\n::1 localhost\n' >"$root/etc/hosts"
[ -s "$root/etc/machine-id" ] || echo 0123456789abcdef0123456789abcdef >"$root/etc/machine-id"

# Some of them may be below others.
echo "$GUEST_BINDS" | while read -r bind; do
	[ -n "$bind" ] || continue
	mkdir -p "$root$bind"
	mount --rbind "$bind" "$root$bind"
done

cd "$root"
pivot_root . .
umount -l .
cd /
mount --make-rshared /
# The clock, modules and the like are the machine's.
drop=
for capability in sys_module sys_time sys_rawio syslog mac_admin mac_override wake_alarm block_suspend \
	audit_control audit_read; do
	drop=$drop,-$capability
done
exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \
	container=guest setpriv --bounding-set="${drop#,}" \
	"$GUEST_SYSTEMD" --system --unit=guest.target --show-status=yes
