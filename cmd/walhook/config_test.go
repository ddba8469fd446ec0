package main

import (
	"bytes"
	"context"
	"os"
	"strings"
	"testing"
)

// These tests change the process's environment, so they do not run in parallel.

func configured(t *testing.T, pairs ...string) (*Config, error) {
	t.Helper()
	for _, v := range variables {
		t.Setenv(prefix+"_"+v.name, "")
		if err := os.Unsetenv(prefix + "_" + v.name); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("WALHOOK_DATABASE_URL", "postgres://app:hunter2@db/app")
	for i := 0; i < len(pairs); i += 2 {
		t.Setenv(prefix+"_"+pairs[i], pairs[i+1])
	}
	return readConfig()
}

func TestConfigDefaults(t *testing.T) {
	cfg, err := configured(t)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.storeURL() != cfg.sourceURL() || cfg.Slot != "walhook" || cfg.Publication != "walhook" || cfg.Publish != "all" || cfg.Listen != "127.0.0.1:9464" {
		t.Errorf("defaults: %+v", cfg)
	}
	m := cfg.mapping()
	if m.Respondent.Display() != "public.respondent" || m.ID != "id" || m.StampColumn() != "finished_at" || m.HasAssessmentTable() {
		t.Errorf("mapping: %+v", m)
	}
	if cfg.Concurrency != 64 || cfg.EndpointConcurrency != 8 || cfg.MaxAttempts != 16 || cfg.RetryBase.String() != "5s" ||
		cfg.RetryCap.String() != "12h0m0s" || cfg.DisableAfter.String() != "120h0m0s" || cfg.DeliveryTimeout.String() != "15s" || cfg.Retention != 0 {
		t.Errorf("limits: %+v", cfg)
	}
}

func TestConfigRefusesInOneLine(t *testing.T) {
	for _, c := range []struct{ name, value, accepted string }{
		{"DATABASE_URL", "postgres://app:hunter2@db:notaport/app", "connection string"},
		{"STORE_URL", "mysql://root:hunter2@db/app", "connection string"},
		{"SLOT", "Bad-Name", "lower-case"},
		{"PUBLISH", "some", "all or mapped"},
		{"RESPONDENT_TABLE", "a.b.c", "schema.table"},
		{"RESPONDENT_ID", "", "name of a column"},
		{"FINISHED", "status=", "marker"},
		{"ASSESSMENT_COPIED_FROM", "copied_from", "WALHOOK_ASSESSMENT_TABLE"},
		{"AUTO_ATTACH", "perhaps", "true or false"},
		{"LISTEN", "9464", "host:port"},
		{"DELIVERY_TIMEOUT", "15", "duration"},
		{"DELIVERY_TIMEOUT", "-1s", "duration"},
		{"CONCURRENCY", "0", "from 1"},
		{"CONCURRENCY", "many", "whole number"},
		{"ENDPOINT_CONCURRENCY", "-1", "from 1"},
		{"RETRY_BASE", "24h", "WALHOOK_RETRY_CAP"},
		{"MAX_ATTEMPTS", "0", "from 1"},
		{"ALLOW_NETWORKS", "10.0.0.0/33", "CIDR"},
		{"RETENTION", "-1h", "duration"},
		{"MAX_SLOT_LAG", "much", "10GB"},
		{"LOG_LEVEL", "loud", "debug"},
		{"LOG_FORMAT", "xml", "json"},
	} {
		t.Run(c.name+"="+c.value, func(t *testing.T) {
			_, err := configured(t, c.name, c.value)
			if err == nil {
				t.Fatal("it is accepted")
			}
			text := err.Error()
			if !strings.Contains(text, "WALHOOK_"+c.name) || !strings.Contains(text, c.accepted) {
				t.Errorf("the error is not about it: %s", text)
			}
			if strings.Contains(text, "\n") || strings.Contains(text, "hunter2") {
				t.Errorf("the error has several lines or a password: %q", text)
			}
			var out, errOut bytes.Buffer
			if status := run(context.Background(), []string{"plan"}, os.LookupEnv, &out, &errOut); status != exitUsage {
				t.Errorf("status %d: %s", status, errOut.String())
			}
		})
	}
}

func TestBadUsage(t *testing.T) {
	for _, args := range [][]string{{}, {"nonsense"}, {"run", "surplus"}, {"attach", "--no-such-flag"}} {
		var out, errOut bytes.Buffer
		if status := run(context.Background(), args, os.LookupEnv, &out, &errOut); status != exitUsage {
			t.Errorf("walhook %v: status %d: %s", args, status, errOut.String())
		}
	}
	for _, args := range [][]string{{"--help"}, {"version"}, {"help", "environment"}, {"run", "--help"}} {
		var out, errOut bytes.Buffer
		if status := run(context.Background(), args, os.LookupEnv, &out, &errOut); status != exitOK || out.Len() == 0 {
			t.Errorf("walhook %v: status %d: %s", args, status, errOut.String())
		}
	}
}

func FuzzConfig(f *testing.F) {
	f.Add("postgres://app:hunter2@db/app", "public.respondent", "status=done|closed", "10.0.0.0/8", "5s", "10GB")
	f.Add("host=db password=hunter2 \n", `"a"."b`, `"x"=`, "::1", "-1", "1e9TB")
	f.Fuzz(func(t *testing.T, url, table, marker, networks, duration, size string) {
		for _, value := range []string{url, table, marker, networks, duration, size} {
			if strings.ContainsRune(value, 0) {
				return // the environment cannot hold it
			}
		}
		_, err := configured(t, "DATABASE_URL", url, "RESPONDENT_TABLE", table, "FINISHED", marker, "ALLOW_NETWORKS", networks,
			"RETRY_BASE", duration, "MAX_SLOT_LAG", size)
		if err != nil && strings.ContainsAny(err.Error(), "\n\r") {
			t.Errorf("the error has several lines: %q", err)
		}
	})
}
