package deliveries

import (
	"net/netip"
	"strings"
	"testing"

	"walhook/cmd/walhook/internal/cli"
	"walhook/dispatch/post"
)

// Each way to write networks allows exactly those, and meaningless values are refused.
func TestAllowNetworks(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]struct{ open, closed string }{
		"":                           {"", "127.0.0.1 10.0.0.1 ::1 fd00::1 ::ffff:127.0.0.1"},
		" , ,":                       {"", "127.0.0.1 10.0.0.1 ::1 fd00::1"},
		"127.0.0.1/32":               {"127.0.0.1 ::ffff:127.0.0.1", "127.0.0.2 ::1 ::127.0.0.1"},
		"10.1.2.3/16":                {"10.1.0.0 10.1.255.255", "10.0.255.255 10.2.0.0"},
		"10.0.0.0/8,fd00::/8":        {"10.9.9.9 fd12::1", "fc00::1 172.16.0.1 127.0.0.1"},
		" 10.1.0.0/16  10.1.0.0/24 ": {"10.1.0.1 10.1.9.9", "10.2.0.0"},
		"10.0.0.0/8,\n fd00::/8\n":   {"10.9.9.9 fd12::1", "fc00::1"},
		"::1/128":                    {"::1", "::2 127.0.0.1"},
		"::ffff:10.0.0.1/128":        {"10.0.0.1", "10.0.0.2"},
		"::ffff:10.0.0.0/104":        {"10.0.0.1 10.255.0.1", "192.168.0.1 127.0.0.1 fd00::1"},
		"fe80::1/128":                {"fe80::1 fe80::1%eth1", "fe80::2"},
		"0.0.0.0/0":                  {"127.0.0.1 169.254.169.254 ::ffff:10.0.0.1", "::1 fd00::1 64:ff9b::10.0.0.1"},
		"::/0":                       {"::1 fd00::1 fe80::1 64:ff9b::10.0.0.1 2002:a00:1::", "10.0.0.1 ::ffff:10.0.0.1"},
		"0.0.0.0/0,::/0":             {"127.0.0.1 ::1", ""},
		"0.0.0.0/32":                 {"0.0.0.0", "0.0.0.1 127.0.0.1 ::"},
	} {
		var list cli.Networks
		if err := list.Decode(value); err != nil {
			t.Errorf("%q: %v", value, err)
			continue
		}
		guard := post.NewGuard(list)
		for _, addr := range strings.Fields(want.open) {
			if err := guard.Check(netip.MustParseAddr(addr)); err != nil {
				t.Errorf("%q, and %s: %v", value, addr, err)
			}
		}
		for _, addr := range strings.Fields(want.closed) {
			if err := guard.Check(netip.MustParseAddr(addr)); err == nil {
				t.Errorf("%q opens %s", value, addr)
			}
		}
	}
	for _, value := range []string{
		"127.0.0.1", "::1", "10.0.0.0/8,127.0.0.1", "localhost", "*", "10/8", "10.0.0.0/33", "::/129", "10.0.0.0/-1", "10.0.0.0/08", "010.0.0.0/8", "10.0.0.0/8;fd00::/8", "10.0.0.0-10.0.0.9",
		"10.0.0.0/255.0.0.0", "fe80::%eth0/10", "fe80::1%eth0", "[::1]", "127.0.0.1:80", "http://10.0.0.1", "2130706433", "0x7f.0.0.1", "127.1", "１０.0.0.0/8",
	} {
		if err := new(cli.Networks).Decode(value); err == nil {
			t.Errorf("%q is accepted", value)
		}
	}
}
