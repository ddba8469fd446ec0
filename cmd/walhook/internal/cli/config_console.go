package cli

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/net/http/httpguts"

	"walhook/console"
)

// secretVariables hold a secret. Each may be given as a file's path, in the variable with fileSuffix behind its name.
var secretVariables = []string{"DATABASE_URL", "STORE_URL", "OIDC_CLIENT_SECRET"}

const fileSuffix = "_FILE"

// readSecretFiles sets the variables whose values are in files.
func readSecretFiles() error {
	for _, name := range secretVariables {
		file := os.Getenv(Prefix + "_" + name + fileSuffix)
		if file == "" {
			continue
		}
		bad := func(accepted string) error {
			return &ConfigError{Variable: name + fileSuffix, Value: shownPath(file), Accepted: accepted}
		}
		if os.Getenv(Prefix+"_"+name) != "" {
			return bad("only without WALHOOK_" + name)
		}
		content, err := readSecret(file)
		if err != nil {
			return bad("a file that can be read: " + err.Error())
		}
		value := strings.TrimRight(content, "\r\n")
		if strings.TrimSpace(value) == "" || strings.ContainsAny(value, "\x00\r\n") {
			return bad("a file that holds the value of WALHOOK_" + name + " in one line")
		}
		if err := os.Setenv(Prefix+"_"+name, value); err != nil {
			return fmt.Errorf("set WALHOOK_%s from its file: %w", name, err)
		}
	}
	return nil
}

// longestSecret bounds the size of a file with a secret, in bytes.
const longestSecret = 64 << 10

// readSecret returns what the file holds. Its error does not repeat the path.
func readSecret(path string) (string, error) {
	file, err := os.Open(path)
	var content []byte
	if err == nil {
		defer file.Close()
		content, err = io.ReadAll(io.LimitReader(file, longestSecret+1))
	}
	var failed *os.PathError
	switch {
	case errors.As(err, &failed):
		return "", failed.Err
	case err == nil && len(content) > longestSecret:
		return "", fmt.Errorf("it has more than %d bytes", longestSecret)
	}
	return string(content), err
}

// shownPath is a path as it may be shown: somebody may have set the secret itself.
func shownPath(path string) string {
	_, err := os.Stat(filepath.Dir(path))
	if err != nil || !strings.ContainsRune(path, os.PathSeparator) || strings.ContainsAny(path, "@:") {
		return "(hidden, since it may be the secret itself)"
	}
	return quoted(path)
}

const consoleURLAccepted = "an address such as https://walhook.example.com, with no path"

// checkConsole checks each of the console's values by itself.
func (c *Config) checkConsole() error {
	bad := func(variable, value, accepted string) error {
		return &ConfigError{Variable: variable, Value: value, Accepted: accepted}
	}
	if _, port, err := net.SplitHostPort(c.ConsoleListen); err != nil || !validPort(port) {
		return bad("CONSOLE_LISTEN", quoted(c.ConsoleListen), "host:port, such as 127.0.0.1:8464 or :8464")
	}
	if c.ConsoleURL != "" {
		switch u, err := url.Parse(c.ConsoleURL); {
		case strings.Contains(c.ConsoleURL, "@"):
			return bad("CONSOLE_URL", "(hidden, since it may hold a password)", consoleURLAccepted)
		case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "",
			strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
			return bad("CONSOLE_URL", quoted(c.ConsoleURL), consoleURLAccepted)
		}
	}
	switch c.ConsoleLogin {
	case console.LoginDatabase, console.LoginOIDC, console.LoginProxy:
	default:
		return bad("CONSOLE_LOGIN", quoted(c.ConsoleLogin), "database, oidc or proxy")
	}
	u, err := url.Parse(c.OIDCIssuer)
	if c.OIDCIssuer != "" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil) {
		return bad("OIDC_ISSUER", quoted(c.OIDCIssuer), "an address such as https://id.example.com/realms/main")
	}
	if strings.TrimSpace(c.OIDCGroupsClaim) == "" {
		return bad("OIDC_GROUPS_CLAIM", quoted(c.OIDCGroupsClaim), "the name of a claim, such as groups")
	}
	for _, h := range []struct{ variable, value string }{
		{"PROXY_USER_HEADER", c.ProxyUserHeader}, {"PROXY_GROUPS_HEADER", c.ProxyGroupsHeader},
	} {
		if !httpguts.ValidHeaderFieldName(h.value) {
			return bad(h.variable, quoted(h.value), "the name of a header")
		}
	}
	if http.CanonicalHeaderKey(c.ProxyGroupsHeader) == http.CanonicalHeaderKey(c.ProxyUserHeader) {
		return bad("PROXY_GROUPS_HEADER", quoted(c.ProxyGroupsHeader), "a header other than WALHOOK_PROXY_USER_HEADER")
	}
	return nil
}

// checkForConsole is check for walhook console, which needs the store alone and what its login needs.
func (c *Config) checkForConsole() error {
	missing := func(variable, accepted string) error { return &ConfigError{Variable: variable, Accepted: accepted} }
	if c.storeURL() == "" {
		return missing("STORE_URL", databaseURLAccepted)
	}
	if err := c.checkValues(); err != nil {
		return err
	}
	switch c.ConsoleLogin {
	case console.LoginOIDC:
		for _, v := range []struct{ name, value, accepted string }{
			{"OIDC_ISSUER", c.OIDCIssuer, "WALHOOK_CONSOLE_LOGIN=oidc needs the address of the provider"},
			{"OIDC_CLIENT_ID", c.OIDCClientID, "WALHOOK_CONSOLE_LOGIN=oidc needs the console's client ID at the provider"},
			{"OIDC_CLIENT_SECRET", c.OIDCClientSecret, "WALHOOK_CONSOLE_LOGIN=oidc needs the console's client secret at the provider"},
		} {
			if v.value == "" {
				return missing(v.name, v.accepted)
			}
		}
	case console.LoginProxy:
		if len(c.ProxyNetworks) == 0 {
			return missing("PROXY_NETWORKS", "WALHOOK_CONSOLE_LOGIN=proxy needs the CIDRs of the proxy, such as 10.1.2.3/32")
		}
	default:
		return nil
	}
	if len(c.AdminGroups) == 0 && len(c.ViewerGroups) == 0 {
		return missing("ADMIN_GROUPS", "WALHOOK_CONSOLE_LOGIN="+c.ConsoleLogin+
			" needs the groups of administrators, or those of viewers in WALHOOK_VIEWER_GROUPS")
	}
	return nil
}

// console is the configuration of package console.
func (c *Config) console() console.Config {
	cfg := console.Config{
		Listen: c.ConsoleListen, StoreURL: c.storeURL(), Login: c.ConsoleLogin, AdminGroups: c.AdminGroups, ViewerGroups: c.ViewerGroups,
		OIDC:    console.OIDC{Issuer: c.OIDCIssuer, ClientID: c.OIDCClientID, ClientSecret: c.OIDCClientSecret, GroupsClaim: strings.TrimSpace(c.OIDCGroupsClaim)},
		Proxy:   console.Proxy{Networks: c.ProxyNetworks, UserHeader: c.ProxyUserHeader, GroupsHeader: c.ProxyGroupsHeader},
		Version: Version(),
	}
	if c.ConsoleURL != "" {
		cfg.URL, _ = url.Parse(strings.TrimRight(c.ConsoleURL, "/")) // checkConsole has parsed it
	}
	return cfg
}
