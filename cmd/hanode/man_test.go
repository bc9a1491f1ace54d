package main

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

var manDir = flag.String("man", "", "folder that TestManPages writes the man pages to; empty = a temporary one")

// TestManPages writes a page for every command, as the packages have them, and looks
// whether each says what the command's help says. The library for it is used here
// and not in the binary, which has no other use for it.
func TestManPages(t *testing.T) {
	dir := *manDir
	if dir == "" {
		dir = t.TempDir()
	}
	date := time.Now()
	if s, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64); err == nil {
		date = time.Unix(s, 0).UTC()
	}
	root := newApp(strings.NewReader(""), &bytes.Buffer{}, &bytes.Buffer{}).rootCommand()
	root.DisableAutoGenTag = true
	if err := doc.GenManTree(root, &doc.GenManHeader{Section: "1", Source: "hanode", Manual: "hanode", Date: &date}, dir); err != nil {
		t.Fatal(err)
	}
	seen := 0
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
		if !cmd.IsAvailableCommand() || cmd.IsAdditionalHelpTopicCommand() {
			return
		}
		seen++
		b, err := os.ReadFile(filepath.Join(dir, strings.ReplaceAll(cmd.CommandPath(), " ", "-")+".1"))
		if err != nil {
			t.Error(err)
			return
		}
		page := strings.ReplaceAll(string(b), `\-`, "-")
		for _, want := range []string{cmd.Short, ".SH EXAMPLE", "hanode"} {
			if !strings.Contains(page, want) {
				t.Errorf("the page of %q lacks %q", cmd.CommandPath(), want)
			}
		}
	}
	walk(root)
	if seen < 20 {
		t.Errorf("only %d pages", seen)
	}
}
