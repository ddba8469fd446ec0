package cli

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/kelseyhightower/envconfig"

	"walhook/cdc"
	"walhook/cdc/catalog"
)

// Config is the configuration, read from variables that begin with WALHOOK_. Types that check themselves say what is accepted.
// The fields' names are those of the variables: envconfig would look up a name in a tag without the prefix as well.
type Config struct {
	DatabaseURL databaseURL `split_words:"true"`
	StoreURL    databaseURL `split_words:"true"`
	Slot        string      `split_words:"true" default:"walhook"`
	Publication string      `split_words:"true" default:"walhook"`
	Publish     string      `split_words:"true" default:"all"`

	RespondentTable        string `split_words:"true" default:"public.respondent"`
	RespondentID           string `split_words:"true" default:"id"`
	RespondentAssessment   string `split_words:"true" default:"assessment_id"`
	RespondentOrganization string `split_words:"true"`
	RespondentWhere        string `split_words:"true"`
	Started                string `split_words:"true" default:"started_at"`
	Finished               string `split_words:"true" default:"finished_at"`
	FinishStamp            string `split_words:"true"`
	AssessmentTable        string `split_words:"true"`
	AssessmentID           string `split_words:"true" default:"id"`
	AssessmentExternalID   string `split_words:"true" default:"external_id"`
	AssessmentCopiedFrom   string `split_words:"true"`
	AssessmentOrganization string `split_words:"true"`
	AssessmentName         string `split_words:"true"`

	AutoAttach          bool       `split_words:"true" default:"false"`
	Listen              string     `split_words:"true" default:"127.0.0.1:9464"`
	DeliveryTimeout     duration   `split_words:"true" default:"15s"`
	Concurrency         int        `split_words:"true" default:"64"`
	EndpointConcurrency int        `split_words:"true" default:"8"`
	RetryBase           duration   `split_words:"true" default:"5s"`
	RetryCap            duration   `split_words:"true" default:"12h"`
	MaxAttempts         int        `split_words:"true" default:"16"`
	DisableAfter        duration   `split_words:"true" default:"120h"`
	AllowNetworks       Networks   `split_words:"true"`
	CAFile              string     `split_words:"true"`
	Retention           duration   `split_words:"true" default:"0"`
	MaxSlotLag          byteSize   `split_words:"true" default:"0"`
	ConsoleListen       string     `split_words:"true" default:"127.0.0.1:8464"`
	ConsoleURL          string     `split_words:"true"`
	ConsoleLogin        string     `split_words:"true" default:"database"`
	OIDCIssuer          string     `split_words:"true"`
	OIDCClientID        string     `split_words:"true"`
	OIDCClientSecret    string     `split_words:"true"`
	OIDCGroupsClaim     string     `split_words:"true" default:"groups"`
	ProxyNetworks       Networks   `split_words:"true"`
	ProxyUserHeader     string     `split_words:"true" default:"X-Forwarded-User"`
	ProxyGroupsHeader   string     `split_words:"true" default:"X-Forwarded-Groups"`
	AdminGroups         list       `split_words:"true"`
	ViewerGroups        list       `split_words:"true"`
	LogLevel            slog.Level `split_words:"true" default:"info"`
	LogFormat           string     `split_words:"true" default:"text"`

	mapped cdc.Mapping
}

func (c *Config) sourceURL() string { return string(c.DatabaseURL) }

func (c *Config) storeURL() string {
	if c.StoreURL == "" {
		return string(c.DatabaseURL)
	}
	return string(c.StoreURL)
}

func (c *Config) mapping() cdc.Mapping { return c.mapped }

func (c *Config) target() catalog.Target {
	return catalog.Target{Slot: c.Slot, Publication: c.Publication, Publish: c.Publish, Mapping: c.mapped}
}

// ConfigError is a missing, malformed or contradictory value: one line that names the variable, the value and what is accepted.
type ConfigError struct {
	Variable string // without the prefix
	Value    string // as it may be shown; empty: missing
	Accepted string
	Place    string // further lines that show where the mistake is, or ""
}

