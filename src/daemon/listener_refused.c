/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/listener_refused.h"

#include "daemon/listener_options.h"
#include "daemon/manager.h"
#include "daemon/sandbox.h"
#include "sys/listen.h"
#include "sys/listen_options.h"
#include "sys/process.h"
#include "sys/sockdiag.h"
#include "sys/user.h"

/* "www-data (uid 33)" */
static char *describe_user(uid_t uid)
{
	_cleanup_free_ char *name = user_name_of(uid);
	_cleanup_free_ char *number = xasprintf("%u", (unsigned)uid);

	if (!name || !number)
		return NULL;
	/* Who has no entry is called by the number. */
	return streq(name, number) ? xasprintf("uid %s", number)
				   : xasprintf("user %s (uid %s)", name, number);
}

/* --- who is there ---------------------------------------------------------------- */

/* A listener of this daemon that has the socket. */
static const struct listener *find_own(const struct manager *m, uint64_t inode)
{
	for (size_t i = 0; i < m->n_services; i++)
		for (size_t id = 0; id < ARRAY_SIZE(m->services[i]->listeners); id++) {
			const struct listener *l = m->services[i]->listeners[id];

			for (size_t k = 0; l && k < l->lanes.n; k++) {
				uint64_t own;

				if (socket_inode(l->lanes.sockets[k].fd, &own) >= 0 && own == inode)
					return l;
			}
		}
	return NULL;
}

static char *describe_own(const struct listener *l, const struct listener *own)
{
	if (own->service == l->service)
		return xasprintf("; held by the service's own listener %s as it was configured "
				 "until now; sockets cannot take this change while they are open: "
				 "stop %s, reload and start it, or use another port",
			own->config.name, l->service->name);
	return xasprintf("; held by listener %s of service %s, which this daemon runs; stop it "
			 "first, or take the listener from it in a reload of its own",
		own->config.name, own->service->name);
}

static char *describe_process(const struct sockdiag_listener *s, const char *address)
{
	_cleanup_free_ char *user = describe_user(s->uid), *name = NULL;
	pid_t pid;

	if (process_find_socket_holder(s->inode, &pid) >= 0 && process_name(pid, &name) >= 0)
		return xasprintf("; held by %s (pid %d, %s), which listens on %s; end it, or use "
				 "another port",
			name, (int)pid, user ? user : "?", address ? address : "?");
	return xasprintf("; held by a process of %s, which listens on %s; root sees which one: ss "
			 "-lntup; end it, or use another port",
		user ? user : "another user", address ? address : "?");
}

/* Nobody listens there: then it is the local port of a connection, or of a socket that was only
 * bound. */
static char *describe_nobody(const struct listener *l)
{
	_cleanup_fclose_ FILE *f = fopen("/proc/sys/net/ipv4/ip_local_port_range", "re");
	unsigned port = address_port(&l->config.address), from, to;

	if (l->config.address.kind == ADDRESS_TCP && f && fscanf(f, "%u %u", &from, &to) == 2 &&
		port >= from && port <= to)
		return xasprintf("; nobody listens there, so a connection from this machine has "
				 "taken the port: it is in net.ipv4.ip_local_port_range (%u to "
				 "%u); use another one, or write it to "
				 "net.ipv4.ip_local_reserved_ports",
			from, to);
	return strdup("; nobody listens there, but a socket is bound to it, or a connection of it "
		      "is ending; use another port, or try again in a minute");
}

/* Is it in the way of ours? */
static bool is_in_the_way(const struct listener *l, const struct sockdiag_listener *s)
{
	return !s->connected &&
	       address_overlaps(&l->config.address, l->config.v6only, &s->address, s->v6only > 0);
}

static char *describe_holder(const struct listener *l)
{
	_cleanup_free_ struct sockdiag_listener *list = NULL;
	const struct manager *m = l->service->manager;
	unsigned port = address_port(&l->config.address);
	size_t n = 0;
	int r;

	if (m->sockdiag_fd < 0)
		return strdup("; somebody listens there: ss -lntup");
	r = l->config.address.kind == ADDRESS_UDP
		    ? sockdiag_datagrams(m->sockdiag_fd, port, &list, &n)
		    : sockdiag_listeners(m->sockdiag_fd, port, &list, &n);
	if (r < 0)
		return strdup("; somebody listens there: ss -lntup");
	for (size_t i = 0; i < n; i++) {
		_cleanup_free_ char *address = NULL;
		const struct listener *own;

		if (!is_in_the_way(l, &list[i]))
			continue;
		own = find_own(m, list[i].inode);
		if (own)
			return describe_own(l, own);
		address = address_format(&list[i].address);
		return describe_process(&list[i], address);
	}
	return describe_nobody(l);
}

static char *describe_unix_holder(const struct listener *l)
{
	_cleanup_free_ char *name = NULL, *user = NULL;
	pid_t pid;
	uid_t uid;

	if (listen_unix_holder(&l->config.address, &pid, &uid) < 0)
		return strdup("; somebody listens there: ss -lxp");
	user = describe_user(uid);
	if (pid > 0 && process_name(pid, &name) >= 0)
		return xasprintf("; %s (pid %d, %s) answers there; end it, or use another path",
			name, (int)pid, user ? user : "?");
	return xasprintf("; a process of %s answers there; end it, or use another path",
		user ? user : "another user");
}

/* --- what helps -------------------------------------------------------------------- */

