package cli

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"walhook/cmd/walhook/internal/harness"
)

// These tests change the process's environment, so they do not run in parallel.

func configured(t *testing.T, pairs ...string) (*Config, error) {
	t.Helper()
	names := make([]string, len(Variables))
	for i, v := range Variables {
		names[i] = v.Name
	}
	harness.SetOnly(t, names, append([]string{"DATABASE_URL", "postgres://app:hunter2@db/app"}, pairs...)...)
	return ReadConfig()
}

// Every variable has its default, in the order of the documentation.
func TestConfigDefaults(t *testing.T) {
	cfg, err := configured(t)
	if err != nil {
		t.Fatal(err)
	}
	const url = "postgres://app:hunter2@db/app"
	want := map[string]any{
		"DATABASE_URL": url, "STORE_URL": url, "SLOT": "walhook", "PUBLICATION": "walhook", "PUBLISH": "all",
		"RESPONDENT_TABLE": "public.respondent", "RESPONDENT_ID": "id", "RESPONDENT_ASSESSMENT": "assessment_id", "RESPONDENT_ORGANIZATION": "", "RESPONDENT_WHERE": "",
		"STARTED": "started_at", "FINISHED": "finished_at", "FINISH_STAMP": "finished_at",
		"ASSESSMENT_TABLE": false, "ASSESSMENT_ID": "id", "ASSESSMENT_EXTERNAL_ID": "external_id", "ASSESSMENT_COPIED_FROM": "",
		"ASSESSMENT_ORGANIZATION": "", "ASSESSMENT_NAME": "",
		"AUTO_ATTACH": false, "LISTEN": "127.0.0.1:9464", "DELIVERY_TIMEOUT": 15 * time.Second, "CONCURRENCY": 64, "ENDPOINT_CONCURRENCY": 8,
		"RETRY_BASE": 5 * time.Second, "RETRY_CAP": 12 * time.Hour, "MAX_ATTEMPTS": 16, "DISABLE_AFTER": 120 * time.Hour,
		"ALLOW_NETWORKS": 0, "CA_FILE": "", "RETENTION": time.Duration(0), "MAX_SLOT_LAG": byteSize(0),
		"CONSOLE_LISTEN": "127.0.0.1:8464", "CONSOLE_URL": "", "CONSOLE_LOGIN": "database", "OIDC_ISSUER": "", "OIDC_CLIENT_ID": "",
		"OIDC_CLIENT_SECRET": "", "OIDC_GROUPS_CLAIM": "groups", "PROXY_NETWORKS": 0, "PROXY_USER_HEADER": "X-Forwarded-User",
		"PROXY_GROUPS_HEADER": "X-Forwarded-Groups", "ADMIN_GROUPS": 0, "VIEWER_GROUPS": 0,
		"LOG_LEVEL": slog.LevelInfo, "LOG_FORMAT": "text",
	}
	m := cfg.mapping()
	got := map[string]any{
		"DATABASE_URL": cfg.sourceURL(), "STORE_URL": cfg.storeURL(), "SLOT": cfg.Slot, "PUBLICATION": cfg.Publication, "PUBLISH": cfg.Publish,
		"RESPONDENT_TABLE": m.Respondent.Display(), "RESPONDENT_ID": m.ID, "RESPONDENT_ASSESSMENT": m.Assessment, "RESPONDENT_ORGANIZATION": m.Organization, "RESPONDENT_WHERE": m.Where.String(),
		"STARTED": cfg.Started, "FINISHED": cfg.Finished, "FINISH_STAMP": strings.Join(m.StampColumns(), ","),
		"ASSESSMENT_TABLE": m.HasAssessmentTable(), "ASSESSMENT_ID": cfg.AssessmentID, "ASSESSMENT_EXTERNAL_ID": cfg.AssessmentExternalID,
		"ASSESSMENT_COPIED_FROM": m.CopiedFrom, "ASSESSMENT_ORGANIZATION": m.AssessmentOrganization, "ASSESSMENT_NAME": m.AssessmentName,
		"AUTO_ATTACH": cfg.AutoAttach, "LISTEN": cfg.Listen, "DELIVERY_TIMEOUT": time.Duration(cfg.DeliveryTimeout), "CONCURRENCY": cfg.Concurrency,
		"ENDPOINT_CONCURRENCY": cfg.EndpointConcurrency, "RETRY_BASE": time.Duration(cfg.RetryBase), "RETRY_CAP": time.Duration(cfg.RetryCap), "MAX_ATTEMPTS": cfg.MaxAttempts,
		"DISABLE_AFTER": time.Duration(cfg.DisableAfter), "ALLOW_NETWORKS": len(cfg.AllowNetworks), "CA_FILE": cfg.CAFile, "RETENTION": time.Duration(cfg.Retention),
		"CONSOLE_LISTEN": cfg.ConsoleListen, "CONSOLE_URL": cfg.ConsoleURL, "CONSOLE_LOGIN": cfg.ConsoleLogin, "OIDC_ISSUER": cfg.OIDCIssuer,
		"OIDC_CLIENT_ID": cfg.OIDCClientID, "OIDC_CLIENT_SECRET": cfg.OIDCClientSecret, "OIDC_GROUPS_CLAIM": cfg.OIDCGroupsClaim,
		"PROXY_NETWORKS": len(cfg.ProxyNetworks), "PROXY_USER_HEADER": cfg.ProxyUserHeader, "PROXY_GROUPS_HEADER": cfg.ProxyGroupsHeader,
		"ADMIN_GROUPS": len(cfg.AdminGroups), "VIEWER_GROUPS": len(cfg.ViewerGroups),
		"MAX_SLOT_LAG": cfg.MaxSlotLag, "LOG_LEVEL": cfg.LogLevel, "LOG_FORMAT": cfg.LogFormat,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("defaults (-want +got):\n%s", diff)
	}
	for _, v := range Variables {
		if _, tested := want[v.Name]; !tested {
			t.Errorf("the default of %s is not tested", v.Name)
		}
	}
}

