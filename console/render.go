package console

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"slices"
	"strings"
	"time"
)

//go:embed templates static
var files embed.FS

// pages are the templates and the files that they refer to.
type pages struct {
	templates map[string]*template.Template // by file name; each has the layout, and the blocks that all pages share
	assets    map[string]asset              // by path
}

type asset struct {
	content []byte
	tag     string // of its content, in its address: a browser keeps it for ever
}

// readPages parses every template. templates/layout.html has the frame and the blocks that pages share; every other file
// defines the block main.
func readPages() (*pages, error) {
	p := &pages{templates: map[string]*template.Template{}, assets: map[string]asset{}}
	static, err := fs.Glob(files, "static/*")
	if err != nil {
		return nil, err
	}
	for _, name := range static {
		content, err := files.ReadFile(name)
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256(content)
		p.assets["/"+name] = asset{content, hex.EncodeToString(sum[:6])}
	}
	layout, err := template.New("layout.html").Funcs(template.FuncMap{
		"asset": func(name string) string { return "/static/" + name + "?v=" + p.assets["/static/"+name].tag },
		"navEntry": func(v *view, path, label string) any {
			return struct {
				Path, Label string
				Current     bool
			}{path, label, v.Current(path)}
		},
		"count": count,
		"words": words,
		"ago":   func(seconds float64) string { return age(time.Duration(seconds * float64(time.Second))) },
	}).ParseFS(files, "templates/layout.html")
	if err != nil {
		return nil, fmt.Errorf("parse the layout: %w", err)
	}
	names, err := fs.Glob(files, "templates/*.html")
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if path.Base(name) == "layout.html" {
			continue
		}
		own, err := layout.Clone()
		if err == nil {
			own, err = own.ParseFS(files, name)
		}
		if err != nil {
			return nil, fmt.Errorf("parse %s: %w", name, err)
		}
		p.templates[path.Base(name)] = own
	}
	return p, nil
}

