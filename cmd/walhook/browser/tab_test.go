package browser

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
)

// chromium is a browser.
type chromium struct{ ctx context.Context }

// newBrowser starts a browser, which ends with the test.
func newBrowser(t *testing.T) *chromium {
	t.Helper()
	options := append(
		chromedp.DefaultExecAllocatorOptions[:len(chromedp.DefaultExecAllocatorOptions):len(chromedp.DefaultExecAllocatorOptions)],
		chromedp.ExecPath(testenv.Browser(t)),
		chromedp.Flag("disable-gpu", true), chromedp.Flag("hide-scrollbars", true), chromedp.Flag("lang", "en-US"),
		chromedp.WSURLReadTimeout(harness.Patience),
	)
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox)
	}
	allocator, stop := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, _ := chromedp.NewContext(allocator, chromedp.WithErrorf(t.Logf))
	t.Cleanup(func() {
		_ = chromedp.Cancel(ctx) // asks it to end, so that it leaves no files behind
		stop()
	})
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("start the browser: %v", err)
	}
	return &chromium{ctx}
}

// tab is a tab with cookies of its own, which is used as people do: by the words on the page, with mouse or keyboard.
type tab struct {
	t         *testing.T
	ctx       context.Context
	url       string // of the console
	keyboard  bool   // no mouse: controls are found by Tab
	noScripts bool
	mu        sync.Mutex
	said      []string // errors in the browser's console
}

// tab opens a tab, 1280 pixels wide, in light colors.
func (c *chromium) tab(t *testing.T, url string) *tab {
	t.Helper()
	b := &tab{t: t, url: url}
	ctx, cancel := chromedp.NewContext(c.ctx, chromedp.WithNewBrowserContext(), chromedp.WithListener(b.listen))
	t.Cleanup(cancel)
	b.ctx = ctx
	if err := chromedp.Do(ctx); err != nil { // the tab lives as long as this context
		t.Fatalf("open a tab: %v", err)
	}
	b.do(chromedp.EmulateViewport(1280, 900))
	call(b, emulation.SetFocusEmulationEnabled.Method, func(ctx context.Context) error {
		_, err := chromedp.Call(ctx, emulation.SetFocusEmulationEnabled, emulation.SetFocusEmulationEnabledParams{Enabled: true})
		return err
	})
	return b
}

// listen collects what the browser complains about: scripts that fail, and what the content security policy refuses.
func (b *tab) listen(event any) {
	said := ""
	switch e := event.(type) {
	case *log.EventEntryAdded:
		// Of a page whose status is an error, the browser says so, too.
		if e.Entry.Level == log.EntryLevelError && !strings.HasPrefix(e.Entry.Text, "Failed to load resource: the server responded with a status of 4") {
			said = e.Entry.Text
		}
	case *runtime.EventExceptionThrown:
		said = e.ExceptionDetails.Text
		if e.ExceptionDetails.Exception != nil {
			said += " " + e.ExceptionDetails.Exception.Description
		}
	case *runtime.EventConsoleAPICalled:
		said = fmt.Sprint("console: ", e.Type)
	}
	if said == "" {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.said = append(b.said, said)
}

// quiet fails the test if the browser has complained.
func (b *tab) quiet() {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.said) > 0 {
		b.t.Errorf("the browser says: %s", strings.Join(b.said, "\n"))
	}
}

func call(b *tab, what string, do func(context.Context) error) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, harness.Patience)
	defer cancel()
	if err := do(ctx); err != nil {
		b.t.Fatalf("%s: %v", what, err)
	}
}

func (b *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	call(b, "drive the browser", func(ctx context.Context) error { return chromedp.Do(ctx, steps...) })
}

// show sets the width of the window and the color scheme.
func (b *tab) show(width int64, scheme string) {
	b.t.Helper()
	b.do(chromedp.EmulateViewport(width, 900))
	call(b, "set the colors", func(ctx context.Context) error {
		_, err := chromedp.Call(ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
		})
		return err
	})
}

