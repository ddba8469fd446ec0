package post

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"syscall"

	"code.dny.dev/ssrf"
)

// ErrAddressRefused reports that a name resolved to an address that deliveries may not reach.
var ErrAddressRefused = errors.New("address refused")

// Guard refuses addresses that are not on the public internet: private, shared, loopback, link-local, multicast,
// metadata and every other special-purpose network of IANA's registries, in each spelling that could hide one. It
// checks the address of the socket, after name resolution, so no name can get around it.
type Guard struct {
	ssrf    *ssrf.Guardian
	allowV6 []netip.Prefix
}

// azurePlatform is inside Azure what 169.254.169.254 is elsewhere, though it is a public address by registry.
var azurePlatform = netip.MustParsePrefix("168.63.129.16/32")

// NewGuard returns a Guard that also allows exactly the networks of allow. An IPv4 network includes its IPv4-mapped
// form, since that is the same socket address, but no tunnelled form such as NAT64 or 6to4, which has to be allowed as
// the IPv6 network that it is.
func NewGuard(allow []netip.Prefix) *Guard {
	var v4, v6 []netip.Prefix
	for _, p := range allow {
		switch {
		case !p.IsValid():
		case p.Addr().Is4In6() && p.Bits() >= 96:
			v4 = append(v4, netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96))
		case p.Addr().Is4():
			v4 = append(v4, p)
		default:
			v6 = append(v6, p)
		}
	}
	return &Guard{
		ssrf: ssrf.New(
			ssrf.WithAnyPort(),
			ssrf.WithAllowedV4Prefixes(v4...),
			ssrf.WithAllowedV6Prefixes(v6...),
			ssrf.WithDeniedV4Prefixes(azurePlatform),
		),
		allowV6: v6,
	}
}

// Control is for [net.Dialer.Control]. Its error wraps [ErrAddressRefused] and gives the reason.
func (g *Guard) Control(network, address string, _ syscall.RawConn) error {
	if network != "tcp4" && network != "tcp6" {
		return fmt.Errorf("%w: %s is not TCP", ErrAddressRefused, network)
	}
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("%w: it is not an IP address", ErrAddressRefused)
	}
	return g.Check(to.Addr())
}

// Check reports whether addr may be reached. Its error wraps [ErrAddressRefused] and names the network, not the
// address.
func (g *Guard) Check(addr netip.Addr) error {
	// The library treats a mapped IPv4 address as IPv6, and no prefix contains an address with a zone.
	addr = addr.Unmap().WithZone("")
	hidden := isISATAP(addr) && !slices.ContainsFunc(g.allowV6, func(p netip.Prefix) bool { return p.Contains(addr) })
	if err := g.ssrf.SafeAddr(addr); err != nil || hidden {
		return fmt.Errorf("%w: %s; %s", ErrAddressRefused, describeNetwork(addr), adviceOn(addr))
	}
	return nil
}

// isISATAP reports whether the address, of whatever network, ends with the IPv4 address that its packets may be
// tunnelled to (RFC 5214, section 6.1).
func isISATAP(addr netip.Addr) bool {
	b := addr.As16()
	return addr.Is6() && b[8]&^3 == 0 && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe
}

// namedNetworks names the networks that administrators know, the most specific first.
var namedNetworks = []struct {
	prefix netip.Prefix
	what   string
}{
	{netip.MustParsePrefix("127.0.0.0/8"), "loopback"},
	{netip.MustParsePrefix("10.0.0.0/8"), "private"},
	{netip.MustParsePrefix("172.16.0.0/12"), "private"},
	{netip.MustParsePrefix("192.168.0.0/16"), "private"},
	{netip.MustParsePrefix("169.254.0.0/16"), "link-local"},
	{netip.MustParsePrefix("100.64.0.0/10"), "shared address space"},
	{netip.MustParsePrefix("0.0.0.0/8"), "unspecified"},
	{netip.MustParsePrefix("255.255.255.255/32"), "broadcast"},
	{netip.MustParsePrefix("224.0.0.0/4"), "multicast"},
	{netip.MustParsePrefix("198.18.0.0/15"), "for benchmarks"},
	{netip.MustParsePrefix("192.0.2.0/24"), "for documentation"},
	{netip.MustParsePrefix("198.51.100.0/24"), "for documentation"},
	{netip.MustParsePrefix("203.0.113.0/24"), "for documentation"},
	{azurePlatform, "a cloud's metadata address"},
	{netip.MustParsePrefix("::1/128"), "loopback"},
	{netip.MustParsePrefix("::/128"), "unspecified"},
	{netip.MustParsePrefix("::/96"), "IPv4-compatible"},
	{netip.MustParsePrefix("64:ff9b::/96"), "NAT64"},
	{netip.MustParsePrefix("64:ff9b:1::/48"), "NAT64"},
	{netip.MustParsePrefix("2001::/32"), "Teredo"},
	{netip.MustParsePrefix("2002::/16"), "6to4"},
	{netip.MustParsePrefix("2001:db8::/32"), "for documentation"},
	{netip.MustParsePrefix("3fff::/20"), "for documentation"},
	{netip.MustParsePrefix("fd00:ec2::254/128"), "a cloud's metadata address"},
	{netip.MustParsePrefix("fc00::/7"), "private"},
	{netip.MustParsePrefix("fe80::/10"), "link-local"},
	{netip.MustParsePrefix("fec0::/10"), "site-local"},
	{netip.MustParsePrefix("ff00::/8"), "multicast"},
}

// holdsMetadata are the networks in which machines of a cloud find their credentials.
var holdsMetadata = []netip.Prefix{netip.MustParsePrefix("169.254.0.0/16"), azurePlatform, netip.MustParsePrefix("fd00:ec2::254/128")}

// adviceOn says how to allow an address. It does not suggest to allow addresses that hand out credentials.
func adviceOn(addr netip.Addr) string {
	if slices.ContainsFunc(holdsMetadata, func(p netip.Prefix) bool { return p.Contains(addr) }) {
		return "clouds hand out credentials there, so leave it out of WALHOOK_ALLOW_NETWORKS unless this very address is meant"
	}
	return "set WALHOOK_ALLOW_NETWORKS to allow it"
}

func describeNetwork(addr netip.Addr) string {
	for _, n := range namedNetworks {
		if n.prefix.Contains(addr) {
			return n.prefix.String() + " is " + n.what
		}
	}
	for _, p := range slices.Concat(ssrf.IPv4DeniedPrefixes, ssrf.IPv6DeniedPrefixes) {
		if p.Contains(addr) {
			return p.String() + " is reserved"
		}
	}
	if isISATAP(addr) {
		return "it is an ISATAP address, which tunnels to an IPv4 address"
	}
	return "it is outside " + ssrf.IPv6GlobalUnicast.String() + ", the public part of IPv6"
}
