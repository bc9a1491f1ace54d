// Package logbridge lets the libraries' logs come out once, in our form: hclog
// (raft) and std log (memberlist) become slog records with the key component.
// Warnings and errors that repeat are thinned out; nothing else is dropped.
//
// What is shown in the end, and where, is decided by the slog handler.
package logbridge

import (
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"slices"
	"strconv"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"
)

// levelTrace is hclog's trace, below slog's debug.
const levelTrace = slog.LevelDebug - 4

// HCLog returns an hclog.Logger that writes to log with component=component.
// hclog's key "error" becomes "err". The same warning or error about the same
// peer comes out at most once in 10 s; the next one then has the key repeated,
// how many were left out since. Safe for concurrent use.
func HCLog(log *slog.Logger, component string) hclog.Logger {
	h := &hlog{log: log.With("component", component), component: component, level: &atomic.Int32{}, limit: newLimiter()}
	h.level.Store(int32(hclog.Trace))
	return h
}

// hlog is one hclog.Logger; it and all made from it share level and limit.
type hlog struct {
	log       *slog.Logger
	component string
	name      string
	implied   []any
	level     *atomic.Int32 // an hclog.Level; less severe messages are dropped before slog is asked
	limit     *limiter
}

// Log implements hclog.Logger.
func (h *hlog) Log(level hclog.Level, msg string, args ...any) {
	to := slogLevel(level)
	if !h.enabled(level) {
		return
	}
	attrs := attributes(args)
	if to >= slog.LevelWarn {
		left, ok := h.limit.allow(msg + "\x00" + identity(append(slices.Clip(h.implied), args...)))
		if !ok {
			return
		}
		if left > 0 {
			attrs = append(attrs, slog.Int("repeated", left))
		}
	}
	if h.name != "" {
		attrs = append(attrs, slog.String("part", h.name))
	}
	h.log.LogAttrs(context.Background(), to, msg, attrs...)
}

func (h *hlog) enabled(level hclog.Level) bool {
	if level == hclog.Off || level != hclog.NoLevel && int32(level) < h.level.Load() {
		return false
	}
	return h.log.Enabled(context.Background(), slogLevel(level))
}

func (h *hlog) Trace(msg string, args ...any) { h.Log(hclog.Trace, msg, args...) }
func (h *hlog) Debug(msg string, args ...any) { h.Log(hclog.Debug, msg, args...) }
func (h *hlog) Info(msg string, args ...any)  { h.Log(hclog.Info, msg, args...) }
func (h *hlog) Warn(msg string, args ...any)  { h.Log(hclog.Warn, msg, args...) }
func (h *hlog) Error(msg string, args ...any) { h.Log(hclog.Error, msg, args...) }

func (h *hlog) IsTrace() bool { return h.enabled(hclog.Trace) }
func (h *hlog) IsDebug() bool { return h.enabled(hclog.Debug) }
func (h *hlog) IsInfo() bool  { return h.enabled(hclog.Info) }
func (h *hlog) IsWarn() bool  { return h.enabled(hclog.Warn) }
func (h *hlog) IsError() bool { return h.enabled(hclog.Error) }

func (h *hlog) ImpliedArgs() []any { return slices.Clone(h.implied) }
func (h *hlog) Name() string       { return h.name }

// With implements hclog.Logger.
func (h *hlog) With(args ...any) hclog.Logger {
	c := *h
	c.implied = append(slices.Clip(h.implied), args...)
	var with []any
	for _, a := range attributes(args) {
		with = append(with, a)
	}
	c.log = h.log.With(with...)
	return &c
}

// Named implements hclog.Logger; the name comes out as the key part.
func (h *hlog) Named(name string) hclog.Logger {
	if h.name != "" {
		name = h.name + "." + name
	}
	return h.ResetNamed(name)
}

// ResetNamed implements hclog.Logger.
func (h *hlog) ResetNamed(name string) hclog.Logger {
	c := *h
	c.name = name
	return &c
}

func (h *hlog) SetLevel(level hclog.Level) { h.level.Store(int32(level)) }
func (h *hlog) GetLevel() hclog.Level      { return hclog.Level(h.level.Load()) }

// StandardLogger implements hclog.Logger.
func (h *hlog) StandardLogger(o *hclog.StandardLoggerOptions) *log.Logger {
	return log.New(h.StandardWriter(o), "", 0)
}

// StandardWriter implements hclog.Logger. Levels are always inferred, unless
// one is forced.
func (h *hlog) StandardWriter(o *hclog.StandardLoggerOptions) io.Writer {
	w := &lines{log: h.log, component: h.component, limit: h.limit}
	if o != nil && o.ForceLevel != hclog.NoLevel {
		forced := slogLevel(o.ForceLevel)
		w.forced = &forced
	}
	return w
}

func slogLevel(l hclog.Level) slog.Level {
	switch l {
	case hclog.Trace:
		return levelTrace
	case hclog.Debug:
		return slog.LevelDebug
	case hclog.Warn:
		return slog.LevelWarn
	case hclog.Error:
		return slog.LevelError
	default:
		return slog.LevelInfo
	}
}

// attributes turns hclog's alternating keys and values into ours.
func attributes(args []any) []slog.Attr {
	out := make([]slog.Attr, 0, len(args)/2+1)
	for i := 0; i < len(args); i += 2 {
		if i+1 == len(args) {
			return append(out, slog.Any("extra", value(args[i])))
		}
		key, ok := args[i].(string)
		if !ok {
			key = fmt.Sprint(args[i])
		}
		if key == "error" {
			key = "err"
		}
		out = append(out, slog.Any(key, value(args[i+1])))
	}
	return out
}

// value renders hclog's own kinds of value.
func value(v any) any {
	switch v := v.(type) {
	case hclog.Format:
		if len(v) == 0 {
			return ""
		}
		if f, ok := v[0].(string); ok {
			return fmt.Sprintf(f, v[1:]...)
		}
		return fmt.Sprint(v...)
	case hclog.Hex:
		return "0x" + strconv.FormatInt(int64(v), 16)
	case hclog.Octal:
		return "0" + strconv.FormatInt(int64(v), 8)
	case hclog.Binary:
		return "0b" + strconv.FormatInt(int64(v), 2)
	case hclog.Quote:
		return strconv.Quote(string(v))
	}
	return v
}

// identity picks out of the arguments whom a message is about, so that trouble
// with one peer does not hide trouble with another.
func identity(args []any) string {
	out := ""
	for i := 0; i+1 < len(args); i += 2 {
		switch args[i] {
		case "peer", "id", "server-id", "server", "address", "node":
			out += fmt.Sprint(args[i], "=", args[i+1], "\x00")
		}
	}
	return out
}
