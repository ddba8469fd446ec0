package post

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
)

func prefixes(texts ...string) []netip.Prefix {
	list := make([]netip.Prefix, len(texts))
	for i, text := range texts {
		list[i] = netip.MustParsePrefix(text)
	}
	return list
}

func TestGuardRefusesEverySpellingOfAnInnerAddress(t *testing.T) {
	t.Parallel()
	g := NewGuard(nil)
	for addr, want := range map[string]string{
		"0.0.0.0":                      "0.0.0.0/8 is unspecified",
		"0.1.2.3":                      "0.0.0.0/8 is unspecified",
		"10.0.0.1":                     "10.0.0.0/8 is private",
		"10.255.255.255":               "10.0.0.0/8 is private",
		"100.64.0.1":                   "100.64.0.0/10 is shared address space",
		"100.127.255.255":              "100.64.0.0/10 is shared address space",
		"100.100.100.200":              "100.64.0.0/10 is shared address space",
		"127.0.0.1":                    "127.0.0.0/8 is loopback",
		"127.255.255.254":              "127.0.0.0/8 is loopback",
		"168.63.129.16":                "168.63.129.16/32 is a cloud's metadata address",
		"169.254.0.1":                  "169.254.0.0/16 is link-local",
		"169.254.169.254":              "169.254.0.0/16 is link-local",
		"172.16.0.1":                   "172.16.0.0/12 is private",
		"172.31.255.255":               "172.16.0.0/12 is private",
		"192.0.0.192":                  "192.0.0.0/24 is reserved",
		"192.0.2.1":                    "192.0.2.0/24 is for documentation",
		"192.88.99.1":                  "192.88.99.0/24 is reserved",
		"192.168.1.1":                  "192.168.0.0/16 is private",
		"198.18.0.1":                   "198.18.0.0/15 is for benchmarks",
		"198.19.255.255":               "198.18.0.0/15 is for benchmarks",
		"198.51.100.1":                 "198.51.100.0/24 is for documentation",
		"203.0.113.1":                  "203.0.113.0/24 is for documentation",
		"224.0.0.1":                    "224.0.0.0/4 is multicast",
		"239.255.255.255":              "224.0.0.0/4 is multicast",
		"240.0.0.1":                    "240.0.0.0/4 is reserved",
		"255.255.255.255":              "255.255.255.255/32 is broadcast",
		"::":                           "::/128 is unspecified",
		"::1":                          "::1/128 is loopback",
		"::127.0.0.1":                  "::/96 is IPv4-compatible",
		"::10.0.0.1":                   "::/96 is IPv4-compatible",
		"::8.8.8.8":                    "::/96 is IPv4-compatible",
		"::ffff:127.0.0.1":             "127.0.0.0/8 is loopback",
		"::ffff:10.0.0.1":              "10.0.0.0/8 is private",
		"::ffff:169.254.169.254":       "169.254.0.0/16 is link-local",
		"::ffff:0:10.0.0.1":            "outside 2000::/3",
		"64:ff9b::10.0.0.1":            "64:ff9b::/96 is NAT64",
		"64:ff9b::8.8.8.8":             "64:ff9b::/96 is NAT64",
		"64:ff9b:1::10.0.0.1":          "64:ff9b:1::/48 is NAT64",
		"64:ff9b:1:abcd::1":            "64:ff9b:1::/48 is NAT64",
		"100::1":                       "outside 2000::/3",
		"2001::1":                      "2001::/32 is Teredo",
		"2001:0:7f00:1::f5ff:fffe":     "2001::/32 is Teredo",
		"2001:2::1":                    "2001::/23 is reserved",
		"2001:10::1":                   "2001::/23 is reserved",
		"2001:db8::1":                  "2001:db8::/32 is for documentation",
		"2002:a00:1::1":                "2002::/16 is 6to4",
		"2002:7f00:1::":                "2002::/16 is 6to4",
		"2002:808:808::1":              "2002::/16 is 6to4",
		"3fff::1":                      "3fff::/20 is for documentation",
		"4000::1":                      "outside 2000::/3",
		"5f00::1":                      "outside 2000::/3",
		"fc00::1":                      "fc00::/7 is private",
		"fd00::1":                      "fc00::/7 is private",
		"fd00:ec2::254":                "fd00:ec2::254/128 is a cloud's metadata address",
		"fd20:ce::254":                 "fc00::/7 is private",
		"fe80::1":                      "fe80::/10 is link-local",
		"fe80::1%eth0":                 "fe80::/10 is link-local",
		"fe80::5efe:10.0.0.1":          "fe80::/10 is link-local",
		"2606:4700::5efe:10.0.0.1":     "it is an ISATAP address",
		"2606:4700::200:5efe:10.0.0.1": "it is an ISATAP address",
		"2606:4700::300:5efe:8.8.8.8":  "it is an ISATAP address",
		"fec0::1":                      "fec0::/10 is site-local",
		"ff02::1":                      "ff00::/8 is multicast",
	} {
		err := g.Check(netip.MustParseAddr(addr))
		if !errors.Is(err, ErrAddressRefused) {
			t.Errorf("%s: got %v, want ErrAddressRefused", addr, err)
			continue
		}
		if !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "WALHOOK_ALLOW_NETWORKS") {
			t.Errorf("%s: %v does not say %q", addr, err, want)
		}
		if err := g.Control("tcp6", net.JoinHostPort(addr, "8443"), nil); !errors.Is(err, ErrAddressRefused) {
			t.Errorf("Control %s: got %v, want ErrAddressRefused", addr, err)
		}
	}
}