func (p *pages) static(w http.ResponseWriter, r *http.Request) {
	found, ok := p.assets[r.URL.Path]
	if !ok {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", mime.TypeByExtension(path.Ext(r.URL.Path)))
	if r.URL.Query().Get("v") == found.tag {
		w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	w.Header().Set("ETag", `"`+found.tag+`"`)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(found.content))
}

// view is what a template gets as its dot. The page's own data is in Data.
type view struct {
	Title   string
	Path    string  // of the request
	Person  *person // nil: nobody is signed in
	Flash   string  // what the request before did
	Refused *refusal
	Version string
	Data    any
	Login   string
}

// Name is the person's.
func (v *view) Name() string { return v.Person.name }

// Admin reports whether to show controls that change something.
func (v *view) Admin() bool { return v.Person != nil && v.Person.admin }

// Time shows a moment in the site's time with UTC beside it.
func (v *view) Time(t any) template.HTML {
	z := zone{"UTC", time.UTC}
	if v.Person != nil && v.Person.zone.loc != nil {
		z = v.Person.zone
	}
	switch t := t.(type) {
	case time.Time:
		return z.At(t)
	case *time.Time:
		if t != nil {
			return z.At(*t)
		}
	}
	return z.At(time.Time{})
}

// Since says how long something has lasted.
func (v *view) Since(t *time.Time) string {
	if t == nil {
		return "an unknown time"
	}
	return age(time.Since(*t))
}

// Zone is the name of the site's time zone.
func (v *view) Zone() string {
	if v.Person == nil || v.Person.zone.name == "" {
		return "UTC"
	}
	return v.Person.zone.name
}

// Current reports whether the navigation's entry is that of the page.
func (v *view) Current(prefix string) bool {
	return v.Path == prefix || prefix != "/" && strings.HasPrefix(v.Path, prefix+"/")
}

// render sends a page. p is nil for people who are not signed in.
func (s *Server) render(w http.ResponseWriter, r *http.Request, p *person, status int, name, title string, data any) error {
	return s.renderView(w, r, status, name, &view{Title: title, Person: p, Data: data})
}

// renderRefused is render for a form that was refused: it shows the sentence, beside the field if the refusal names one.
// The template has it as $.Refused, and for a field as {{template "refusal" ($.Field "url")}}.
func (s *Server) renderRefused(
	w http.ResponseWriter, r *http.Request, p *person, err error, name, title string, data any,
) error {
	var refused *refusal
	if !errors.As(asRefusal(err), &refused) ||
		refused.status != http.StatusUnprocessableEntity && refused.status != http.StatusConflict {
		return err
	}
	return s.renderView(w, r, refused.status, name, &view{Title: title, Person: p, Data: data, Refused: refused})
}

// field is an input of a form, which is named like a column.
type field struct {
	ID      string
	Refused string // why its value was refused; "": it was not
}

// Field returns the input that is named like the column.
func (v *view) Field(column string) field {
	f := field{ID: column}
	if v.Refused != nil && v.Refused.column == column {
		f.Refused = v.Refused.sentence
	}
	return f
}

// Aria returns the attributes that connect the input with its refusal, and with the hint below it if it has one.
func (v *view) Aria(column string, hint bool) template.HTMLAttr {
	refused := v.Field(column).Refused != ""
	var ids []string
	if hint {
		ids = append(ids, column+"-hint")
	}
	attributes := ""
	if refused {
		ids = append(ids, column+"-refusal")
		attributes = `aria-invalid="true" `
	}
	if len(ids) == 0 {
		return ""
	}
	return template.HTMLAttr(attributes + `aria-describedby="` + strings.Join(ids, " ") + `"`)
}

// Elsewhere returns the sentence of a refusal that belongs to none of the fields.
func (v *view) Elsewhere(columns ...string) string {
	if v.Refused == nil || slices.Contains(columns, v.Refused.column) {
		return ""
	}
	return v.Refused.sentence
}

func (s *Server) renderView(w http.ResponseWriter, r *http.Request, status int, name string, v *view) error {
	v.Path, v.Version, v.Login = r.URL.Path, s.cfg.Version, s.cfg.Login
	if v.Person != nil {
		v.Flash = s.said(w, r)
	}
	found, ok := s.pages.templates[name]
	if !ok {
		return fmt.Errorf("there is no template %s", name)
	}
	var page bytes.Buffer
	if err := found.ExecuteTemplate(&page, "layout.html", v); err != nil {
		return fmt.Errorf("render %s: %w", name, err)
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = page.WriteTo(w)
	return nil
}

// fragment renders one block of a page, for what is live.
func (s *Server) fragment(r *http.Request, p *person, name, block string, data any) (string, error) {
	var out strings.Builder
	v := &view{Path: r.URL.Path, Person: p, Data: data, Version: s.cfg.Version, Login: s.cfg.Login}
	err := s.pages.templates[name].ExecuteTemplate(&out, block, v)
	return out.String(), err
}

// redirect sends the browser to a path of the console, whose page shows the flash.
func (s *Server) redirect(w http.ResponseWriter, r *http.Request, to, flash string) error {
	if flash != "" {
		s.say(w, flash)
	}
	http.Redirect(w, r, localPath(to), http.StatusSeeOther)
	return nil
}

// localPath returns the address if it is one of the console itself, and otherwise that of the overview, so that a link to
// the console never leads to another site.
func localPath(to string) string {
	if !strings.HasPrefix(to, "/") || strings.HasPrefix(to, "//") || strings.ContainsAny(to, "\\\r\n\t") {
		return "/"
	}
	return to
}

// fail answers with an error as a page.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, p *person, err error) {
	refused := &refusal{
		status: http.StatusInternalServerError, sentence: "Something went wrong. The console's log has the reason.", err: err,
	}
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		refused = &refusal{status: http.StatusRequestEntityTooLarge, sentence: "The form is too large."}
	} else if !errors.As(asRefusal(err), &refused) || refused.status >= http.StatusInternalServerError {
		if r.Context().Err() == nil {
			s.log.Error("request failed", "method", r.Method, "path", r.URL.Path, "error", err)
		}
	}
	v := &view{Title: http.StatusText(refused.status), Person: p, Data: refused.sentence}
	if err := s.renderView(w, r, refused.status, "error.html", v); err != nil {
		s.log.Error("request failed", "method", r.Method, "path", r.URL.Path, "error", err)
		http.Error(w, refused.sentence, refused.status)
	}
}