// A variable that is set to nothing, as Compose files do, is as good as unset.
func TestEmptyVariablesHaveTheirDefaults(t *testing.T) {
	want, err := configured(t)
	if err != nil {
		t.Fatal(err)
	}
	var pairs []string
	for _, v := range Variables {
		if v.Name != "DATABASE_URL" {
			pairs = append(pairs, v.Name, "")
		}
	}
	got, err := configured(t, pairs...)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(want, got) {
		t.Errorf("with empty variables: %+v\nwithout them: %+v", got, want)
	}
}

// Only variables that begin with WALHOOK_ are read, whatever others of the same names the environment has.
func TestUnprefixedVariablesAreIgnored(t *testing.T) {
	want, err := configured(t)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range Variables {
		t.Setenv(v.Name, "nonsense")
	}
	for _, field := range reflect.VisibleFields(reflect.TypeFor[Config]()) {
		t.Setenv(strings.ToUpper(field.Name), "nonsense")
	}
	got, err := configured(t)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(want, got) {
		t.Errorf("with other variables: %+v\nwithout them: %+v", got, want)
	}
	harness.SetOnly(t, []string{"DATABASE_URL"})
	t.Setenv("DATABASE_URL", "postgres://app@db/app")
	if _, err := ReadConfig(); err == nil || !strings.Contains(err.Error(), "WALHOOK_DATABASE_URL is not set") {
		t.Errorf("with DATABASE_URL alone: %v", err)
	}
}

// A variable without a meaning is reported, and a similar one suggested only if it is similar without the prefix.
func TestUnknownVariables(t *testing.T) {
	for name, want := range map[string]string{
		"SLOTT": "WALHOOK_SLOTT is not a walhook variable and is ignored; is WALHOOK_SLOT meant?",
		"FOO":   "WALHOOK_FOO is not a walhook variable and is ignored",
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("WALHOOK_"+name, "x")
			if got := strings.Join(unknownVariables(), "\n"); got != want {
				t.Errorf("%q, not %q", got, want)
			}
		})
	}
}