func TestGuardLetsThePublicInternetPass(t *testing.T) {
	t.Parallel()
	g := NewGuard(nil)
	for _, addr := range []string{
		"1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.1",
		"169.253.255.255", "172.15.255.255", "172.32.0.0", "192.167.255.255", "198.17.255.255", "198.20.0.0", "223.255.255.255",
		"::ffff:8.8.8.8", "2606:4700::1111", "2a00:1450::1", "2001:4860:4860::8888",
		"2606:4700::5efe", "2606:4700::400:5efe:10.0.0.1", "2606:4700::5eff:10.0.0.1", "2606:4700:5efe::1",
	} {
		for _, port := range []string{"80", "443", "1", "65535"} {
			if err := g.Control("tcp4", net.JoinHostPort(addr, port), nil); err != nil {
				t.Errorf("%s port %s: %v", addr, port, err)
			}
		}
	}
}

func TestAllowedNetworksOpenExactlyThemselves(t *testing.T) {
	t.Parallel()
	tests := []struct {
		allow        string
		open, closed []string
	}{
		{
			"10.1.0.0/16",
			[]string{"10.1.0.0", "10.1.255.255", "::ffff:10.1.2.3"},
			[]string{"10.0.255.255", "10.2.0.0", "::10.1.2.3", "64:ff9b::10.1.2.3", "64:ff9b:1::10.1.2.3", "2002:a01:203::1", "127.0.0.1", "::1"},
		},
		{"127.0.0.1/32", []string{"127.0.0.1", "::ffff:127.0.0.1"}, []string{"127.0.0.2", "::1", "::127.0.0.1"}},
		{"169.254.169.254/32", []string{"169.254.169.254"}, []string{"169.254.169.253", "fd00:ec2::254"}},
		{"::ffff:10.0.0.0/104", []string{"10.0.0.1", "::ffff:10.0.0.1"}, []string{"192.168.0.1", "fd00::1"}},
		{"0.0.0.0/0", []string{"10.0.0.1", "127.0.0.1", "168.63.129.16", "::ffff:127.0.0.1"}, []string{"::1", "64:ff9b::10.0.0.1"}},
		{"::/0", []string{"::1", "fd00::1", "64:ff9b::10.0.0.1"}, []string{"10.0.0.1", "::ffff:10.0.0.1"}},
		{"fe80::/10", []string{"fe80::1", "fe80::1%eth0"}, []string{"fec0::1", "fd00::1"}},
		{"64:ff9b::/96", []string{"64:ff9b::8.8.8.8"}, []string{"64:ff9b:1::8.8.8.8", "::8.8.8.8"}},
		{"2606:4700::/32", []string{"2606:4700::5efe:10.0.0.1"}, []string{"2606:4701::5efe:10.0.0.1", "10.0.0.1"}},
		{"10.1.2.3/16", []string{"10.1.0.0", "10.1.255.255"}, []string{"10.0.255.255", "10.2.0.0"}},
		{"::ffff:0:0/95", nil, []string{"10.0.0.1", "::ffff:10.0.0.1", "::1", "fd00::1"}},
		{"::ffff:0:0/96", []string{"10.0.0.1", "127.0.0.1", "::ffff:10.0.0.1"}, []string{"::1", "::10.0.0.1", "64:ff9b::10.0.0.1"}},
		{"fd00:ec2::254/128", []string{"fd00:ec2::254"}, []string{"fd00:ec2::253"}},
	}
	for _, tt := range tests {
		g := NewGuard(prefixes(tt.allow))
		for _, addr := range tt.open {
			if err := g.Check(netip.MustParseAddr(addr)); err != nil {
				t.Errorf("%s allowed, %s refused: %v", tt.allow, addr, err)
			}
		}
		for _, addr := range tt.closed {
			if err := g.Check(netip.MustParseAddr(addr)); !errors.Is(err, ErrAddressRefused) {
				t.Errorf("%s allowed, and %s with it", tt.allow, addr)
			}
		}
	}
}

// Networks that overlap open what they do one by one, in whatever order.
func TestAllowedNetworksAddUp(t *testing.T) {
	t.Parallel()
	for _, list := range [][]string{
		{"10.0.0.0/8", "10.1.0.0/16", "10.1.0.0/16", "fd00::/8"},
		{"fd00::/8", "10.1.0.0/16", "::ffff:10.0.0.0/104"},
	} {
		g := NewGuard(prefixes(list...))
		for addr, open := range map[string]bool{"10.1.2.3": true, "10.2.3.4": true, "fd12::1": true, "11.0.0.1": true, "fc00::1": false, "192.168.0.1": false, "::1": false} {
			if err := g.Check(netip.MustParseAddr(addr)); open != (err == nil) {
				t.Errorf("%v allowed, %s: %v", list, addr, err)
			}
		}
	}
}

func TestGuardRefusesWhatIsNoTCPAddress(t *testing.T) {
	t.Parallel()
	g := NewGuard(prefixes("0.0.0.0/0"))
	for _, tt := range [][2]string{{"udp4", "8.8.8.8:53"}, {"unix", "/tmp/socket"}, {"tcp4", "8.8.8.8"}, {"tcp4", "example.com:80"}, {"tcp4", ""}} {
		if err := g.Control(tt[0], tt[1], nil); !errors.Is(err, ErrAddressRefused) {
			t.Errorf("%s %s: got %v, want ErrAddressRefused", tt[0], tt[1], err)
		}
	}
}

func TestInvalidNetworkOpensNothing(t *testing.T) {
	t.Parallel()
	if err := NewGuard([]netip.Prefix{{}}).Check(netip.MustParseAddr("10.0.0.1")); !errors.Is(err, ErrAddressRefused) {
		t.Errorf("got %v, want ErrAddressRefused", err)
	}
}
