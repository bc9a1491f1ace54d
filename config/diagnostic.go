package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Severity says whether a diagnostic stops the file from being used.
type Severity string

const (
	SeverityError   Severity = "error"   // the file is refused
	SeverityWarning Severity = "warning" // the file is used; the operator should know
)

// Diagnostic is one thing that is wrong with a file.
type Diagnostic struct {
	File     string   `json:"file"`    // path as it was given; "" = the value did not come from a file
	Line     int      `json:"line"`    // from 1; 0 = no one line is to blame
	What     string   `json:"what"`    // what is wrong, with the value that is
	Allowed  string   `json:"allowed"` // what would be right; "" = What says it
	Remedy   string   `json:"remedy"`  // what to do; "" = nothing beyond Allowed
	Severity Severity `json:"severity"`
	// Err is the error of the system behind the diagnostic, for errors.Is;
	// nil where there is none.
	Err error `json:"-"`
}

// String renders one line: hanode.hcl:12: what; allowed; remedy.
func (d Diagnostic) String() string {
	var b strings.Builder
	switch {
	case d.File != "" && d.Line > 0:
		fmt.Fprintf(&b, "%s:%d: ", d.File, d.Line)
	case d.File != "":
		fmt.Fprintf(&b, "%s: ", d.File)
	}
	if d.Severity == SeverityWarning {
		b.WriteString("warning: ")
	}
	b.WriteString(d.What)
	for _, part := range []string{d.Allowed, d.Remedy} {
		if part != "" {
			b.WriteString("; ")
			b.WriteString(part)
		}
	}
	return b.String()
}

// Diagnostics are all problems of one run, ordered by file and line. As an
// error it holds at least one. Callers find it with errors.As.
type Diagnostics []Diagnostic

// Error renders one diagnostic per line.
func (ds Diagnostics) Error() string {
	lines := make([]string, len(ds))
	for i, d := range ds {
		lines[i] = d.String()
	}
	return strings.Join(lines, "\n")
}

// Unwrap gives the errors of the system behind the diagnostics.
func (ds Diagnostics) Unwrap() []error {
	var errs []error
	for _, d := range ds {
		if d.Err != nil {
			errs = append(errs, d.Err)
		}
	}
	return errs
}

// only returns the diagnostics of one severity, ordered by line.
func (ds Diagnostics) only(s Severity) Diagnostics {
	var out Diagnostics
	for _, d := range ds {
		if d.Severity == s {
			out = append(out, d)
		}
	}
	slices.SortStableFunc(out, func(a, b Diagnostic) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line))
	})
	return out
}

// err returns the errors among ds, or nil if there are none.
func (ds Diagnostics) err() error {
	if bad := ds.only(SeverityError); len(bad) > 0 {
		return bad
	}
	return nil
}

// finding is a diagnostic without its place.
type finding struct {
	what    string
	allowed string
	remedy  string
	err     error
}

// report collects the diagnostics of one file.
type report struct {
	file  string
	diags Diagnostics
}

func (r *report) add(line int, f finding)  { r.put(line, f, SeverityError) }
func (r *report) warn(line int, f finding) { r.put(line, f, SeverityWarning) }

// amend gives the newest diagnostic a remedy that its reader could not know.
func (r *report) amend(remedy string) {
	if n := len(r.diags); n > 0 {
		r.diags[n-1].Remedy = remedy
	}
}

func (r *report) put(line int, f finding, s Severity) {
	r.diags = append(r.diags, Diagnostic{
		File: r.file, Line: line, Severity: s,
		What: f.what, Allowed: f.allowed, Remedy: f.remedy, Err: f.err,
	})
}
