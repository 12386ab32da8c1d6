/*
 * What the kernel itself costs: the fewest messages that do the work, encoded beforehand, sent in the best order known.
 *
 *   limit [+LEVER]... WORKLOAD N QUEUES
 *
 * Works in the network namespace it is started in ("home") and in /run/netns/b0 … b{N-1}; prints one JSON object with
 * the wall, user and system time of each phase. Pair i has the end h{i} at home and eth0 in b{i}.
 *
 *   lifecycle  create + up + address on both ends; look up both ends by name; delete
 *   create     create alone                          (deleted afterwards, untimed)
 *   routes     create + up + address on both ends, two routes over eth0; delete
 *   delete     delete alone                          (created before, untimed)
 *   set        an MTU set on every h{i}; once more, one exchange each
 *   lookup     every h{i} looked up by name, one exchange each
 *   dump       all links at home received, and not parsed; once more with their addresses; every peer is in b0, as p{i}
 *   cache      the links of every b{i} dumped through a socket that is opened in there
 *   ring       N namespaces without names, each joined to the next, with addresses; all closed; until the last has ended
 *
 * Levers, which make the kernel do less, and whose effects others can see (of lifecycle):
 *
 *   +no-ipv6   home's ends without IPv6, from before they are up
 *   +together  home's ends are created in the group by which they are deleted, and need no mark
 *
 * The best order known: a slab of 64 pairs at a time, so that a datagram holds a slab and few descriptors are open.
 * Creates go through home with both ends' namespaces, MACs and MTUs in one message; the echo brings both ifindexes, and
 * before Linux 6.2, which has none, a lookup of the slab's ends at home.
 * Addresses and up are one datagram per namespace, through a socket that was opened there. Deletion is a group, after the
 * addresses. From MANY pairs on, the namespaces get ids at home before the create, each below the last. A chunk
 * asks for the ack of its last message only: success is silent, failure is not.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/net_namespace.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#define SLAB 64
#define MANY 512
#define GROUP 0x7f000001
#define SOCKET_BUFFER (4 << 20)

static int count, queues, home_ns, home;
static int no_ipv6, in_group, with_routes;
static int shared; /* whether all peers are in b0 */
static int (*index_of)[2]; /* ifindexes of h{i} and of its peer */
static char inbox[1 << 18];

