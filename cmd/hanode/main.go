// Command hanode is the one binary: the agent that runs on every node, and the
// commands that operate a cluster through it.
//
// There is no logic here: a command checks its arguments, calls api, config,
// agent or demo, and renders what comes back.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"hanode/api"
	"hanode/config"
)

// version is set by the linker: -ldflags "-X main.version=1.2.3".
var version string

func main() { os.Exit(run(os.Args[0], os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

// run executes one command line and returns its exit code. name is what the binary was
// called by: some names are commands of their own (see oldName).
func run(name string, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process the hard way
	a := newApp(stdin, stdout, stderr)
	if code, is := a.oldName(ctx, name, args); is {
		return code
	}
	return a.run(ctx, args)
}

// app is what every command shares.
type app struct {
	in  io.Reader
	out *output
	err io.Writer

	now      func() time.Time
	zone     *time.Location
	terminal func() bool // a person can be asked on in
	nodeFile string      // where the socket is looked up if nothing else names it

	socket  string // --socket; "" = not given
	remote  string // --remote, and --cert
	cert    string
	far     *api.Client // of the agent that --remote names; nil = this host's is asked
	json    bool        // --json of the command that runs
	started bool        // the arguments were right; what fails now is no usage error
}

func newApp(stdin io.Reader, stdout, stderr io.Writer) *app {
	return &app{
		in: stdin, out: &output{w: stdout}, err: stderr,
		now: time.Now, zone: time.Local,
		terminal: func() bool { return isTerminal(stdin) },
		nodeFile: config.DefaultFile,
	}
}

func isTerminal(r io.Reader) bool {
	f, ok := r.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

func (a *app) run(ctx context.Context, args []string) int {
	root := a.rootCommand()
	root.SetArgs(append([]string{}, args...)) // nil would mean os.Args to cobra
	cmd, err := root.ExecuteContextC(ctx)
	if err != nil && !a.started {
		err = usageError{fmt.Errorf("%s; see %s --help", strings.TrimSpace(err.Error()), cmd.CommandPath())}
	}
	if err == nil && a.out.err != nil {
		err = fmt.Errorf("write: %w", a.out.err)
	}
	return a.exit(err)
}

// usageError is a command line, or a file it names, that is wrong in itself.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// exitCode ends a command that has already said all there is to say.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// exit prints err, if it is one, and returns the code to exit with.
func (a *app) exit(err error) int {
	if err == nil {
		return api.ExitDone
	}
	if code, ok := errors.AsType[exitCode](err); ok {
		return int(code)
	}
	a.complain(err)
	if e, ok := errors.AsType[*api.Error](err); ok {
		return e.Exit
	}
	if _, ok := errors.AsType[config.Diagnostics](err); ok {
		return api.ExitUsage
	}
	if _, ok := errors.AsType[usageError](err); ok {
		return api.ExitUsage
	}
	return api.ExitFailed
}

// complain prints what went wrong and what to do about it. Findings in a file
// are lines of their own, as editors like them.
func (a *app) complain(err error) {
	if found, ok := errors.AsType[config.Diagnostics](err); ok {
		for _, d := range found {
			say(a.err, "%s\n", clean(d.String()))
		}
		return
	}
	if e, ok := errors.AsType[*api.Error](err); ok {
		say(a.err, "hanode: %s\n", clean(err.Error()))
		if e.Fix != "" {
			say(a.err, "  fix: %s\n", clean(e.Fix))
		}
		return
	}
	say(a.err, "hanode: %s\n", clean(err.Error()))
}

// buildVersion is what the linker was told, else what the build knows.
func buildVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}
