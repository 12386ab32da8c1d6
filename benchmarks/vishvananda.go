// The work done with github.com/vishvananda/netlink, in the fastest way that its users ordinarily have: the far end's
// namespace in the create, one handle per namespace kept for as long as it is of use. Called as
//
//	vishvananda WORKLOAD N QUEUES
//
// and reports as benchmarks/__init__.py says. Pair i has the end h{i} at home and eth0 in /run/netns/b{i}.
package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// version is set by the linker.
var version = "unknown"

type phase struct {
	Name   string  `json:"name"`
	Wall   float64 `json:"wall"`
	User   float64 `json:"user"`
	System float64 `json:"system"`
}

var phases []phase

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "vishvananda:", err)
		os.Exit(1)
	}
}

func seconds(t syscall.Timeval) float64 {
	return float64(t.Sec) + float64(t.Usec)/1e6
}

func timed(name string, work func()) {
	var before, after syscall.Rusage
	check(syscall.Getrusage(syscall.RUSAGE_SELF, &before))
	started := time.Now()
	work()
	wall := time.Since(started).Seconds()
	check(syscall.Getrusage(syscall.RUSAGE_SELF, &after))
	phases = append(phases, phase{
		name, wall, seconds(after.Utime) - seconds(before.Utime), seconds(after.Stime) - seconds(before.Stime),
	})
}

// arena is the namespaces b0 … with what is open there; handles are opened when first needed. If it is shared, all peers
// are in b0.
type arena struct {
	n, queues int
	shared    bool
	home      *netlink.Handle
	spaces    []netns.NsHandle
	handles   []*netlink.Handle
}

func enter(n, queues int, shared bool) *arena {
	home, err := netlink.NewHandle(syscall.NETLINK_ROUTE)
	check(err)
	return &arena{n, queues, shared, home, make([]netns.NsHandle, n), make([]*netlink.Handle, n)}
}

func (a *arena) space(letter string, i int) netns.NsHandle {
	space, err := netns.GetFromPath(fmt.Sprintf("/run/netns/%s%d", letter, i))
	check(err)
	return space
}

func (a *arena) far(i int) *netlink.Handle {
	if a.handles[i] == nil {
		handle, err := netlink.NewHandleAt(a.spaces[i], syscall.NETLINK_ROUTE)
		check(err)
		a.handles[i] = handle
	}
	return a.handles[i]
}

func near(i int) string {
	return fmt.Sprintf("h%d", i)
}

func (a *arena) create() {
	for i := 0; i < a.n; i++ {
		peer := "eth0"
		if a.shared {
			peer = fmt.Sprintf("p%d", i)
			a.spaces[i] = a.space("b", 0)
		} else {
			a.spaces[i] = a.space("b", i)
		}
		attributes := netlink.NewLinkAttrs()
		attributes.Name = near(i)
		attributes.MTU = 1400
		attributes.HardwareAddr = net.HardwareAddr{2, 0, 0, 0, byte(i >> 8), byte(i)}
		attributes.NumTxQueues, attributes.NumRxQueues = a.queues, a.queues
		check(a.home.LinkAdd(&netlink.Veth{
			LinkAttrs:        attributes,
			PeerName:         peer,
			PeerHardwareAddr: net.HardwareAddr{2, 1, 0, 0, byte(i >> 8), byte(i)},
			PeerNamespace:    netlink.NsFd(int(a.spaces[i])),
		}))
	}
}

func (a *arena) configure() {
	for i := 0; i < a.n; i++ {
		configure(a.home, near(i), net.IPv4(10, byte(i>>8), byte(i), 1))
		configure(a.far(i), "eth0", net.IPv4(10, byte(i>>8), byte(i), 2))
	}
}

func configure(handle *netlink.Handle, name string, ip net.IP) {
	link, err := handle.LinkByName(name)
	check(err)
	check(handle.AddrAdd(link, &netlink.Addr{IPNet: &net.IPNet{IP: ip, Mask: net.CIDRMask(30, 32)}}))
	check(handle.LinkSetUp(link))
}

func (a *arena) lookup() (links []netlink.Link) {
	for i := 0; i < a.n; i++ {
		link, err := a.home.LinkByName(near(i))
		check(err)
		links = append(links, link)
	}
	return links
}

func (a *arena) lookupFar() {
	for i := 0; i < a.n; i++ {
		_, err := a.far(i).LinkByName("eth0")
		check(err)
	}
}

func (a *arena) remove(links []netlink.Link) {
	for _, link := range links {
		check(a.home.LinkDel(link))
	}
}

func (a *arena) move() {
	for i := 0; i < a.n; i++ {
		link, err := a.far(i).LinkByName("eth0")
		check(err)
		to := a.space("c", i)
		check(a.far(i).LinkSetNsFd(link, int(to)))
		check(to.Close())
	}
}

func (a *arena) setMTU(links []netlink.Link) {
	for _, link := range links {
		check(a.home.LinkSetMTU(link, 1300))
	}
}

func (a *arena) dump() {
	links, err := a.home.LinkList()
	check(err)
	if len(links) < a.n {
		check(fmt.Errorf("a dump shows %d links", len(links)))
	}
}

func main() {
	if len(os.Args) != 4 {
		check(fmt.Errorf("usage: vishvananda WORKLOAD N QUEUES"))
	}
	n, err := strconv.Atoi(os.Args[2])
	check(err)
	queues, err := strconv.Atoi(os.Args[3])
	check(err)
	a := enter(n, queues, os.Args[1] == "dump")
	switch workload := os.Args[1]; workload {
	case "lifecycle":
		var links []netlink.Link
		timed("create", func() { a.create(); a.configure() })
		timed("lookup", func() { links = a.lookup(); a.lookupFar() })
		timed("delete", func() { a.remove(links) })
	case "create":
		timed("create", a.create)
	case "delete":
		a.create()
		links := a.lookup()
		timed("delete", func() { a.remove(links) })
	case "move":
		a.create()
		timed("move", a.move)
	case "set":
		a.create()
		links := a.lookup()
		timed("set", func() { a.setMTU(links) })
	case "lookup":
		a.create()
		timed("lookup", func() { a.lookup() })
	case "dump":
		a.create()
		timed("dump", a.dump)
	default:
		check(fmt.Errorf("no workload %s", workload))
	}
	check(json.NewEncoder(os.Stdout).Encode(map[string]interface{}{"phases": phases, "version": version}))
}
