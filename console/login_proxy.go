package console

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"unicode/utf8"
)

// The group roles, one of which a person's groups give.
const (
	roleAdmin  = "walhook_admin"
	roleViewer = "walhook_viewer"
)

// longestName bounds what the change log calls a person, in bytes.
const longestName = 255

// peer returns the address that the connection comes from.
func peer(r *http.Request) netip.Addr {
	addr, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return addr.Addr().Unmap()
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// fromProxy reports whether the connection comes from one of the networks whose headers are believed.
func (s *Server) fromProxy(addr netip.Addr) bool {
	return addr.IsValid() && slices.ContainsFunc(s.cfg.Proxy.Networks, func(n netip.Prefix) bool { return n.Contains(addr.WithZone("")) })
}

// clientAddress returns the browser's address, as far as a trusted proxy or the connection shows it.
func (s *Server) clientAddress(r *http.Request) netip.Addr {
	addr := peer(r)
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(hops) - 1; i >= 0 && s.fromProxy(addr); i-- {
		hop, err := netip.ParseAddr(strings.TrimSpace(hops[i]))
		if err != nil {
			break
		}
		addr = hop.Unmap()
	}
	return addr
}

// clientNetwork returns the addresses that the client has for itself: those of a /64 of IPv6 belong to one host.
func (s *Server) clientNetwork(r *http.Request) netip.Prefix {
	addr := s.clientAddress(r).WithZone("")
	bits := addr.BitLen()
	if addr.Is6() {
		bits = 64
	}
	network, _ := addr.Prefix(bits)
	return network
}

// proxyPerson returns whom the proxy's headers name. A header that comes twice may be the browser's beside the proxy's, and is refused.
func (s *Server) proxyPerson(r *http.Request) (*person, error) {
	if !s.fromProxy(peer(r)) {
		return nil, &refusal{status: http.StatusForbidden, sentence: "This console can only be entered through its proxy: your address is not in WALHOOK_PROXY_NETWORKS."}
	}
	users, groups := r.Header.Values(s.cfg.Proxy.UserHeader), r.Header.Values(s.cfg.Proxy.GroupsHeader)
	if len(users) > 1 || len(groups) > 1 {
		return nil, &refusal{status: http.StatusForbidden, sentence: "The proxy sent " + s.cfg.Proxy.UserHeader + " or " + s.cfg.Proxy.GroupsHeader + " twice. It must replace those that the browser sends."}
	}
	if len(users) == 0 || strings.TrimSpace(users[0]) == "" {
		return nil, &refusal{status: http.StatusForbidden, sentence: "The proxy did not say who you are: it sent no " + s.cfg.Proxy.UserHeader + "."}
	}
	name := strings.TrimSpace(users[0])
	if len(name) > longestName || !utf8.ValidString(name) {
		return nil, &refusal{status: http.StatusForbidden, sentence: "The proxy sent a name that is too long, or not in UTF-8, in " + s.cfg.Proxy.UserHeader + "."}
	}
	group := ""
	if len(groups) == 1 {
		group = s.groupRole(strings.FieldsFunc(groups[0], func(c rune) bool { return c == ',' || c == ';' || c == '|' }))
	}
	if group == "" {
		return nil, errNoMember
	}
	return &person{name: name, pool: s.pool, group: group}, nil
}

// groupRole returns the group role that the groups give, "" for none.
func (s *Server) groupRole(groups []string) string {
	in := func(names []string) bool {
		return slices.ContainsFunc(groups, func(g string) bool {
			g = strings.TrimSpace(g)
			return g != "" && slices.Contains(names, g)
		})
	}
	switch {
	case in(s.cfg.AdminGroups):
		return roleAdmin
	case in(s.cfg.ViewerGroups):
		return roleViewer
	}
	return ""
}
