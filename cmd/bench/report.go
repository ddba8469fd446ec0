package main

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"
)

// Result is one line of the table.
type Result struct {
	Name     string  `json:"name"`
	Baseline string  `json:"baseline"`          // what it is compared with
	Against  float64 `json:"against,omitempty"` // the baseline's figure
	Value    float64 `json:"value"`             // walhook's
	Unit     string  `json:"unit"`
	Ratio    float64 `json:"ratio,omitempty"`  // walhook's to the baseline's
	Target   float64 `json:"target,omitempty"` // of the ratio, or of the value if there is no baseline
	AtMost   bool    `json:"at_most"`          // the target is a ceiling
	Note     string  `json:"note,omitempty"`
}

// against returns a result with a baseline.
func against(name, baseline, unit string, baselineValue, value, target float64, atMost bool) Result {
	return Result{Name: name, Baseline: baseline, Unit: unit, Against: baselineValue, Value: value, Ratio: value / baselineValue, Target: target, AtMost: atMost}
}

// met reports whether the target is met, or "" if there is none.
func (r *Result) met() string {
	figure := r.Ratio
	if r.Baseline == "" {
		figure = r.Value
	}
	switch {
	case r.Target == 0:
		return ""
	case r.AtMost == (figure <= r.Target):
		return "met"
	default:
		return "MISSED"
	}
}

// Report is one run.
type Report struct {
	At      time.Time `json:"at"`
	Machine string    `json:"machine"`
	Server  string    `json:"server"`
	Scale   float64   `json:"scale"`
	Results []Result  `json:"results"`
}

func (r *Report) print(out io.Writer) error {
	fmt.Fprintf(out, "%s, %s, %s, scale %g\n\n", r.At.Format("2006-01-02"), r.Machine, r.Server, r.Scale)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "measurement\tbaseline\tits figure\twalhook\tunit\tratio\ttarget\t")
	for i := range r.Results {
		result := &r.Results[i]
		target := ""
		if result.Target != 0 {
			sign := ">="
			if result.AtMost {
				sign = "<="
			}
			target = fmt.Sprintf("%s %s %s", sign, figure(result.Target), result.met())
		}
		baseline, ratio := "", ""
		if result.Baseline != "" {
			baseline, ratio = figure(result.Against), fmt.Sprintf("%.2f", result.Ratio)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", result.Name, result.Baseline, baseline, figure(result.Value), result.Unit, ratio, target, result.Note)
	}
	return w.Flush()
}

// figure formats a number with its significant digits.
func figure(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.2f", v)
	}
}

// machine describes the machine.
func machine() string {
	text := fmt.Sprintf("%s/%s, %d cores, %s", runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version())
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return text
	}
	for line := range strings.Lines(string(info)) {
		if name, model, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return text + ", " + strings.TrimSpace(model)
		}
	}
	return text
}