// Wherever a duration is accepted, so are days and weeks.
func TestDurationsInDaysAndWeeks(t *testing.T) {
	const day = 24 * time.Hour
	for text, want := range map[string]time.Duration{
		"90d": 90 * day, "2w": 14 * day, "1w2d12h": 9*day + 12*time.Hour, "1.5d": 36 * time.Hour, "12h1d": 36 * time.Hour, "+1d": day, ".5w": 84 * time.Hour,
		"1d500ms": day + 500*time.Millisecond,
	} {
		for _, name := range []string{"DELIVERY_TIMEOUT", "RETRY_CAP", "DISABLE_AFTER", "RETENTION"} {
			cfg, err := configured(t, name, text)
			if err != nil {
				t.Errorf("%s: %v", text, err)
				continue
			}
			got := map[string]duration{"DELIVERY_TIMEOUT": cfg.DeliveryTimeout, "RETRY_CAP": cfg.RetryCap, "DISABLE_AFTER": cfg.DisableAfter, "RETENTION": cfg.Retention}[name]
			if time.Duration(got) != want {
				t.Errorf("%s=%s is %s, not %s", name, text, &got, want)
			}
		}
	}
	cfg, err := configured(t, "RETRY_BASE", "1d", "RETRY_CAP", "2w")
	if err != nil || time.Duration(cfg.RetryBase) != day {
		t.Errorf("RETRY_BASE=1d: %v", err)
	}
}

