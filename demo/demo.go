// Package demo is `hanode demo`: a whole cluster on one machine, made to fail in
// front of the operator, and measured from outside.
//
// Its hosts are network namespaces and its agents are this very program, run as
// `hanode agent`. What clients see is asked of the network only, never of hanode.
// How the cluster does its work is the agent's business, how namespaces become
// hosts is package netlab's.
package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"hanode/api"
	"hanode/internal/netlab"
)

// Options of Run.
type Options struct {
	JSON bool // print the result as JSON on Out, and nothing else there
	Keep bool // leave the cluster up at the end, until ctx is done

	Out     io.Writer // the show, or the JSON
	Err     io.Writer // what a failure needs
	Columns int       // width of the terminal that Out is; 0 = Out is no terminal

	// Binary is the path of this program: what runs on the demo's hosts.
	Binary string
}

// errInterrupted ends a run that somebody stopped.
var errInterrupted = errors.New("interrupted; everything was taken down")

// Run plays the demo and reports whether every promise was kept. It first runs
// this program again, as `demo` with the flags of opts, in namespaces of its own;
// so it must be called by that command. Where that is forbidden it says on opts.Err
// what to do, and reports false. An error means that the demo could not be played
// to its end, or was interrupted.
func Run(ctx context.Context, opts Options) (ok bool, err error) {
	if netlab.Isolated() {
		return play(ctx, opts)
	}
	args := []string{"demo"}
	if opts.JSON {
		args = append(args, "--json")
	}
	if opts.Keep {
		args = append(args, "--keep")
	}
	code, err := netlab.Reexec(args, nil)
	if err != nil {
		// It has a line for each thing to do; what prints errors makes one of all.
		_, _ = fmt.Fprintf(opts.Err, "hanode: %v\n", err)
		return false, nil
	}
	return code == 0, nil
}

// play is the demo proper, inside its namespaces.
func play(ctx context.Context, opts Options) (ok bool, err error) {
	show := opts.Out
	if opts.JSON {
		show, opts.Columns = io.Discard, 0
	}
	began := time.Now()
	scr := newScreen(show, opts.Columns)
	scr.line("A cluster on this machine: hosts primary and secondary, a witness arbiter, and a client.")
	scr.line("Deadtime is %v. Only the client is asked who answers for %v, by ARP each %v and by HTTP each %v.",
		timing().Deadtime, vip, askEvery, pageEvery)
	scr.line(legend)
	st, err := build(opts.Binary)
	if err != nil {
		return false, err
	}
	defer func() {
		err = errors.Join(err, st.close(ok || errors.Is(err, errInterrupted)))
	}()
	results, ok, err := st.perform(ctx, scr)
	if ctx.Err() != nil {
		return false, errInterrupted
	}
	if err == nil {
		err = present(opts, scr, results, ok, time.Since(began))
	}
	if err != nil || !ok {
		ok = false
		st.logs(opts.Err)
	}
	if err == nil && opts.Keep {
		st.keep(ctx, opts, scr)
	}
	return ok, err
}

// perform starts the cluster and plays the story.
func (st *stage) perform(ctx context.Context, scr *screen) (results []result, ok bool, err error) {
	if err := st.watch(); err != nil {
		return nil, false, err
	}
	stop := scr.run()
	defer stop()
	if err := st.open(ctx, scr); err != nil {
		return nil, false, fmt.Errorf("start the cluster: %w", err)
	}
	results, ok = st.tell(ctx, scr, story())
	return results, ok, nil
}

// present prints the end: the table, or the JSON.
func present(opts Options, scr *screen, results []result, ok bool, took time.Duration) error {
	if opts.JSON {
		return api.WriteJSON(opts.Out, report(results, ok), true)
	}
	scr.line("")
	scr.block(table(results))
	scr.line("")
	if stalled := stalls(results); stalled > busy {
		scr.line("This machine is busy: for up to %s even the client did not get to ask. The figures would be lower elsewhere.", short(stalled))
	}
	if ok {
		scr.line("Every promise was kept. %.0f s.", took.Seconds())
	} else {
		scr.line("A PROMISE WAS BROKEN. %.0f s.", took.Seconds())
	}
	return nil
}

// stalls is the longest pause that the client made.
func stalls(results []result) (longest time.Duration) {
	for _, r := range results {
		longest = max(longest, r.stalled)
	}
	return longest
}

// jsonReport is the contract's form of the result.
type jsonReport struct {
	OK    bool               `json:"ok"`
	Steps api.List[jsonStep] `json:"steps"`
}

type jsonStep struct {
	Name       string   `json:"name"`
	OutageMS   *float64 `json:"outage_ms"` // of the address; nil = not measured
	HoldersMax int      `json:"holders_max"`
	OK         bool     `json:"ok"`
	Text       string   `json:"text"`
}

var _ json.Marshaler = api.List[jsonStep](nil)

func report(results []result, ok bool) jsonReport {
	r := jsonReport{OK: ok}
	for _, x := range results {
		s := jsonStep{Name: x.name, HoldersMax: x.holders, OK: x.ok, Text: x.sentence()}
		if x.measured {
			v := float64(x.address.Microseconds()) / 1000
			s.OutageMS = &v
		}
		r.Steps = append(r.Steps, s)
	}
	return r
}

// keep leaves everything up and shows who answers, until ctx is done.
func (st *stage) keep(ctx context.Context, opts Options, scr *screen) {
	out := scr
	if opts.JSON {
		out = newScreen(opts.Err, 0)
	}
	out.line("")
	out.line("The cluster is left up until Ctrl-C. From another terminal, as this user:")
	for _, name := range []string{primary, secondary} {
		out.line("  %s --socket %s status", st.binary, st.socket(name))
	}
	out.line("  %s --socket %s move web", st.binary, st.socket(arbiter))
	out.line("The agents' logs are in %s. Who answers:", st.dir)
	stop, err := st.watchSlowly(out)
	if err != nil {
		out.line("  (not watched any more: %v)", err)
	}
	<-ctx.Done()
	stop()
	out.line("taken down")
}

// logs shows the end of every agent's log.
func (st *stage) logs(w io.Writer) {
	for _, name := range nodes {
		path := st.logFile(name)
		b, err := os.ReadFile(path)
		if err != nil {
			continue // an agent that was never started
		}
		_, _ = fmt.Fprintf(w, "--- the end of %s\n%s\n", path, lastLines(string(b), 20))
	}
	_, _ = fmt.Fprintf(w, "--- everything is kept in %s\n", st.dir)
}
