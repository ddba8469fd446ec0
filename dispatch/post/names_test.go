package post

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"
)

// newNames is a name server that answers with the addresses that lookUp has for a name, and NXDOMAIN where it has none.
// It answers nothing where the first of them is no address.
func newNames(t testing.TB, lookUp func(name string) []netip.Addr) *net.Resolver {
	t.Helper()
	conn, err := new(net.ListenConfig).ListenPacket(context.Background(), "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go func() {
		buf := make([]byte, 512)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			reply := answer(buf[:n], lookUp)
			if reply == nil {
				continue
			}
			if _, err := conn.WriteTo(reply, from); err != nil {
				return
			}
		}
	}()
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
}

// newNameServer answers with 127.0.0.1 for every name below .test, and NXDOMAIN for every other one.
func newNameServer(t testing.TB) *net.Resolver {
	t.Helper()
	return newNames(t, func(name string) []netip.Addr {
		if !strings.HasSuffix(name, ".test") {
			return nil
		}
		return addresses("127.0.0.1")
	})
}

func addresses(texts ...string) []netip.Addr {
	list := make([]netip.Addr, len(texts))
	for i, text := range texts {
		list[i] = netip.MustParseAddr(text)
	}
	return list
}

// answer makes a DNS reply of a query (RFC 1035, section 4.1): header of 12 bytes, name as labels, type, class.
func answer(query []byte, lookUp func(name string) []netip.Addr) []byte {
	const typeA, typeAAAA = 1, 28
	end := 12
	var labels []string
	for query[end] != 0 {
		size := int(query[end])
		labels = append(labels, string(query[end+1:end+1+size]))
		end += 1 + size
	}
	asked := query[end+2]
	reply := append([]byte{}, query[:end+5]...)
	copy(reply[2:12], []byte{0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0})
	found := lookUp(strings.Join(labels, "."))
	if len(found) == 0 {
		reply[3] |= 3
		return reply
	}
	if !found[0].IsValid() {
		return nil
	}
	for _, addr := range found {
		switch {
		case asked == typeA && addr.Is4():
			reply = append(reply, 0xc0, 12, 0, typeA, 0, 1, 0, 0, 0, 0, 0, 4)
		case asked == typeAAAA && addr.Is6():
			reply = append(reply, 0xc0, 12, 0, typeAAAA, 0, 1, 0, 0, 0, 0, 0, 16)
		default:
			continue
		}
		reply[7]++
		reply = append(reply, addr.AsSlice()...)
	}
	return reply
}
