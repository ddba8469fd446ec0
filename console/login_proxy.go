package console

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"unicode/utf8"
)

// The roles that a person's groups map to.
const (
	roleAdmin  = "walhook_admin"
	roleViewer = "walhook_viewer"
)

// inNoGroup is for people whose groups give them no role.
const inNoGroup = "You may not sign in: you are in no group that WALHOOK_ADMIN_GROUPS or WALHOOK_VIEWER_GROUPS lists."

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
	contains := func(n netip.Prefix) bool { return n.Contains(addr.WithZone("")) }
	return addr.IsValid() && slices.ContainsFunc(s.cfg.Proxy.Networks, contains)
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

// clientNetwork returns the network whose addresses all belong to the client: with IPv6, a host has a /64 of its own.
func (s *Server) clientNetwork(r *http.Request) netip.Prefix {
	addr := s.clientAddress(r).WithZone("")
	bits := addr.BitLen()
	if addr.Is6() {
		bits = 64
	}
	network, _ := addr.Prefix(bits)
	return network
}

// proxyPerson returns the person that the proxy's headers name. It refuses a header that comes twice, because one of them
// may be the browser's.
func (s *Server) proxyPerson(r *http.Request) (*person, error) {
	if !s.fromProxy(peer(r)) {
		return nil, forbidden("This console can only be entered through its proxy: " +
			"your address is not in WALHOOK_PROXY_NETWORKS.")
	}
	userHeader, groupsHeader := s.cfg.Proxy.UserHeader, s.cfg.Proxy.GroupsHeader
	users, groups := r.Header.Values(userHeader), r.Header.Values(groupsHeader)
	if len(users) > 1 || len(groups) > 1 {
		return nil, forbidden("The proxy sent " + userHeader + " or " + groupsHeader + " twice. " +
			"It must replace those that the browser sends.")
	}
	if len(users) == 0 || strings.TrimSpace(users[0]) == "" {
		return nil, forbidden("The proxy did not say who you are: it sent no " + userHeader + ".")
	}
	name := strings.TrimSpace(users[0])
	if len(name) > longestName || !utf8.ValidString(name) {
		return nil, forbidden("The proxy sent a name that is too long, or not in UTF-8, in " + userHeader + ".")
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

// groupRole returns the role that the groups map to, "" for none.
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
