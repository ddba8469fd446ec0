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
type Config struct {
	DatabaseURL databaseURL `envconfig:"DATABASE_URL"`
	StoreURL    databaseURL `envconfig:"STORE_URL"`
	Slot        string      `envconfig:"SLOT" default:"walhook"`
	Publication string      `envconfig:"PUBLICATION" default:"walhook"`
	Publish     string      `envconfig:"PUBLISH" default:"all"`

	RespondentTable        string `envconfig:"RESPONDENT_TABLE" default:"public.respondent"`
	RespondentID           string `envconfig:"RESPONDENT_ID" default:"id"`
	RespondentAssessment   string `envconfig:"RESPONDENT_ASSESSMENT" default:"assessment_id"`
	RespondentOrganization string `envconfig:"RESPONDENT_ORGANIZATION"`
	Started                string `envconfig:"STARTED" default:"started_at"`
	Finished               string `envconfig:"FINISHED" default:"finished_at"`
	FinishStamp            string `envconfig:"FINISH_STAMP"`
	AssessmentTable        string `envconfig:"ASSESSMENT_TABLE"`
	AssessmentID           string `envconfig:"ASSESSMENT_ID" default:"id"`
	AssessmentExternalID   string `envconfig:"ASSESSMENT_EXTERNAL_ID" default:"external_id"`
	AssessmentCopiedFrom   string `envconfig:"ASSESSMENT_COPIED_FROM"`

	AutoAttach          bool       `envconfig:"AUTO_ATTACH" default:"false"`
	Listen              string     `envconfig:"LISTEN" default:"127.0.0.1:9464"`
	DeliveryTimeout     duration   `envconfig:"DELIVERY_TIMEOUT" default:"15s"`
	Concurrency         int        `envconfig:"CONCURRENCY" default:"64"`
	EndpointConcurrency int        `envconfig:"ENDPOINT_CONCURRENCY" default:"8"`
	RetryBase           duration   `envconfig:"RETRY_BASE" default:"5s"`
	RetryCap            duration   `envconfig:"RETRY_CAP" default:"12h"`
	MaxAttempts         int        `envconfig:"MAX_ATTEMPTS" default:"16"`
	DisableAfter        duration   `envconfig:"DISABLE_AFTER" default:"120h"`
	AllowNetworks       Networks   `envconfig:"ALLOW_NETWORKS"`
	CAFile              string     `envconfig:"CA_FILE"`
	Retention           duration   `envconfig:"RETENTION" default:"0"`
	MaxSlotLag          byteSize   `envconfig:"MAX_SLOT_LAG" default:"0"`
	LogLevel            slog.Level `envconfig:"LOG_LEVEL" default:"info"`
	LogFormat           string     `envconfig:"LOG_FORMAT" default:"text"`

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

// shortLine bounds what is repeated of a value, in bytes.
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
func ReadConfig() (*Config, error) {
	cfg := &Config{}
	if err := envconfig.Process(Prefix, cfg); err != nil {
		return nil, asConfigError(err)
	}
	if err := cfg.check(); err != nil {
		return nil, err
	}
	return cfg, nil
}

// asConfigError says of envconfig's error what a person needs: envconfig repeats the value, which may hold a password.
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

// unknownVariables warns of variables that begin with WALHOOK_ and mean nothing, such as a misspelt one.
func unknownVariables() []string {
	// The completion of shells has these two of its own.
	known := map[string]bool{Prefix + "_ACTIVE_HELP": true, Prefix + "_COMPLETION_DESCRIPTIONS": true}
	for _, v := range Variables {
		known[Prefix+"_"+v.Name] = true
	}
	var warnings []string
	for _, entry := range os.Environ() {
		name, _, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, Prefix+"_") || known[name] || strings.HasPrefix(name, Prefix+"_TEST_") {
			continue
		}
		warning := name + " is no variable of walhook and is ignored"
		if near := cdc.Nearest(name, slices.Collect(maps.Keys(known))); near != "" {
			warning += "; is " + near + " meant?"
		}
		warnings = append(warnings, warning)
	}
	return warnings
}

// Networks is a list of CIDRs.
type Networks []netip.Prefix