func (e *ConfigError) Error() string {
	accepted := oneLine(e.Accepted, shortLine)
	if e.Value == "" {
		return fmt.Sprintf("WALHOOK_%s is not set: %s", e.Variable, accepted)
	}
	message := fmt.Sprintf("WALHOOK_%s=%s is not accepted: %s", e.Variable, oneLine(e.Value, shortLine), accepted)
	if e.Place != "" {
		message += "\n" + e.Place
	}
	return message
}

// shortLine bounds how much of a value an error repeats, in bytes.
const shortLine = 200

// oneLine keeps control characters from breaking the line, and the line from growing beyond the limit in bytes.
func oneLine(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
	if len(s) > limit {
		s = strings.ToValidUTF8(s[:limit], "") + "..."
	}
	return s
}

// Prefix begins the names of all variables.
const Prefix = "WALHOOK"

// ReadConfig reads and checks the environment.
func ReadConfig() (*Config, error) { return readConfig((*Config).check) }

func readConfig(check func(*Config) error) (*Config, error) {
	cfg := &Config{}
	if err := unsetEmpty(); err != nil {
		return nil, err
	}
	if err := readSecretFiles(); err != nil {
		return nil, err
	}
	if err := envconfig.Process(Prefix, cfg); err != nil {
		return nil, asConfigError(err)
	}
	if err := check(cfg); err != nil {
		return nil, err
	}
	return cfg, nil
}

// unsetEmpty unsets variables that are set to nothing, as Compose files do: they have their defaults.
func unsetEmpty() error {
	for _, v := range Variables {
		if value, set := os.LookupEnv(Prefix + "_" + v.Name); set && value == "" {
			if err := os.Unsetenv(Prefix + "_" + v.Name); err != nil {
				return fmt.Errorf("unset WALHOOK_%s, which is empty: %w", v.Name, err)
			}
		}
	}
	return nil
}

// asConfigError returns envconfig's error without the value, which may contain a password.
func asConfigError(err error) error {
	var parse *envconfig.ParseError
	if !errors.As(err, &parse) {
		return &ConfigError{Variable: "?", Value: "?", Accepted: err.Error()}
	}
	name := strings.TrimPrefix(parse.KeyName, Prefix+"_")
	var shown *valueError
	if errors.As(parse.Err, &shown) {
		return &ConfigError{Variable: name, Value: shown.value, Accepted: shown.accepted}
	}
	accepted := map[string]string{
		"int":        "a whole number",
		"bool":       "true or false",
		"slog.Level": "debug, info, warn or error",
	}[parse.TypeName]
	if accepted == "" {
		accepted = "see walhook help environment"
	}
	return &ConfigError{Variable: name, Value: parse.Value, Accepted: accepted}
}

// unknownVariables returns warnings of unknown variables that begin with WALHOOK_, such as misspelled ones.
func unknownVariables() []string {
	// cobra reads these two for shell completion.
	known := map[string]bool{"ACTIVE_HELP": true, "COMPLETION_DESCRIPTIONS": true}
	for _, v := range Variables {
		known[v.Name] = true
	}
	for _, name := range secretVariables {
		known[name+fileSuffix] = true
	}
	var warnings []string
	for _, entry := range os.Environ() {
		variable, _, _ := strings.Cut(entry, "=")
		name, ours := strings.CutPrefix(variable, Prefix+"_")
		if !ours || known[name] || strings.HasPrefix(name, "TEST_") {
			continue
		}
		warning := variable + " is not a walhook variable and is ignored"
		if near := cdc.Nearest(name, slices.Collect(maps.Keys(known))); near != "" {
			warning += "; is " + Prefix + "_" + near + " meant?"
		}
		warnings = append(warnings, warning)
	}
	return warnings
}

// Networks is a list of CIDRs.
type Networks []netip.Prefix