static void die(const char *what)
{
	fprintf(stderr, "limit: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* ---- messages ---- */

struct buffer {
	size_t length, capacity;
	char *data;
};

static void *grow(struct buffer *buffer, size_t size)
{
	size_t padded = NLMSG_ALIGN(size);
	if (buffer->length + padded > buffer->capacity) {
		buffer->capacity = 2 * (buffer->length + padded);
		buffer->data = realloc(buffer->data, buffer->capacity);
	}
	void *place = buffer->data + buffer->length;
	memset(place, 0, padded);
	buffer->length += padded;
	return place;
}

static size_t begin(struct buffer *buffer, int type, int flags)
{
	size_t at = buffer->length;
	struct nlmsghdr *header = grow(buffer, sizeof *header);
	header->nlmsg_type = type;
	header->nlmsg_flags = NLM_F_REQUEST | flags;
	return at;
}

static void end(struct buffer *buffer, size_t at)
{
	((struct nlmsghdr *)(buffer->data + at))->nlmsg_len = buffer->length - at;
}

static size_t attribute(struct buffer *buffer, int kind, const void *payload, size_t size)
{
	size_t at = buffer->length;
	struct rtattr *header = grow(buffer, RTA_LENGTH(size));
	header->rta_type = kind;
	header->rta_len = RTA_LENGTH(size);
	if (size)
		memcpy(RTA_DATA(header), payload, size);
	return at;
}

static void close_nest(struct buffer *buffer, size_t at)
{
	((struct rtattr *)(buffer->data + at))->rta_len = buffer->length - at;
}

static void number(struct buffer *buffer, int kind, uint32_t value)
{
	attribute(buffer, kind, &value, sizeof value);
}

static void text(struct buffer *buffer, int kind, const char *form, ...)
{
	char name[32];
	va_list arguments;
	va_start(arguments, form);
	int size = vsnprintf(name, sizeof name, form, arguments);
	va_end(arguments);
	attribute(buffer, kind, name, size + 1);
}

static void link_header(struct buffer *buffer, int index, int flags)
{
	struct ifinfomsg *info = grow(buffer, sizeof *info);
	info->ifi_index = index;
	info->ifi_flags = info->ifi_change = flags;
}

static void end_of_pair(struct buffer *buffer, int i, int far)
{
	uint8_t mac[6] = {2, far, 0, 0, i >> 8, i & 255};
	attribute(buffer, IFLA_ADDRESS, mac, sizeof mac);
	number(buffer, IFLA_MTU, 1400);
	if (queues) {
		number(buffer, IFLA_NUM_TX_QUEUES, queues);
		number(buffer, IFLA_NUM_RX_QUEUES, queues);
	}
}

/* The fd of the far namespace is the last attribute; returns where in the buffer its value is. */
static size_t create_message(struct buffer *buffer, int i)
{
	size_t at = begin(buffer, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL | NLM_F_ECHO);
	link_header(buffer, 0, 0);
	text(buffer, IFLA_IFNAME, "h%d", i);
	end_of_pair(buffer, i, 0);
	if (in_group)
		number(buffer, IFLA_GROUP, GROUP);
	size_t info = attribute(buffer, IFLA_LINKINFO, NULL, 0);
	text(buffer, IFLA_INFO_KIND, "veth");
	size_t data = attribute(buffer, IFLA_INFO_DATA, NULL, 0);
	size_t peer = attribute(buffer, VETH_INFO_PEER, NULL, 0);
	link_header(buffer, 0, 0);
	text(buffer, IFLA_IFNAME, shared ? "p%d" : "eth0", i);
	end_of_pair(buffer, i, 1);
	number(buffer, IFLA_NET_NS_FD, 0);
	size_t fd_at = buffer->length - 4;
	close_nest(buffer, peer);
	close_nest(buffer, data);
	close_nest(buffer, info);
	end(buffer, at);
	return fd_at;
}

/* To a network by the near end, over the far one; the ifindex is the first attribute. */
static void route_message(struct buffer *buffer, int i, uint8_t network, int prefixlen)
{
	uint8_t destination[4] = {network, network ? 16 : 0}, gateway[4] = {10, i >> 8, i & 255, 1};
	size_t at = begin(buffer, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL);
	struct rtmsg *route = grow(buffer, sizeof *route);
	route->rtm_family = AF_INET;
	route->rtm_dst_len = prefixlen;
	route->rtm_table = RT_TABLE_MAIN;
	route->rtm_protocol = RTPROT_STATIC;
	route->rtm_type = RTN_UNICAST;
	number(buffer, RTA_OIF, 0);
	attribute(buffer, RTA_DST, destination, sizeof destination);
	attribute(buffer, RTA_GATEWAY, gateway, sizeof gateway);
	end(buffer, at);
}

/* Address, then up, of one end; returns where the first ifindex is, the second is at UP_INDEX behind it, and those of
   routes are at ROUTE_INDEX and ROUTE_SIZE after that. */
#define UP_INDEX 40
#define ROUTE_INDEX 84
#define ROUTE_SIZE 52
static size_t configure_message(struct buffer *buffer, int i, int far)
{
	size_t at = begin(buffer, RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL);
	struct ifaddrmsg *address = grow(buffer, sizeof *address);
	address->ifa_family = AF_INET;
	address->ifa_prefixlen = 30;
	uint8_t ip[4] = {10, i >> 8, i & 255, 1 + far};
	attribute(buffer, IFA_LOCAL, ip, sizeof ip);
	attribute(buffer, IFA_ADDRESS, ip, sizeof ip);
	end(buffer, at);
	size_t index_at = at + sizeof(struct nlmsghdr) + offsetof(struct ifaddrmsg, ifa_index);
	at = begin(buffer, RTM_NEWLINK, 0);
	link_header(buffer, 0, IFF_UP);
	end(buffer, at);
	if (with_routes && far)
		route_message(buffer, i, 0, 0), route_message(buffer, i, 172, 12);
	return index_at;
}

static void removal_message(struct buffer *buffer, int i)
{
	size_t at = begin(buffer, RTM_DELADDR, 0);
	struct ifaddrmsg *address = grow(buffer, sizeof *address);
	address->ifa_family = AF_INET;
	address->ifa_prefixlen = 30;
	uint8_t ip[4] = {10, i >> 8, i & 255, 1};
	attribute(buffer, IFA_LOCAL, ip, sizeof ip);
	end(buffer, at);
}

static void lookup_message(struct buffer *buffer, const char *form, int i)
{
	size_t at = begin(buffer, RTM_GETLINK, 0);
	link_header(buffer, 0, 0);
	text(buffer, IFLA_IFNAME, form, i);
	number(buffer, IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
	end(buffer, at);
}

static void dump_message(struct buffer *buffer)
{
	size_t at = begin(buffer, RTM_GETLINK, NLM_F_DUMP);
	link_header(buffer, 0, 0);
	number(buffer, IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
	end(buffer, at);
}

static void put(struct buffer *buffer, size_t at, uint32_t value)
{
	memcpy(buffer->data + at, &value, sizeof value);
}

/* ---- the exchange ---- */

static int open_socket(void)
{
	int one = 1, fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	if (fd < 0)
		die("socket");
	/* Without it an ack brings its whole request back. */
	setsockopt(fd, SOL_NETLINK, NETLINK_CAP_ACK, &one, sizeof one);
	return fd;
}

typedef void answer(int number, struct nlmsghdr *header);

static int forgiven; /* errno of a refusal that is no failure */

/* Sends messages; hands on each answer that is no ack, as the taken-th. */
static void exchange(int fd, char *data, size_t length, answer *take)
{
	struct nlmsghdr *last = NULL;
	int sent = 0, taken = 0;
	for (size_t at = 0; at < length; at += NLMSG_ALIGN(last->nlmsg_len), sent++)
		last = (struct nlmsghdr *)(data + at);
	/* A request for an object is answered with it, and a dump ends of itself; anything else needs to be acked. */
	int get = (last->nlmsg_type & 3) == 2, dump = get && (last->nlmsg_flags & NLM_F_DUMP) == NLM_F_DUMP;
	if (!get)
		last->nlmsg_flags |= NLM_F_ACK;
	if (send(fd, data, length, 0) < 0)
		die("send");
	for (;;) {
		ssize_t size = recv(fd, inbox, sizeof inbox, 0);
		if (size < 0)
			die("recv");
		struct nlmsghdr *header = (struct nlmsghdr *)inbox;
		for (; NLMSG_OK(header, size); header = NLMSG_NEXT(header, size)) {
			if (header->nlmsg_type == NLMSG_ERROR) {
				struct nlmsgerr *result = NLMSG_DATA(header);
				errno = -result->error;
				if (errno && errno != forgiven)
					die("the kernel refused");
				if (errno && !(result->msg.nlmsg_flags & NLM_F_ACK))
					continue;
				return;
			}
			if (header->nlmsg_type == NLMSG_DONE)
				return;
			if (take)
				take(taken, header);
			if (++taken == sent && get && !dump)
				return;
		}
	}
}

/* ---- phases ---- */

struct moment {
	double wall, user, system;
};

static struct moment now(void)
{
	struct timespec wall;
	struct rusage usage;
	clock_gettime(CLOCK_MONOTONIC, &wall);
	getrusage(RUSAGE_SELF, &usage);
	return (struct moment){
		wall.tv_sec + wall.tv_nsec / 1e9,
		usage.ru_utime.tv_sec + usage.ru_utime.tv_usec / 1e6,
		usage.ru_stime.tv_sec + usage.ru_stime.tv_usec / 1e6,
	};
}

static const char *separator = "";

static void report(const char *name, struct moment since)
{
	struct moment until = now();
	printf("%s{\"name\": \"%s\", \"wall\": %.9f, \"user\": %.6f, \"system\": %.6f}", separator, name,
	       until.wall - since.wall, until.user - since.user, until.system - since.system);
	separator = ", ";
}

static int slab_start, fds[SLAB], sockets[SLAB];

static void open_slab(int start, int size)
{
	char path[64];
	slab_start = start;
	for (int i = 0; i < size; i++) {
		snprintf(path, sizeof path, "/run/netns/b%d", shared ? 0 : start + i);
		fds[i] = open(path, O_RDONLY | O_CLOEXEC);
		if (fds[i] < 0)
			die(path);
	}
}

/* A socket in each of the namespaces that are open. */
static void enter_slab(int size)
{
	for (int i = 0; i < size; i++) {
		if (setns(fds[i], CLONE_NEWNET))
			die("setns");
		sockets[i] = open_socket();
	}
	if (setns(home_ns, CLONE_NEWNET))
		die("setns");
}

/* Without netlink: no attribute sets it. */
static void disable_ipv6(int start, int size)
{
	char path[80];
	for (int i = start; i < start + size; i++) {
		snprintf(path, sizeof path, "/proc/sys/net/ipv6/conf/h%d/disable_ipv6", i);
		int file = open(path, O_WRONLY | O_CLOEXEC);
		if (file < 0 || write(file, "1", 1) != 1)
			die(path);
		close(file);
	}
}

/* The kernel looks the id of a peer's namespace up by a walk from the lowest: the newest is found first. */
static void give_ids(int size)
{
	static struct buffer ids;
	static int next = 1 << 30;
	ids.length = 0;
	for (int i = 0; i < size; i++) {
		size_t at = begin(&ids, RTM_NEWNSID, 0);
		grow(&ids, NLMSG_ALIGN(sizeof(struct rtgenmsg)));
		number(&ids, NETNSA_FD, fds[i]);
		number(&ids, NETNSA_NSID, --next);
		end(&ids, at);
	}
	forgiven = EEXIST; /* home gave the namespace an id in an earlier run */
	exchange(home, ids.data, ids.length, NULL);
	forgiven = 0;
}

static void close_slab(int size)
{
	for (int i = 0; i < size; i++)
		close(fds[i]);
}

static int indexes_taken;

static void take_indexes(int number, struct nlmsghdr *header)
{
	struct ifinfomsg *info = NLMSG_DATA(header);
	int length = IFLA_PAYLOAD(header);
	indexes_taken++;
	index_of[slab_start + number][0] = info->ifi_index;
	index_of[slab_start + number][1] = info->ifi_index; /* before Linux 5.2, IFLA_LINK may be missing if it is the same */
	for (struct rtattr *a = IFLA_RTA(info); RTA_OK(a, length); a = RTA_NEXT(a, length))
		if (a->rta_type == IFLA_LINK)
			index_of[slab_start + number][1] = *(int *)RTA_DATA(a);
}

static int found;

static void count_links(int number, struct nlmsghdr *header)
{
	(void)number;
	found += header->nlmsg_type == RTM_NEWLINK && ((struct ifinfomsg *)NLMSG_DATA(header))->ifi_index > 0;
}

/* Messages of all pairs, encoded beforehand; offsets are into `data`, one slab after the other. */
static struct buffer creates, near, far, lookups, marks, removals;
static size_t *fd_at, *near_at, *far_at;
static size_t *creates_from, *near_from, *far_from, *lookups_from, *marks_from; /* where a slab's (far: a pair's) begin */
static struct buffer far_lookup;

static void encode(void)
{
	int slabs = (count + SLAB - 1) / SLAB;
	lookup_message(&far_lookup, "eth0", 0);
	index_of = calloc(count, sizeof *index_of);
	fd_at = calloc(count, sizeof *fd_at), near_at = calloc(count, sizeof *near_at);
	far_at = calloc(count, sizeof *far_at), far_from = calloc(count + 1, sizeof *far_from);
	creates_from = calloc(slabs + 1, sizeof *creates_from), near_from = calloc(slabs + 1, sizeof *near_from);
	lookups_from = calloc(slabs + 1, sizeof *lookups_from), marks_from = calloc(slabs + 1, sizeof *marks_from);
	for (int slab = 0; slab < slabs; slab++) {
		int start = slab * SLAB, stop = start + SLAB < count ? start + SLAB : count;
		for (int i = start; i < stop; i++) {
			fd_at[i] = create_message(&creates, i);
			near_at[i] = configure_message(&near, i, 0);
			far_at[i] = configure_message(&far, i, 1);
			far_from[i + 1] = far.length;
			lookup_message(&lookups, "h%d", i);
			removal_message(&removals, i);
			size_t at = begin(&marks, RTM_SETLINK, 0);
			link_header(&marks, 0, 0);
			number(&marks, IFLA_GROUP, GROUP);
			end(&marks, at);
		}
		creates_from[slab + 1] = creates.length, near_from[slab + 1] = near.length;
		lookups_from[slab + 1] = lookups.length, marks_from[slab + 1] = marks.length;
	}
	size_t at = begin(&marks, RTM_DELLINK, 0);
	link_header(&marks, 0, 0);
	number(&marks, IFLA_GROUP, GROUP);
	end(&marks, at);
}

static void create_slab(int slab, int size)
{
	for (int i = 0; i < size; i++)
		put(&creates, fd_at[slab * SLAB + i], fds[i]);
	indexes_taken = 0;
	exchange(home, creates.data + creates_from[slab], creates_from[slab + 1] - creates_from[slab], take_indexes);
	if (!indexes_taken)
		exchange(home, lookups.data + lookups_from[slab], lookups_from[slab + 1] - lookups_from[slab], take_indexes);
}

static void configure_slab(int slab, int size)
{
	int start = slab * SLAB;
	for (int i = start; i < start + size; i++) {
		put(&near, near_at[i], index_of[i][0]), put(&near, near_at[i] + UP_INDEX, index_of[i][0]);
		put(&far, far_at[i], index_of[i][1]), put(&far, far_at[i] + UP_INDEX, index_of[i][1]);
		for (int route = 0; with_routes && route < 2; route++)
			put(&far, far_at[i] + ROUTE_INDEX + route * ROUTE_SIZE, index_of[i][1]);
	}
	exchange(home, near.data + near_from[slab], near_from[slab + 1] - near_from[slab], NULL);
	enter_slab(size);
	for (int i = 0; i < size; i++) {
		exchange(sockets[i], far.data + far_from[start + i], far_from[start + i + 1] - far_from[start + i], NULL);
		close(sockets[i]);
	}
}

static void create_all(int configured)
{
	for (int start = 0; start < count; start += SLAB) {
		int size = count - start < SLAB ? count - start : SLAB;
		open_slab(start, size);
		if (count >= MANY && !shared)
			give_ids(size);
		create_slab(start / SLAB, size);
		if (no_ipv6)
			disable_ipv6(start, size);
		if (configured)
			configure_slab(start / SLAB, size);
		close_slab(size);
	}
}

static void look_up_all(void)
{
	for (int start = 0; start < count; start += SLAB) {
		int size = count - start < SLAB ? count - start : SLAB, slab = start / SLAB;
		exchange(home, lookups.data + lookups_from[slab], lookups_from[slab + 1] - lookups_from[slab], count_links);
		open_slab(start, size);
		enter_slab(size);
		for (int i = 0; i < size; i++) {
			exchange(sockets[i], far_lookup.data, far_lookup.length, count_links);
			close(sockets[i]);
		}
		close_slab(size);
	}
}

static void remove_addresses(void)
{
	size_t size = removals.length / count;
	for (int i = 0; i < count; i++)
		put(&removals, i * size + sizeof(struct nlmsghdr) + offsetof(struct ifaddrmsg, ifa_index), index_of[i][0]);
	for (int start = 0; start < count; start += SLAB)
		exchange(home, removals.data + start * size, (count - start < SLAB ? count - start : SLAB) * size, NULL);
}

static void delete_all(int configured)
{
	size_t mark_size = marks_from[1] / (count < SLAB ? count : SLAB);
	if (configured)
		remove_addresses();
	if (in_group) {
		size_t marked = count * mark_size;
		exchange(home, marks.data + marked, marks.length - marked, NULL);
		return;
	}
	for (int i = 0; i < count; i++)
		put(&marks, i * mark_size + sizeof(struct nlmsghdr) + offsetof(struct ifinfomsg, ifi_index), index_of[i][0]);
	for (int slab = 0; slab * SLAB < count; slab++) {
		size_t to = (slab + 1) * SLAB < count ? marks_from[slab + 1] : marks.length;
		exchange(home, marks.data + marks_from[slab], to - marks_from[slab], NULL);
	}
}

static void set_all(void)
{
	static struct buffer sets;
	for (int i = 0; i < count; i++) {
		size_t at = begin(&sets, RTM_SETLINK, 0);
		link_header(&sets, index_of[i][0], 0);
		number(&sets, IFLA_MTU, 1300);
		end(&sets, at);
	}
	size_t size = sets.length / count;
	struct moment since = now();
	for (int start = 0; start < count; start += SLAB)
		exchange(home, sets.data + start * size, (count - start < SLAB ? count - start : SLAB) * size, NULL);
	report("set", since);
	for (int i = 1; i <= count; i++)
		put(&sets, i * size - sizeof(uint32_t), 1400); /* the attribute is the last, and to set what is set costs nothing */
	since = now();
	for (int i = 0; i < count; i++)
		exchange(home, sets.data + i * size, size, NULL);
	report("one by one", since);
}

static void look_up_each(void)
{
	static struct buffer each;
	size_t *from = calloc(count + 1, sizeof *from);
	for (int i = 0; i < count; i++) {
		lookup_message(&each, "h%d", i);
		from[i + 1] = each.length;
	}
	struct moment since = now();
	for (int i = 0; i < count; i++)
		exchange(home, each.data + from[i], from[i + 1] - from[i], count_links);
	report("lookup", since);
}

static void dump_home(void)
{
	struct buffer links = {0}, addresses = {0};
	dump_message(&links);
	size_t at = begin(&addresses, RTM_GETADDR, NLM_F_DUMP);
	grow(&addresses, sizeof(struct ifaddrmsg));
	end(&addresses, at);
	struct moment since = now();
	exchange(home, links.data, links.length, NULL);
	report("dump", since), since = now();
	exchange(home, links.data, links.length, NULL);
	exchange(home, addresses.data, addresses.length, NULL);
	report("with addresses", since);
}

static void dump_each(void)
{
	struct buffer dump = {0};
	dump_message(&dump);
	struct moment since = now();
	for (int start = 0; start < count; start += SLAB) {
		int size = count - start < SLAB ? count - start : SLAB;
		open_slab(start, size);
		enter_slab(size);
		close_slab(size);
		for (int i = 0; i < size; i++) {
			exchange(sockets[i], dump.data, dump.length, count_links);
			close(sockets[i]);
		}
	}
	report("sync", since);
}

/* ---- a ring: its namespaces are made here, and nothing has a name ---- */

#define EAST 10 /* ifindex of the end of pair i in namespace i */
#define WEST 11 /* and of that in namespace i + 1 */

struct node {
	int fd, rtnl;
};

static void enter(int fd)
{
	if (setns(fd, CLONE_NEWNET))
		die("setns");
}

static int new_namespace(void)
{
	if (unshare(CLONE_NEWNET))
		die("unshare");
	return open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
}

static void settle_namespace(void)
{
	struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP};
	int any = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	int dad = open("/proc/sys/net/ipv6/conf/default/accept_dad", O_WRONLY | O_CLOEXEC);
	if (dad < 0 || write(dad, "0", 1) != 1 || ioctl(any, SIOCSIFFLAGS, &request))
		die("a namespace cannot be settled");
	close(dad);
	close(any);
}

static void address_of(int wire, int far, int family, void *address)
{
	uint8_t four[4] = {10, wire >> 8, wire & 255, 1 + far};
	uint8_t six[16] = {0xfd, 0, wire >> 8, wire & 255, [15] = 1 + far};
	memcpy(address, family == AF_INET ? four : six, family == AF_INET ? 4 : 16);
}

static void address_message(struct buffer *buffer, int wire, int far, int family)
{
	uint8_t address[16];
	int size = family == AF_INET ? 4 : 16;
	size_t at = begin(buffer, RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL);
	struct ifaddrmsg *info = grow(buffer, sizeof *info);
	info->ifa_family = family;
	info->ifa_prefixlen = family == AF_INET ? 24 : 64;
	info->ifa_index = far ? WEST : EAST;
	address_of(wire, far, family, address);
	attribute(buffer, IFA_LOCAL, address, size);
	attribute(buffer, IFA_ADDRESS, address, size);
	end(buffer, at);
}

static void ring_pair(struct buffer *buffer, int other)
{
	size_t at = begin(buffer, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL);
	link_header(buffer, EAST, 0);
	text(buffer, IFLA_IFNAME, "eth0");
	if (queues)
		number(buffer, IFLA_NUM_TX_QUEUES, queues), number(buffer, IFLA_NUM_RX_QUEUES, queues);
	size_t info = attribute(buffer, IFLA_LINKINFO | NLA_F_NESTED, NULL, 0);
	text(buffer, IFLA_INFO_KIND, "veth");
	size_t inside = attribute(buffer, IFLA_INFO_DATA | NLA_F_NESTED, NULL, 0);
	size_t peer = attribute(buffer, VETH_INFO_PEER | NLA_F_NESTED, NULL, 0);
	link_header(buffer, WEST, 0);
	text(buffer, IFLA_IFNAME, "eth1");
	if (queues)
		number(buffer, IFLA_NUM_TX_QUEUES, queues), number(buffer, IFLA_NUM_RX_QUEUES, queues);
	number(buffer, IFLA_NET_NS_FD, other);
	close_nest(buffer, peer), close_nest(buffer, inside), close_nest(buffer, info);
	end(buffer, at);
}

static void up_message(struct buffer *buffer, int index)
{
	size_t at = begin(buffer, RTM_NEWLINK, 0);
	link_header(buffer, index, IFF_UP);
	end(buffer, at);
}

/* A read brings a link's queue up at once, which the kernel had put off (linkwatch_sync_dev). */
static void read_message(struct buffer *buffer, int index)
{
	size_t at = begin(buffer, RTM_GETLINK, 0);
	link_header(buffer, index, 0);
	number(buffer, IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
	end(buffer, at);
}

static void build_ring(struct node *nodes)
{
	struct buffer buffer = {0};
	for (int i = 0; i < count; i++) {
		nodes[i].fd = new_namespace();
		settle_namespace();
		nodes[i].rtnl = open_socket();
	}
	enter(home_ns);
	for (int i = 0; i < count; i++) {
		buffer.length = 0;
		ring_pair(&buffer, nodes[(i + 1) % count].fd);
		exchange(nodes[i].rtnl, buffer.data, buffer.length, NULL);
	}
	for (int i = 0; i < count; i++) {
		buffer.length = 0;
		for (int far = 0; far < 2; far++) {
			int wire = far ? (i + count - 1) % count : i;
			address_message(&buffer, wire, far, AF_INET);
			address_message(&buffer, wire, far, AF_INET6);
			up_message(&buffer, far ? WEST : EAST);
		}
		exchange(nodes[i].rtnl, buffer.data, buffer.length, NULL);
	}
	for (int i = 0; i < count; i++) {
		buffer.length = 0;
		read_message(&buffer, EAST), read_message(&buffer, WEST);
		exchange(nodes[i].rtnl, buffer.data, buffer.length, NULL);
	}
}

static int udp_socket(int family)
{
	struct timeval patience = {.tv_sec = 20};
	struct sockaddr_in6 any6 = {.sin6_family = AF_INET6, .sin6_port = htons(7)};
	struct sockaddr_in any4 = {.sin_family = AF_INET, .sin_port = htons(7)};
	int one = 1, udp = socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (family == AF_INET6)
		setsockopt(udp, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
	setsockopt(udp, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
	if (bind(udp, family == AF_INET6 ? (void *)&any6 : (void *)&any4, family == AF_INET6 ? sizeof any6 : sizeof any4))
		die("bind");
	return udp;
}

static void send_along(int from, int to, int wire, int far, int family)
{
	char byte;
	struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = htons(7)};
	struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = htons(7)};
	address_of(wire, far, family, family == AF_INET ? (void *)&four.sin_addr : (void *)&six.sin6_addr);
	if (sendto(from, "x", 1, 0, family == AF_INET ? (void *)&four : (void *)&six,
		   family == AF_INET ? sizeof four : sizeof six) != 1)
		die("a node cannot send to its neighbour");
	if (recv(to, &byte, 1, 0) != 1)
		die("a node does not hear its neighbour");
}

/* IPv6 addresses become usable in a work queue, which has much to do on a busy machine. */
static void await_addresses(void)
{
	unsigned flags;
	for (int left = 20000, tentative = 1; tentative && left; left--) {
		FILE *addresses = fopen("/proc/thread-self/net/if_inet6", "re");
		if (!addresses)
			die("if_inet6");
		tentative = 0;
		while (fscanf(addresses, "%*s %*s %*s %*s %x %*s", &flags) == 1)
			tentative |= flags & IFA_F_TENTATIVE;
		fclose(addresses);
		if (tentative)
			usleep(1000);
	}
}

/* Every node sends to both its neighbours, by both families; why not all of many: contestants/ring.py. */
static void prove_ring(struct node *nodes)
{
	for (int i = 0; i < count; i++) {
		enter(nodes[i].fd);
		await_addresses();
	}
	for (int i = 0; i < count; i += count < 400 ? 1 : count / 200) {
		for (int six = 0; six < 2; six++) {
			int family = six ? AF_INET6 : AF_INET;
			enter(nodes[i].fd);
			int west = udp_socket(family);
			enter(nodes[(i + 1) % count].fd);
			int east = udp_socket(family);
			send_along(west, east, i, 1, family);
			send_along(east, west, i, 0, family);
			close(west), close(east);
		}
	}
	enter(home_ns);
}

/* By a dump, as in contestants/ring.py: it waits for RTNL, and so for the end of what takes the links away. An ioctl does
   not, and finds the link gone while all others of its batch are still being taken away. */
static int is_there(const char *name)
{
	struct if_nameindex *links = if_nameindex();
	int there = 0;
	if (!links)
		die("if_nameindex");
	for (struct if_nameindex *link = links; link->if_name; link++)
		there |= !strcmp(link->if_name, name);
	if_freenameindex(links);
	return there;
}

static void ring(void)
{
	struct rlimit files;
	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
	struct node *nodes = calloc(count, sizeof *nodes);
	/* Namespaces end in the order they were let go of, those with a netlink socket some milliseconds later (it is freed
	   by RCU): when the link of this one, which has a socket to the last, has gone, so have all the others'. */
	struct buffer buffer = {0};
	int marker = new_namespace();
	int there = open_socket();
	enter(home_ns);
	ring_pair(&buffer, home_ns);
	exchange(there, buffer.data, buffer.length, NULL);
	struct moment since = now();
	build_ring(nodes);
	report("build", since);
	prove_ring(nodes);
	since = now();
	for (int i = 0; i < count; i++)
		close(nodes[i].rtnl), close(nodes[i].fd);
	report("teardown", since), since = now();
	close(there), close(marker);
	while (is_there("eth1"))
		usleep(200);
	report("gone", since);
}

int main(int argc, char **argv)
{
	for (; argc > 1 && argv[1][0] == '+'; argc--, argv++) {
		const char *lever = argv[1] + 1;
		no_ipv6 |= !strcmp(lever, "no-ipv6"), in_group |= !strcmp(lever, "together");
	}
	if (argc < 4) {
		fprintf(stderr, "usage: limit [+LEVER]... WORKLOAD N QUEUES\n");
		return 2;
	}
	const char *workload = argv[1];
	int buffer_size = SOCKET_BUFFER;
	struct utsname system;
	with_routes = !strcmp(workload, "routes");
	count = atoi(argv[2]), queues = atoi(argv[3]), shared = !strcmp(workload, "dump");
	home_ns = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	home = open_socket();
	setsockopt(home, SOL_SOCKET, SO_RCVBUFFORCE, &buffer_size, sizeof buffer_size);
	encode();
	printf("{\"phases\": [");
	struct moment since = now();
	if (!strcmp(workload, "lifecycle")) {
		create_all(1);
		report("create", since), since = now();
		look_up_all();
		report("lookup", since), since = now();
		delete_all(1);
		report("delete", since);
		if (found != 2 * count)
			die("some lookups found nothing");
	} else if (!strcmp(workload, "create")) {
		create_all(0);
		report("create", since);
		delete_all(0);
	} else if (with_routes) {
		create_all(1);
		report("create", since), since = now();
		delete_all(1);
		report("delete", since);
	} else if (!strcmp(workload, "delete")) {
		create_all(0);
		since = now();
		delete_all(0);
		report("delete", since);
	} else if (!strcmp(workload, "set")) {
		create_all(0);
		set_all();
		delete_all(0);
	} else if (!strcmp(workload, "lookup")) {
		create_all(0);
		look_up_each();
		delete_all(0);
	} else if (!strcmp(workload, "dump")) {
		create_all(0);
		dump_home();
		delete_all(0);
	} else if (!strcmp(workload, "cache")) {
		dump_each();
	} else if (!strcmp(workload, "ring")) {
		ring();
	} else {
		fprintf(stderr, "limit: no workload %s\n", workload);
		return 2;
	}
	uname(&system);
	printf("], \"version\": \"Linux %s\"}\n", system.release);
	return 0;
}
