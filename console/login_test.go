package console

import (
	"net/http"
	"testing"
)

// Members of the group roles enter, and nobody else; each sees what they may.
func TestDatabaseLogin(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	s.browser().get("/").want(t, http.StatusSeeOther)
	s.browser().get("/login").want(t, http.StatusOK, `<label for="role">Role</label>`, `<label for="password">Password</label>`, ">Sign in</button>")
	s.signIn(s.admin).get("/settings").want(t, http.StatusOK, "Use Webhooks", "Time zone", ">Save</button>")
	s.signIn(s.viewer).get("/settings").want(t, http.StatusOK, "Use Webhooks").lacks(t, ">Save</button>")
	s.browser().post("/login", map[string][]string{"role": {s.nobody}, "password": {s.nobody}}).want(t, http.StatusForbidden, "walhook_viewer")
}