static char *explain_privileged(const struct listener *l)
{
	unsigned port = address_port(&l->config.address);
	int64_t start;

	if (listen_sysctl("net/ipv4/ip_unprivileged_port_start", &start) < 0)
		start = 1024;
	if (port >= start)
		return strdup("; a security policy of this machine forbids it");
	return xasprintf(
		"; ports below %lld (net.ipv4.ip_unprivileged_port_start) need "
		"CAP_NET_BIND_SERVICE: write %s=CAP_NET_BIND_SERVICE in "
		"the unit of tenured, or have systemd open it (a socket unit, and inherit: "
		"NAME here), or set the sysctl to %u, or use a port from %lld on",
		(long long)start, geteuid() == 0 ? "CapabilityBoundingSet" : "AmbientCapabilities",
		port, (long long)start);
}

static char *explain_absent(const struct listener *l)
{
	bool v6 = address_family(&l->config.address) == AF_INET6;
	const char *sysctl = v6 ? "net/ipv6/ip_nonlocal_bind" : "net/ipv4/ip_nonlocal_bind";
	int64_t value = -1;

	(void)listen_sysctl(sysctl, &value);
	return xasprintf("; no interface of this machine has that address; write freebind: true to "
			 "bind it before it comes, or net.%s.ip_nonlocal_bind=1 for all programs%s",
		v6 ? "ipv6" : "ipv4", value == 0 ? " (it is 0)" : "");
}

static char *explain_inet(const struct listener *l, int code)
{
	const struct address *a = &l->config.address;

	switch (code) {
	case -EADDRINUSE:
		return describe_holder(l);
	case -EACCES:
	case -EPERM:
		return explain_privileged(l);
	case -EADDRNOTAVAIL:
		return explain_absent(l);
	case -EAFNOSUPPORT:
		if (address_family(a) == AF_INET6)
			return xasprintf("; this machine has no IPv6 (or RestrictAddressFamilies= "
					 "in the unit of tenured lacks AF_INET6); listen on "
					 "%s0.0.0.0:%u",
				a->kind == ADDRESS_UDP ? "udp:" : "", address_port(a));
		break;
	case -ENODEV:
		return strdup("; the network interface of the address is not there");
	case -EINVAL:
		if (address_family(a) == AF_INET6 && IN6_IS_ADDR_LINKLOCAL(&a->in6.sin6_addr) &&
			a->in6.sin6_scope_id == 0)
			return strdup("; a link-local address needs its interface, as in "
				      "[fe80::1%eth0]:80");
		break;
	case -EBUSY:
		return strdup("; a program of the same user has a connected socket at this very "
			      "address, and a new one of ours would take its place in the kernel's "
			      "eyes; run the workers as another user, listen on the wildcard "
			      "address, or stop that program");
	case -EMFILE:
	case -ENFILE:
		return strdup("; too many open files: write a larger LimitNOFILE= in the unit of "
			      "tenured");
	default:
		break;
	}
	return NULL;
}

/* The first directory of the path that is not there. The caller frees; NULL: all are. */
static char *missing_directory(const char *path)
{
	for (const char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		_cleanup_free_ char *directory = strndup(path, (size_t)(slash - path));

		if (directory && access(directory, F_OK) < 0 && errno == ENOENT)
			return TAKE_PTR(directory);
	}
	return NULL;
}

static char *explain_directory(const char *path)
{
	_cleanup_free_ char *missing = missing_directory(path);
	const char *name = missing ? startswith(missing, "/run/") : NULL;

	if (!missing)
		return NULL;
	if (name && !strchr(name, '/'))
		return xasprintf(
			"; there is no directory %s; make it, or write RuntimeDirectory=%s "
			"in the unit of tenured",
			missing, name);
	return xasprintf("; there is no directory %s; make it", missing);
}

static char *explain_access(const char *path)
{
	const char *slash = strrchr(path, '/');
	_cleanup_free_ char *user = describe_user(geteuid());
	_cleanup_free_ char *directory =
		slash && slash > path ? strndup(path, (size_t)(slash - path)) : strdup("/");

	if (!directory || !user)
		return NULL;
	if (access(directory, W_OK | X_OK) < 0)
		return xasprintf("; %s may not write to the directory %s", user, directory);
	return xasprintf("; a socket is there to which %s may not connect, so it is not known "
			 "whether somebody serves it; remove it, or use another path",
		user);
}

static char *explain_unix(const struct listener *l, int code)
{
	const char *path = l->config.address.un.sun_path;

	if (code == -EADDRINUSE)
		return describe_unix_holder(l);
	if (path[0] == '\0')
		return NULL;
	switch (code) {
	case -ENOENT:
		return explain_directory(path);
	case -EPERM:
		if (geteuid() == 0 && (l->config.owner || l->config.group))
			return sandbox_hint(code, SANDBOX_OWNER, path);
		return explain_access(path);
	case -EACCES:
		return explain_access(path);
	case -EEXIST:
		return strdup("; the path is there and is not a socket; remove it, or use another "
			      "path");
	case -ENOTDIR:
		return strdup("; a part of the path is not a directory");
	default:
		return sandbox_hint(code, SANDBOX_FILE, path);
	}
}

int listener_refused(const struct listener *l, int code, struct error *ret_error)
{
	_cleanup_free_ char *address = listener_address(l), *why = NULL;
	const struct listener_sockopts *o = l->sockopts;

	if (o && o->refused < o->n) {
		why = listener_option_refusal(&o->list[o->refused], code);
		return error_set(ret_error, code, "%s: listener %s (%s): %s", l->service->name,
			l->config.name, address ? address : "?", why ? why : strerror(-code));
	}
	why = address_is_unix(&l->config.address) ? explain_unix(l, code) : explain_inet(l, code);
	return error_set(ret_error, code, "%s: bind %s: %s%s", l->service->name,
		address ? address : "?", strerror(-code), why ? why : "");
}