// Every bad value is one line on stderr that names the variable, the value but never a secret, and what is accepted; status 2.
func TestConfigRefusesInOneLine(t *testing.T) {
	const assessments = "public.assessment"
	cases := []struct{ name, value, shown, accepted, table string }{
		{"DATABASE_URL", "", "not set", "connection string", ""},
		{"DATABASE_URL", "postgres://app:hunter2@db:notaport/app", "hidden", "connection string", ""},
		{"DATABASE_URL", "host=db password=hunter2 port=many", "hidden", "connection string", ""},
		{"DATABASE_URL", "postgres://app:hunter2@x/y@db:5432/app", "hidden", "%40", ""},
		{"STORE_URL", "postgresql://app:x@hunter2@db/app?sslmode=require", "hidden", "%40", ""},
		{"DATABASE_URL", "postgres://app:hunter2@db/app?sslmode=verify-full&sslrootcert=/no/such.pem", "postgres://db/...", "unable to read CA file: open /no/such.pem: no such file or directory", ""},
		{"DATABASE_URL", "postgres://app:hunter2@db/app?sslmode=sometimes", "postgres://db/...", "sslmode is invalid", ""},
		{"STORE_URL", "postgres://app:hunter2/x@db/app", "hidden", "invalid port; give", ""},
		{"STORE_URL", "postgres://app:hunter2@db/app?service=nowhere", "postgres://db/...", "service", ""},
		{"DATABASE_URL", " ", `" "`, "connection string", ""},
		{"STORE_URL", "\t", `"\t"`, "connection string", ""},
		{"STORE_URL", "mysql://root:hunter2@db/app", "mysql://db/...", "connection string", ""},
		{"SLOT", "Bad-Name", "Bad-Name", "lower-case", ""},
		{"PUBLICATION", strings.Repeat("p", 64), "pppp", "63 bytes", ""},
		{"PUBLISH", "some", "some", "all or mapped", ""},
		{"RESPONDENT_TABLE", "a.b.c", "a.b.c", "schema.table", ""},
		{"RESPONDENT_ID", `"open`, "open", "name of a column", ""},
		{"RESPONDENT_ASSESSMENT", `"open`, "open", "name of a column", ""},
		{"RESPONDENT_ORGANIZATION", `"open`, "open", "name of a column", ""},
		{"RESPONDENT_WHERE", "=yes", "=yes", "a condition is a column", ""},
		{"STARTED", "=yes", "=yes", "a condition is a column", ""},
		{"FINISHED", "status=", "status=", "a condition is a column", ""},
		{"FINISH_STAMP", `"open`, "open", "name of a column, or several separated by commas", ""},
		{"FINISH_STAMP", `a,,b`, "a,,b", "name of a column, or several separated by commas", ""},
		{"ASSESSMENT_TABLE", "a.b.c", "a.b.c", "schema.table", ""},
		{"ASSESSMENT_TABLE", `respondent`, "respondent", "WALHOOK_RESPONDENT_TABLE", ""},
		{"ASSESSMENT_ID", `"open`, "open", "name of a column", assessments},
		{"ASSESSMENT_EXTERNAL_ID", `"open`, "open", "name of a column", assessments},
		{"ASSESSMENT_COPIED_FROM", `"open`, "open", "name of a column", assessments},
		{"ASSESSMENT_COPIED_FROM", "copied_from", "copied_from", "WALHOOK_ASSESSMENT_TABLE", ""},
		{"ASSESSMENT_ORGANIZATION", `"open`, "open", "name of a column", assessments},
		{"ASSESSMENT_ORGANIZATION", "owner", "owner", "WALHOOK_ASSESSMENT_TABLE", ""},
		{"ASSESSMENT_NAME", `"open`, "open", "name of a column", assessments},
		{"ASSESSMENT_NAME", "title", "title", "WALHOOK_ASSESSMENT_TABLE", ""},
		{"ASSESSMENT_ID", "no", "no", "WALHOOK_ASSESSMENT_TABLE", ""},
		{"ASSESSMENT_EXTERNAL_ID", "code", "code", "WALHOOK_ASSESSMENT_TABLE", ""},
		{"AUTO_ATTACH", "perhaps", "perhaps", "true or false", ""},
		{"LISTEN", "9464", "9464", "host:port", ""},
		{"LISTEN", ":65536", ":65536", "host:port", ""},
		{"DELIVERY_TIMEOUT", "15", "15", "duration", ""},
		{"DELIVERY_TIMEOUT", "-1s", "-1s", "duration", ""},
		{"DELIVERY_TIMEOUT", "soon", "soon", "90d or 2w", ""},
		{"CONCURRENCY", "0", "0", "from 1", ""},
		{"CONCURRENCY", "many", "many", "whole number", ""},
		{"ENDPOINT_CONCURRENCY", "-1", "-1", "from 1", ""},
		{"RETRY_BASE", "0", "=0 is", "1ms or more", ""},
		{"RETRY_BASE", "1440m", "=1440m is", "WALHOOK_RETRY_CAP", ""},
		{"RETRY_CAP", "1000ms", "=1000ms is", "WALHOOK_RETRY_BASE, which is 5s", ""},
		{"RETRY_CAP", "-12h", "=-12h is", "1ms or more", ""},
		{"MAX_ATTEMPTS", "0", "0", "from 1", ""},
		{"DISABLE_AFTER", "-1h", "=-1h is", "never", ""},
		{"DISABLE_AFTER", "never", "never", "duration", ""},
		{"ALLOW_NETWORKS", "10.0.0.0/33", "10.0.0.0/33", "CIDR", ""},
		{"ALLOW_NETWORKS", "10.0.0.0/8,127.0.0.1", "127.0.0.1", "one address is 127.0.0.1/32", ""},
		{"ALLOW_NETWORKS", "::1%eth0", "::1%eth0", "CIDR", ""},
		{"ALLOW_NETWORKS", "10.0.0.0/8\ncorporate", "corporate", "CIDR", ""},
		{"RETENTION", "500ns", "=500ns is", "1ms or more", ""},
		{"DISABLE_AFTER", "1us", "=1us is", "1ms or more", ""},
		{"RETENTION", "-1h", "=-1h is", "for ever", ""},
		{"RETENTION", "-2w", "=-2w is", "for ever", ""},
		{"RETENTION", "90", "90", "90d or 2w", ""},
		{"RETENTION", "d", "d", "90d or 2w", ""},
		{"RETENTION", "1d 12h", "1d 12h", "90d or 2w", ""},
		{"RETENTION", "1d-12h", "1d-12h", "90d or 2w", ""},
		{"RETENTION", "--1d", "--1d", "90d or 2w", ""},
		{"RETENTION", "1.2.3d", "1.2.3d", "90d or 2w", ""},
		{"RETENTION", "3months", "3months", "90d or 2w", ""},
		{"RETENTION", "20000w", "20000w", "90d or 2w", ""},
		{"RETENTION", "15000w15000w", "15000w15000w", "90d or 2w", ""},
		{"MAX_SLOT_LAG", "much", "much", "10GB", ""},
		{"MAX_SLOT_LAG", "10", "10", "512MB", ""},
		{"MAX_SLOT_LAG", "10kB", "10kB", "32MB or more", ""},
		{"CONSOLE_LISTEN", "8464", "8464", "host:port", ""},
		{"CONSOLE_URL", "walhook.example.com", "walhook.example.com", "https://", ""},
		{"CONSOLE_URL", "https://example.com/walhook", "/walhook", "no path", ""},
		{"CONSOLE_URL", "https://me:hunter2@example.com", "hidden", "https://", ""},
		{"CONSOLE_LOGIN", "ldap", "ldap", "database, oidc or proxy", ""},
		{"OIDC_ISSUER", "example.com", "example.com", "https://", ""},
		{"OIDC_GROUPS_CLAIM", " ", `" "`, "name of a claim", ""},
		{"PROXY_NETWORKS", "10.0.0.0/33", "10.0.0.0/33", "CIDR", ""},
		{"PROXY_USER_HEADER", "X Forwarded", "X Forwarded", "name of a header", ""},
		{"PROXY_GROUPS_HEADER", "x-forwarded-user", "x-forwarded-user", "a header other than WALHOOK_PROXY_USER_HEADER", ""},
		{"LOG_LEVEL", "loud", "loud", "debug", ""},
		{"LOG_FORMAT", "xml", "xml", "json", ""},
	}
	// Any text may name a file, a client or a group.
	tested := map[string]bool{"CA_FILE": true, "OIDC_CLIENT_ID": true, "OIDC_CLIENT_SECRET": true, "ADMIN_GROUPS": true, "VIEWER_GROUPS": true}
	for _, c := range cases {
		tested[c.name] = true
		t.Run(c.name+"="+c.value, func(t *testing.T) {
			if _, err := configured(t, "ASSESSMENT_TABLE", c.table, c.name, c.value); err == nil {
				t.Fatal("it is accepted")
			}
			for _, command := range []string{"plan", "attach", "run", "reconcile", "detach", "doctor", "status"} {
				var out, errOut bytes.Buffer
				if status := run(t.Context(), []string{command}, os.LookupEnv, &out, &errOut); status != ExitUsage {
					t.Errorf("%s: status %d", command, status)
				}
				line := errOut.String()
				for _, want := range []string{"WALHOOK_" + c.name, c.shown, c.accepted} {
					if !strings.Contains(line, want) {
						t.Errorf("%s: the line lacks %q: %s", command, want, line)
					}
				}
				if strings.Count(line, "\n") != 1 || !strings.HasSuffix(line, "\n") || strings.Contains(line, "hunter2") || out.Len() != 0 {
					t.Errorf("%s: not one line, or with a password: %q, and %q", command, line, out.String())
				}
			}
		})
	}
	for _, v := range Variables {
		if !tested[v.Name] {
			t.Errorf("no bad value of %s is tested", v.Name)
		}
	}
}

