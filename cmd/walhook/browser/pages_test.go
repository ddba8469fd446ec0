package browser

import (
	"context"
	_ "embed"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"walhook/testenv"
)

// axe finds what keeps people from using a page.
//
//go:embed testdata/axe.min.js
var axe string

var screenshots = flag.String("screenshots", "", "folder for a screenshot of every page in every size and color scheme")

// gallery has the pages of the gallery; "empty" those of an installation in which nothing has happened yet.
var gallery = map[string][]string{
	"gallery": {
		"/", "/webhooks", "/webhooks?urls=1&state=failing", "/webhooks/new", "/webhooks/2?test=30002", "/webhooks/3?test=30003", "/webhooks/5", "/webhooks/6/delete",
		"/deliveries", "/deliveries?webhook=x", "/deliveries/redeliver?webhook=3", "/deliveries/30001", "/deliveries/30002", "/deliveries/30010", "/responses/1112057",
		"/incidents", "/changes", "/keys", "/settings", "/nowhere",
	},
	"empty": {"/", "/webhooks", "/deliveries", "/responses/1", "/incidents", "/changes", "/keys"},
}

// pages checks every page as people see it.
func pages(t *testing.T, browser *chromium) {
	full := newGallery(t)
	empty := newInstallation(t)
	t.Run("axe", func(t *testing.T) {
		for name, paths := range gallery {
			s := map[string]*installation{"gallery": full, "empty": empty}[name]
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				b := browser.tab(t, s.url)
				b.open("/login")
				b.accessible(name, "/login")
				b.signIn(s.admin)
				for _, path := range paths {
					b.open(path)
					b.accessible(name, path)
				}
				b.quiet()
			})
		}
		t.Run("viewer", func(t *testing.T) {
			t.Parallel()
			b := browser.tab(t, full.url)
			b.signIn(full.viewer)
			for _, path := range []string{"/webhooks", "/webhooks/1", "/deliveries/30001", "/keys", "/settings"} {
				b.open(path)
				b.accessible("viewer", path)
			}
			b.quiet()
		})
	})
	t.Run("keyboard", func(t *testing.T) {
		t.Parallel()
		b := browser.tab(t, full.url)
		b.signIn(full.admin)
		for _, path := range []string{"/", "/webhooks", "/webhooks/2", "/deliveries?status=failed", "/deliveries/30001", "/keys", "/settings"} {
			b.open(path)
			b.tabsThrough(path)
		}
	})
	t.Run("frame", func(t *testing.T) {
		t.Parallel()
		b := browser.tab(t, full.url)
		full.Receiver.Respond("/frame", testenv.Always(testenv.Reply{
			Header: map[string]string{"Content-Type": "text/html"}, Body: `<!doctype html><title>frame</title><iframe src="` + full.url + `/login"></iframe>`,
		}))
		b.open(full.Receiver.URL("/frame"))
		call(b, "look into the frame", func(ctx context.Context) error {
			tree, err := chromedp.Call(ctx, page.GetFrameTree, cdp.Empty{})
			if err == nil && (len(tree.FrameTree.ChildFrames) != 1 || !strings.HasPrefix(tree.FrameTree.ChildFrames[0].Frame.URL, "chrome-error:")) {
				t.Errorf("the frame shows %+v", tree.FrameTree.ChildFrames)
			}
			return err
		})
	})
}

// violation is what axe found.
type violation struct {
	ID, Help string
	Nodes    []struct {
		HTML, FailureSummary string
	}
}

// only are the rules that colors decide: the others are checked once.
var only = map[string]string{"dark": `, runOnly: ["color-contrast", "link-in-text-block"]`}

// accessible checks a page in every size and color scheme.
func (b *tab) accessible(site, path string) {
	b.t.Helper()
	b.settled()
	for _, width := range []int64{1280, 360} {
		for _, scheme := range []string{"light", "dark"} {
			b.show(width, scheme)
			what := fmt.Sprintf("%s %s at %d pixels, %s", site, path, width, scheme)
			found, err := chromedp.Run(b.ctx, chromedp.Evaluate[[]violation](
				axe+`; axe.run({resultTypes: ["violations"]`+only[scheme]+`}).then((r) => r.violations.map((v) => ({ID: v.id, Help: v.help, Nodes: v.nodes.map((n) => ({HTML: n.html, FailureSummary: n.failureSummary}))})))`,
				chromedp.EvalAwaitPromise))
			if err != nil {
				b.t.Fatalf("%s: axe: %v", what, err)
			}
			for _, v := range found {
				b.t.Errorf("%s: %s: %s: %+v", what, v.ID, v.Help, v.Nodes)
			}
			if over := eval[int](b, "document.documentElement.scrollWidth - document.documentElement.clientWidth"); over > 0 {
				b.t.Errorf("%s: scrolls sideways by %d pixels", what, over)
			}
			const hidden = "[...document.querySelectorAll('.bar nav a')].filter((a) => a.getBoundingClientRect().right > innerWidth).length"
			if n := eval[int](b, hidden); n > 0 {
				b.t.Errorf("%s: %d entries of the navigation are out of sight", what, n)
			}
			if *screenshots != "" {
				name := strings.Trim(strings.NewReplacer("/", "-", "?", "_", "&", "_", "=", "-").Replace(path), "-")
				file := filepath.Join(*screenshots, fmt.Sprintf("%s-%s-%d-%s.png", site, name, width, scheme))
				if err := os.WriteFile(file, b.screenshot(), 0o600); err != nil {
					b.t.Fatal(err)
				}
			}
		}
	}
	b.show(1280, "light")
}

// tabsThrough presses Tab until the focus is back where it began: it has been on every control, each time visibly. The first control skips to
// the content.
func (b *tab) tabsThrough(path string) {
	b.t.Helper()
	b.key(kb.Tab)
	if got := eval[string](b, "word(document.activeElement)"); got != "Skip to content" {
		b.t.Errorf("%s: the first control is %q", path, got)
	}
	b.key(kb.Enter)
	b.key(kb.Tab)
	if !eval[bool](b, "document.querySelector('main').contains(document.activeElement)") {
		b.t.Errorf("%s: after skipping to the content, the focus is on %s", path, eval[string](b, "document.activeElement.outerHTML"))
	}
	b.open(path)
	eval[bool](b, "(window.reached = new Set(), true)" /* by their HTML: live parts replace them */)
	for range 400 {
		b.key(kb.Tab)
		state := eval[string](b, "((e) => { if (e === document.body) return 'end'; reached.add(e.outerHTML); return %s ? '' : e.outerHTML; })(document.activeElement)", focusIsVisible)
		if state == "end" {
			break
		}
		if state != "" {
			b.t.Errorf("%s: nothing shows the focus on %s", path, state)
		}
	}
	if missed := eval[[]string](b, "controls().filter((e) => !e.disabled).map((e) => e.outerHTML).filter((html) => !reached.has(html))"); len(missed) > 0 {
		b.t.Errorf("%s: Tab does not reach %q", path, missed)
	}
	b.quiet()
}