// withoutScripts makes the tab run no script of a page.
func (b *tab) withoutScripts() {
	b.t.Helper()
	b.noScripts = true
	call(b, "disable JavaScript", func(ctx context.Context) error {
		_, err := chromedp.Call(ctx, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
		return err
	})
}

// open loads a path of the console, or another address.
func (b *tab) open(path string) {
	b.t.Helper()
	if strings.HasPrefix(path, "/") {
		path = b.url + path
	}
	b.do(chromedp.Navigate(path))
}

// words defines what these tests find controls by. A control's word is its label, as people read it.
const words = `
	const shown = (e) => e.getClientRects().length > 0;
	const clean = (text) => (text || "").replace(/\s+/g, " ").trim();
	const word = (e) => !e ? "" : clean(e.getAttribute("aria-label") ||
		(e.labels && e.labels.length ? e.labels[0].innerText : e.matches("input, select, textarea") ? "" : e.innerText));
	const controls = () => [...document.querySelectorAll("a[href], button, summary, input:not([type=hidden]), select, textarea")].filter(shown);
	const find = (name) => controls().find((e) => word(e) === name);
`

// eval returns the value of a JavaScript expression, which may use words.
func eval[T any](b *tab, expression string, args ...any) T {
	b.t.Helper()
	value, err := tryEval[T](b, expression, args...)
	if err != nil {
		b.t.Fatalf("evaluate %s: %v", expression, err)
	}
	return value
}

// tryEval is eval for a page that may be replaced meanwhile.
func tryEval[T any](b *tab, expression string, args ...any) (T, error) {
	ctx, cancel := context.WithTimeout(b.ctx, harness.Patience)
	defer cancel()
	return chromedp.Run(ctx, chromedp.Evaluate[T]("(() => {"+words+"return "+fmt.Sprintf(expression, args...)+"})()"))
}

// text returns what the page shows.
func (b *tab) text() string {
	text, err := tryEval[string](b, "clean(document.body.innerText)")
	if err != nil {
		return ""
	}
	return text
}

// sees waits until the page shows all of the texts.
func (b *tab) sees(texts ...string) {
	b.t.Helper()
	for _, text := range texts {
		testenv.Eventually(b.t, harness.Patience, fmt.Sprintf("%q on the page", text), func() (bool, string) {
			got := b.text()
			return strings.Contains(got, text), got
		})
	}
}

// lacks fails the test if the page shows the text.
func (b *tab) lacks(text string) {
	b.t.Helper()
	if got := b.text(); strings.Contains(got, text) {
		b.t.Errorf("%q is on the page: %s", text, got)
	}
}

// at waits for the path of the page.
func (b *tab) at(prefix string) string {
	b.t.Helper()
	path := ""
	testenv.Eventually(b.t, harness.Patience, "the page "+prefix, func() (bool, string) {
		path, _ = tryEval[string](b, "location.pathname + location.search")
		return strings.HasPrefix(path, prefix), path
	})
	return path
}

// reach brings the control with the word into view, and with the keyboard alone moves the focus there.
func (b *tab) reach(name string) {
	b.t.Helper()
	testenv.Eventually(b.t, harness.Patience, "the control "+name, func() (bool, string) {
		there, err := tryEval[bool](b, "document.readyState === 'complete' && !!find(%q)", name)
		return err == nil && there, b.text()
	})
	if !b.keyboard {
		eval[bool](b, "(find(%q).scrollIntoView({block: 'center', behavior: 'instant'}), true)", name)
		return
	}
	for seen := []string{}; ; {
		if eval[bool](b, "document.activeElement === find(%q)", name) {
			if !eval[bool](b, focusIsVisible) {
				b.t.Errorf("nothing shows the focus on %s", name)
			}
			return
		}
		b.key(kb.Tab)
		seen = append(seen, eval[string](b, "word(document.activeElement)"))
		if len(seen) > 300 {
			b.t.Fatalf("Tab does not reach %s: %q", name, seen)
		}
	}
}

// focusIsVisible reports whether the element with the focus is outlined, and within the window.
const focusIsVisible = `((e) => {
	const style = getComputedStyle(e), box = e.getBoundingClientRect();
	return style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 1 && box.bottom > 0 && box.top < innerHeight && box.right > 0 && box.left < innerWidth;
})(document.activeElement)`

func (b *tab) key(keys string, options ...chromedp.KeyOption) {
	b.t.Helper()
	b.do(chromedp.KeyEvent(keys, options...))
}

// press presses a button or a link by its word.
func (b *tab) press(name string) {
	b.t.Helper()
	b.reach(name)
	if b.keyboard {
		b.key(kb.Enter)
		return
	}
	at := eval[[]float64](b, "((r) => [r.left + r.width / 2, r.top + r.height / 2])(find(%q).getClientRects()[0])", name)
	b.do(chromedp.MouseClickXY(at[0], at[1]))
}

// follow presses a button or a link, and waits for the page that it leads to.
func (b *tab) follow(name string) {
	b.t.Helper()
	b.reach(name)
	eval[bool](b, "(document.documentElement.dataset.left = 'yes', true)")
	b.press(name)
	testenv.Eventually(b.t, harness.Patience, "another page after "+name, func() (bool, string) {
		arrived, err := tryEval[bool](b, "document.readyState === 'complete' && !document.documentElement.dataset.left")
		return err == nil && arrived, b.text()
	})
}

// fill replaces what a field holds.
func (b *tab) fill(label, text string) {
	b.t.Helper()
	b.reach(label)
	if b.keyboard {
		b.key("a", chromedp.KeyModifiers(kb.ModifierCtrl))
		b.key(kb.Delete)
		b.key(text)
		return
	}
	eval[bool](b, "(find(%q).focus(), find(%[1]q).select(), true)", label)
	call(b, "type", func(ctx context.Context) error {
		_, err := chromedp.Call(ctx, input.InsertText, input.InsertTextParams{Text: text})
		return err
	})
}

// choose chooses an option of a list.
func (b *tab) choose(label, option string) {
	b.t.Helper()
	b.reach(label)
	if b.keyboard {
		// By arrows: what is typed ahead depends on how fast it comes.
		steps, arrow := eval[int](b, "((e) => [...e.options].findIndex((o) => clean(o.text) === %q) - e.selectedIndex)(find(%q))", option, label), kb.ArrowDown
		if steps < 0 {
			steps, arrow = -steps, kb.ArrowUp
		}
		for range steps {
			b.key(arrow)
		}
	} else {
		eval[bool](b, "((e) => (e.selectedIndex = [...e.options].findIndex((o) => clean(o.text) === %q), true))(find(%q))", option, label)
	}
	if got := b.chosen(label); got != option {
		b.t.Errorf("%s is %q, not %q", label, got, option)
	}
}

// toggle presses a checkbox.
func (b *tab) toggle(label string) {
	b.t.Helper()
	if !b.keyboard {
		b.press(label)
		return
	}
	b.reach(label)
	b.key(" ")
}

// value returns what a field holds.
func (b *tab) value(label string) string {
	b.t.Helper()
	return eval[string](b, "find(%q).value", label)
}

// chosen returns the chosen option of a list.
func (b *tab) chosen(label string) string {
	b.t.Helper()
	return eval[string](b, "((e) => clean(e.options[e.selectedIndex].text))(find(%q))", label)
}

// refusal returns the sentence that describes why a field was refused.
func (b *tab) refusal(label string) string {
	b.t.Helper()
	return eval[string](b, `((e) => e.getAttribute("aria-invalid") !== "true" ? "" :
		(e.getAttribute("aria-describedby") || "").split(" ").map((id) => clean(document.getElementById(id)?.innerText)).join(" "))(find(%q))`, label)
}

// screenshot returns the whole page as PNG.
func (b *tab) screenshot() []byte {
	b.t.Helper()
	var shot []byte
	call(b, "take a screenshot", func(ctx context.Context) (err error) {
		shot, err = chromedp.Run(ctx, chromedp.FullScreenshot(100))
		return err
	})
	return shot
}

// settled waits until the page has nothing more to load.
func (b *tab) settled() {
	b.t.Helper()
	testenv.Eventually(b.t, 10*time.Second, "a page that is loaded", func() (bool, string) {
		done, err := tryEval[bool](b, "document.readyState === 'complete'")
		return err == nil && done, fmt.Sprint(err)
	})
}