// Every list may have blanks around its commas, as people write it.
func TestListsMayHaveBlanks(t *testing.T) {
	lists := map[string]struct {
		items []string
		read  func(*Config) any
	}{
		"FINISH_STAMP":   {[]string{"finished_at", `"a, b"`}, func(c *Config) any { return c.mapped.StampColumns() }},
		"ALLOW_NETWORKS": {[]string{"10.0.0.0/8", "127.0.0.0/8"}, func(c *Config) any { return c.AllowNetworks }},
		"PROXY_NETWORKS": {[]string{"10.0.0.0/8", "::1/128"}, func(c *Config) any { return c.ProxyNetworks }},
		"ADMIN_GROUPS":   {[]string{"platform admins", "root"}, func(c *Config) any { return c.AdminGroups }},
		"VIEWER_GROUPS":  {[]string{"sales", "Customer support"}, func(c *Config) any { return c.ViewerGroups }},
	}
	for name, l := range lists {
		want, err := configured(t, name, strings.Join(l.items, ","))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if n := reflect.ValueOf(l.read(want)).Len(); n != len(l.items) {
			t.Errorf("%s has %d items", name, n)
		}
		for _, between := range []string{", ", " ,", " , ", ",\t", ",\n  "} {
			for _, around := range []string{"", " ", "\t", "\n"} {
				got, err := configured(t, name, around+strings.Join(l.items, between)+around)
				if err != nil || !reflect.DeepEqual(l.read(got), l.read(want)) {
					t.Errorf("%s with %q and %q: %v", name, between, around, err)
				}
			}
		}
	}
	for _, v := range Variables {
		isList := strings.Contains(v.meaning, "separated by commas") || strings.Contains(v.meaning, "CIDRs")
		if _, tested := lists[v.Name]; isList && !tested && v.Name != "PROXY_GROUPS_HEADER" {
			t.Errorf("%s is a list, and not tested", v.Name)
		}
	}
	for _, field := range reflect.VisibleFields(reflect.TypeFor[Config]()) {
		switch field.Type {
		case reflect.TypeFor[list](), reflect.TypeFor[Networks]():
		default:
			if field.Type.Kind() == reflect.Slice {
				t.Errorf("%s is a list that envconfig splits, with the blanks", field.Name)
			}
		}
	}
}

