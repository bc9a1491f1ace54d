package logbridge

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
)

// recorder is a slog.Logger whose text can be taken out, without times.
type recorder struct {
	buf bytes.Buffer
	log *slog.Logger
}

func record(level slog.Level) *recorder {
	r := &recorder{}
	r.log = slog.New(slog.NewTextHandler(&r.buf, &slog.HandlerOptions{
		Level: level,
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		},
	}))
	return r
}

func (r *recorder) take() string {
	defer r.buf.Reset()
	return r.buf.String()
}

func expect(t *testing.T, r *recorder, want string) {
	t.Helper()
	if got := r.take(); got != want {
		t.Errorf("got:\n%swant:\n%s", got, want)
	}
}

func TestHCLog(t *testing.T) {
	r := record(levelTrace)
	h := HCLog(r.log, "raft")
	h.Trace("a")
	h.Debug("b", "n", 1)
	h.Info("c", "f", hclog.Fmt("%d of %d", 1, 2), "x", hclog.Hex(255), "o", hclog.Octal(8), "b", hclog.Binary(2), "q", hclog.Quote("a b"))
	h.Warn("d", "error", errors.New("no route"), "odd")
	h.Error("e", 7, "seven")
	h.Log(hclog.NoLevel, "f")
	h.Log(hclog.Off, "never")
	expect(t, r, `level=DEBUG-4 msg=a component=raft
level=DEBUG msg=b component=raft n=1
level=INFO msg=c component=raft f="1 of 2" x=0xff o=010 b=0b10 q="\"a b\""
level=WARN msg=d component=raft err="no route" extra=odd
level=ERROR msg=e component=raft 7=seven
level=INFO msg=f component=raft
`)

	sub := h.With("node", "primary").Named("snapshot").Named("file")
	sub.Info("g", "k", "v")
	if fmt.Sprint(sub.ImpliedArgs()) != "[node primary]" || sub.Name() != "snapshot.file" || sub.ResetNamed("x").Name() != "x" || h.Name() != "" {
		t.Error("names", sub.ImpliedArgs(), sub.Name())
	}
	expect(t, r, "level=INFO msg=g component=raft node=primary k=v part=snapshot.file\n")

	sub.SetLevel(hclog.Warn) // for all of the family
	h.Info("below")
	if h.IsInfo() || !h.IsWarn() || h.GetLevel() != hclog.Warn {
		t.Error("SetLevel did not reach the parent")
	}
	expect(t, r, "")

	std := HCLog(r.log, "raft")
	std.StandardLogger(nil).Print("[WARN] raft: from std log")
	fmt.Fprintln(std.StandardWriter(&hclog.StandardLoggerOptions{ForceLevel: hclog.Debug}), "[ERR] forced")
	expect(t, r, "level=WARN msg=\"from std log\" component=raft\nlevel=DEBUG msg=forced component=raft\n")
}

func TestTheHandlerDecidesTheLevel(t *testing.T) {
	r := record(slog.LevelWarn)
	h := HCLog(r.log, "raft")
	h.Info("not wanted")
	Std(r.log, "memberlist").Print("[INFO] memberlist: not wanted")
	if h.IsTrace() || h.IsDebug() || h.IsInfo() || !h.IsWarn() || !h.IsError() {
		t.Error("levels")
	}
	expect(t, r, "")
}

func TestStdLines(t *testing.T) {
	r := record(levelTrace)
	l := Std(r.log, "memberlist")
	for _, s := range []string{
		"[TRACE] memberlist: a", "[DEBUG] memberlist: b: c", "[INFO] memberlist: d",
		"[WARN] memberlist: e", "[ERR] memberlist: f: g", "[ERROR] h",
		"no level", "[odd] memberlist: word", "[WARN", "", "[INFO] memberlist: ",
	} {
		l.Print(s)
	}
	expect(t, r, `level=DEBUG-4 msg=a component=memberlist
level=DEBUG msg="b: c" component=memberlist
level=INFO msg=d component=memberlist
level=WARN msg=e component=memberlist
level=ERROR msg="f: g" component=memberlist
level=ERROR msg=h component=memberlist
level=INFO msg="no level" component=memberlist
level=INFO msg="[odd] memberlist: word" component=memberlist
level=INFO msg=[WARN component=memberlist
level=INFO msg=memberlist: component=memberlist
`)
}

func TestRepetitionsAreThinnedOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := record(slog.LevelInfo)
		h, l := HCLog(r.log, "raft"), Std(r.log, "memberlist")
		for i := range 100 { // 5 s of a dead peer, and one that dies a little later
			h.Error("failed to heartbeat to", "peer", "secondary", "backoff time", i)
			if i >= 50 {
				h.Error("failed to heartbeat to", "peer", "arbiter")
			}
			h.Info("entering candidate state", "term", i%2)
			l.Printf("[ERR] memberlist: Failed to send to secondary: port %d", i)
			time.Sleep(50 * time.Millisecond)
		}
		got := r.take()
		for text, want := range map[string]int{"peer=secondary": 1, "peer=arbiter": 1, "candidate": 100, "Failed to send": 1, "repeated": 0} {
			if n := strings.Count(got, text); n != want {
				t.Errorf("%q came out %d times, want %d", text, n, want)
			}
		}
		time.Sleep(10 * time.Second)
		h.Error("failed to heartbeat to", "peer", "secondary")
		l.Print("[ERR] memberlist: Failed to send to secondary: again")
		time.Sleep(10 * time.Second)
		h.Error("failed to heartbeat to", "peer", "secondary")
		expect(t, r, `level=ERROR msg="failed to heartbeat to" component=raft peer=secondary repeated=99
level=ERROR msg="Failed to send to secondary: again" component=memberlist repeated=99
level=ERROR msg="failed to heartbeat to" component=raft peer=secondary
`)
	})
}

func TestLimiterIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter()
		out := 0
		for i := range 3 * maxMessages {
			if _, ok := l.allow(fmt.Sprint(i)); ok {
				out++
			}
		}
		if out != maxMessages+1 {
			t.Fatalf("of %d messages that differ %d came out, want %d", 3*maxMessages, out, maxMessages+1)
		}
		if len(l.seen) != maxMessages {
			t.Fatal(len(l.seen), "messages remembered")
		}
		time.Sleep(repeatEvery)
		l.allow("fresh")
		if len(l.seen) != 1 {
			t.Fatal(len(l.seen), "messages remembered after a while")
		}
	})
}

func TestConcurrentUse(t *testing.T) {
	r := record(slog.LevelInfo)
	h, l := HCLog(r.log, "raft"), Std(r.log, "memberlist")
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 100 {
				h.With("n", i).Warn("again")
				l.Print("[WARN] memberlist: again: x")
			}
		})
	}
	wg.Wait()
	if n := strings.Count(r.take(), "\n"); n != 2 {
		t.Error(n, "lines")
	}
}
