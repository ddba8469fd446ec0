package browser

import (
	"testing"
)

// Administrators do everything on the page: in a browser with JavaScript and without, and without a mouse.
func TestConsoleInABrowser(t *testing.T) {
	t.Parallel()
	browser := newBrowser(t)
	t.Run("life of a webhook", func(t *testing.T) {
		t.Parallel()
		lives(t, browser)
	})
	t.Run("pages", func(t *testing.T) {
		t.Parallel()
		pages(t, browser)
	})
}