// A secret may be in a file. What is wrong with the file is one line with status 2, which never shows the secret.
func TestSecretFiles(t *testing.T) {
	const url, hunter = "postgres://app:hunter2@db/app", "hunter2"
	folder := t.TempDir()
	file := func(content string) string {
		t.Helper()
		f, err := os.CreateTemp(folder, "")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteString(content); err != nil {
			t.Fatal(err)
		}
		return f.Name()
	}
	names := []string{}
	for _, v := range Variables {
		names = append(names, v.Name)
	}
	for _, name := range secretVariables {
		names = append(names, name+fileSuffix)
	}
	secrets := map[string]struct {
		value string
		read  func(*Config) string
	}{
		"DATABASE_URL":       {url, (*Config).sourceURL},
		"STORE_URL":          {"postgres://store:hunter2@db/store", (*Config).storeURL},
		"OIDC_CLIENT_SECRET": {" hunter2 ", func(c *Config) string { return c.OIDCClientSecret }},
	}
	for _, name := range secretVariables {
		secret, tested := secrets[name]
		if !tested {
			t.Errorf("%s_FILE is not tested", name)
			continue
		}
		others := func(pairs ...string) []string {
			if name != "DATABASE_URL" {
				pairs = append(pairs, "DATABASE_URL", url)
			}
			return pairs
		}
		for _, end := range []string{"", "\n", "\r\n", "\n\n"} {
			harness.SetOnly(t, names, others(name+fileSuffix, file(secret.value+end))...)
			cfg, err := ReadConfig()
			if err != nil || secret.read(cfg) != secret.value {
				t.Errorf("%s with %q at its end: %v", name, end, err)
			}
		}
		harness.SetOnly(t, names, others(name+fileSuffix, "", name, secret.value)...) // as Compose files leave it
		if cfg, err := ReadConfig(); err != nil || secret.read(cfg) != secret.value {
			t.Errorf("%s with an empty %s_FILE: %v", name, name, err)
		}
		harness.SetOnly(t, names, others(name+fileSuffix, file(secret.value), name, "")...)
		if cfg, err := ReadConfig(); err != nil || secret.read(cfg) != secret.value {
			t.Errorf("%s_FILE with an empty %s: %v", name, name, err)
		}
		good := file(secret.value)
		locked := filepath.Join(folder, "locked-"+name)
		if err := os.Symlink("locked-"+name, locked); err != nil { // root may read whatever its mode is
			t.Fatal(err)
		}
		for what, c := range map[string]struct {
			pairs          []string
			shown, because string
		}{
			"both":                  {[]string{name + fileSuffix, good, name, secret.value}, good, "only without WALHOOK_" + name},
			"missing":               {[]string{name + fileSuffix, folder + "/nothing"}, folder + "/nothing", "no such file"},
			"unreadable":            {[]string{name + fileSuffix, locked}, locked, "a file that can be read"},
			"directory":             {[]string{name + fileSuffix, folder}, folder, "is a directory"},
			"empty":                 {[]string{name + fileSuffix, file("")}, folder, "holds the value of WALHOOK_" + name},
			"newline alone":         {[]string{name + fileSuffix, file("\n")}, folder, "holds the value of WALHOOK_" + name},
			"blank":                 {[]string{name + fileSuffix, file(" \t\n")}, folder, "holds the value of WALHOOK_" + name},
			"several lines":         {[]string{name + fileSuffix, file(secret.value + "\n" + secret.value)}, folder, "in one line"},
			"NUL":                   {[]string{name + fileSuffix, file("hunter2\x00")}, folder, "in one line"},
			"huge":                  {[]string{name + fileSuffix, file(strings.Repeat("hunter2", 10_000))}, folder, "more than 65536 bytes"},
			"endless":               {[]string{name + fileSuffix, "/dev/zero"}, "/dev/zero", "more than 65536 bytes"},
			"the secret itself":     {[]string{name + fileSuffix, secret.value}, "hidden", "no such file"},
			"the secret, as a path": {[]string{name + fileSuffix, "/hunter2/" + secret.value}, "hidden", "no such file"},
		} {
			harness.SetOnly(t, names, others(c.pairs...)...)
			var out, errOut bytes.Buffer
			status := run(t.Context(), []string{"status"}, os.LookupEnv, &out, &errOut)
			line := errOut.String()
			if status != ExitUsage || strings.Count(line, "\n") != 1 || strings.Contains(line, hunter) || out.Len() != 0 ||
				!strings.Contains(line, "WALHOOK_"+name+fileSuffix) || !strings.Contains(line, c.shown) || !strings.Contains(line, c.because) {
				t.Errorf("%s, %s: status %d: %s", name, what, status, line)
			}
		}
	}
	harness.SetOnly(t, names, "DATABASE_URL_FILE", file("postgres://app:hunter2@db:notaport/app\n"))
	if _, err := ReadConfig(); err == nil || strings.Contains(err.Error(), hunter) || !strings.Contains(err.Error(), "WALHOOK_DATABASE_URL") {
		t.Errorf("a bad URL in a file: %v", err)
	}
}

