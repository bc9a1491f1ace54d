package logbridge

import (
	"context"
	"log"
	"log/slog"
	"strings"
)

// Std returns a std log.Logger that writes to slog with component=component,
// for libraries that write lines such as "[WARN] memberlist: text". Level and
// component are taken off the line; a line without level is info. Warnings and
// errors with the same text before their first ": " or quote come out at most once in
// 10 s; the next one has the key repeated. Safe for concurrent use.
func Std(to *slog.Logger, component string) *log.Logger {
	return log.New(&lines{log: to.With("component", component), component: component, limit: newLimiter()}, "", 0)
}

// lines turns each Write, which std log makes once per message, into a record.
type lines struct {
	log       *slog.Logger
	component string
	forced    *slog.Level // nil: as the line says
	limit     *limiter
}

var lineLevels = map[string]slog.Level{
	"TRACE": levelTrace, "DEBUG": slog.LevelDebug, "INFO": slog.LevelInfo,
	"WARN": slog.LevelWarn, "ERR": slog.LevelError, "ERROR": slog.LevelError,
}

// Write implements io.Writer; it never fails.
func (w *lines) Write(b []byte) (int, error) {
	level, text := split(string(b), w.component)
	if w.forced != nil {
		level = *w.forced
	}
	ctx := context.Background()
	if text == "" || !w.log.Enabled(ctx, level) {
		return len(b), nil
	}
	var attrs []slog.Attr
	if level >= slog.LevelWarn {
		kind, _, _ := strings.Cut(text, ": ")
		kind, _, _ = strings.Cut(kind, `"`) // what is quoted is a stranger's
		left, ok := w.limit.allow(kind)
		if !ok {
			return len(b), nil
		}
		if left > 0 {
			attrs = append(attrs, slog.Int("repeated", left))
		}
	}
	w.log.LogAttrs(ctx, level, text, attrs...)
	return len(b), nil
}

// split takes level and component off a line.
func split(line, component string) (slog.Level, string) {
	text, level := strings.TrimSpace(line), slog.LevelInfo
	if rest, ok := strings.CutPrefix(text, "["); ok {
		word, rest, closed := strings.Cut(rest, "]")
		if l, known := lineLevels[word]; closed && known {
			level, text = l, strings.TrimSpace(rest)
		}
	}
	text = strings.TrimPrefix(text, component+": ")
	return level, text
}
