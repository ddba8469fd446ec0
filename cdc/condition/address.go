package condition

import (
	"cmp"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgtype"
)

var (
	networks = comparing(familyNetwork, true, readNetwork, compareNetworks, networkLiteral)
	macs     = comparing(familyMAC, true, readText, strings.Compare, macLiteral(6))
	macs8    = comparing(familyMAC8, true, readText, strings.Compare, macLiteral(8))
)

// readNetwork reads an inet or cidr. An address without a mask has all bits.
func readNetwork(text string) (netip.Prefix, error) {
	if strings.Contains(text, "/") {
		return netip.ParsePrefix(text)
	}
	address, err := netip.ParseAddr(text)
	if err == nil && address.Zone() != "" {
		err = errFormat
	}
	return netip.PrefixFrom(address, address.BitLen()), err
}

// compareNetworks compares as network_cmp does: by family, by the common bits of the networks, by the masks' lengths,
// and by the addresses.
func compareNetworks(a, b netip.Prefix) int {
	if order := cmp.Compare(a.Addr().BitLen(), b.Addr().BitLen()); order != 0 {
		return order
	}
	common := min(a.Bits(), b.Bits())
	left, _ := a.Addr().Prefix(common)
	right, _ := b.Addr().Prefix(common)
	if order := left.Addr().Compare(right.Addr()); order != 0 {
		return order
	}
	if order := cmp.Compare(a.Bits(), b.Bits()); order != 0 {
		return order
	}
	return a.Addr().Compare(b.Addr())
}

func networkLiteral(t Type, l token, _ bool) (netip.Prefix, string) {
	p, err := readNetwork(l.text)
	if l.kind != tokenString || err != nil {
		return p, "write an address, such as '10.0.0.0/8'"
	}
	if t.OID == pgtype.CIDROID && p.Masked() != p {
		return p, "a cidr has no bits to the right of its mask"
	}
	return p, ""
}

// macLiteral returns a hardware address of that many bytes in its output format.
func macLiteral(size int) func(Type, token, bool) (string, string) {
	return func(_ Type, l token, _ bool) (string, string) {
		address, err := net.ParseMAC(l.text)
		if l.kind != tokenString || err != nil || len(address) != size {
			return "", "write a hardware address of " + strconv.Itoa(size) + " bytes, such as '" + strings.Repeat(":08", size)[1:] + "'"
		}
		return address.String(), ""
	}
}