func FuzzConfig(f *testing.F) {
	f.Add("postgres://app:hunter2@db/app", "public.respondent", "status=done|closed", "10.0.0.0/8", "5s", "10GB")
	f.Add("host=db password=hunter2 \n", `"a"."b`, `"x"=`, "::1", "-1", "1e9TB")
	f.Add("", "public.respondent", "state in ('done'\r\n'closed')", "", "", "")
	f.Add("", "public.respondent", "status=done\xd9 \xb5`w|closed", "", "", "")
	f.Fuzz(func(t *testing.T, url, table, marker, networks, duration, size string) {
		for _, value := range []string{url, table, marker, networks, duration, size} {
			if strings.ContainsRune(value, 0) {
				return // the environment cannot hold it
			}
		}
		const secret = "hunter2-of-the-fuzzer"
		if len(url)%2 == 1 { // a good one, so that the other values are reached
			url = "postgres://app:" + secret + "@db/app"
		} else {
			url += " password=" + secret
		}
		_, err := configured(t, "DATABASE_URL", url, "RESPONDENT_TABLE", table, "FINISHED", marker, "ALLOW_NETWORKS", networks,
			"RETRY_BASE", duration, "MAX_SLOT_LAG", size)
		if err == nil {
			return
		}
		message := err.Error()
		if strings.Contains(message, secret) {
			t.Errorf("the error has the password: %q", message)
		}
		var mistake *ConfigError
		if errors.As(err, &mistake) && mistake.Place != "" { // two lines: the text, and a caret below it
			message = strings.TrimSuffix(message, "\n"+mistake.Place)
			text, caret, _ := strings.Cut(mistake.Place, "\n")
			if message == err.Error() || strings.TrimLeft(caret, " ") != "^" || utf8.RuneCountInString(caret) > utf8.RuneCountInString(text)+1 {
				t.Errorf("the place is not two lines at the end of the error: %q", err)
			}
			message += text
		}
		if strings.ContainsAny(message, "\n\r") {
			t.Errorf("the error has several lines: %q", err)
		}
	})
}

// What a variable of PostgreSQL's own, left over in the environment, does to a connection string is said with its name.
func TestConfigNamesStrayVariables(t *testing.T) {
	for name, value := range map[string]string{"PGSSLMODE": "sometimes", "PGSSLROOTCERT": "/no/such.pem", "PGSERVICE": "nowhere", "PGTARGETSESSIONATTRS": "upright", "PGCONNECT_TIMEOUT": "soon"} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(name, value)
			_, err := configured(t, "STORE_URL", "postgres://app:hunter2@db/app")
			if err == nil || !strings.Contains(err.Error(), "because of "+name) || strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "\n") {
				t.Errorf("%v", err)
			}
		})
	}
}

// A mistake in an expression is shown in its place.
func TestBadConditionShowsItsPlace(t *testing.T) {
	t.Setenv("WALHOOK_DATABASE_URL", "postgres://app@db/app")
	t.Setenv("WALHOOK_FINISHED", "state in ('done' 'closed')")
	const want = `WALHOOK_FINISHED="state in ('done' 'closed')" is not accepted: unexpected text: expected a comma or a closing parenthesis
    state in ('done' 'closed')
                     ^`
	if _, err := ReadConfig(); err == nil || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
	t.Setenv("WALHOOK_FINISHED", "state in ('done', 'closed') and submitted > started")
	cfg, err := ReadConfig()
	if err != nil || cfg.mapped.Finished.Expression != "state in ('done', 'closed') and submitted > started" {
		t.Errorf("%+v, %v", cfg, err)
	}
}
