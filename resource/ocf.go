package resource

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"hanode/internal/spec"
)

// ocfRoot is where OCF agents are, and the functions that they share.
const ocfRoot = "/usr/lib/ocf"

// Exit codes of OCF agents.
const (
	ocfArguments     = 2
	ocfUnimplemented = 3
	ocfPrivilege     = 4
	ocfNotInstalled  = 5
	ocfNotConfigured = 6
	ocfPromoted      = 8
	ocfFailedPromo   = 9
	ocfDegraded      = 190
	ocfDegradedPromo = 191
)

// ocf speaks to OCF resource agents, such as those of Debian's package
// resource-agents. Their metadata says what parameters they take and how long each
// operation may last.
type ocf struct {
	root string

	mu   sync.Mutex
	meta map[string]metaOf // by the agent's path
}

// metaOf is an agent's metadata, as long as its file does not change.
type metaOf struct {
	size  int64
	mod   time.Time
	asked time.Time
	meta  *ocfMeta
	err   error
}

// metaLimit bounds asking an agent for its metadata; metaAgain is when one that
// failed is asked again.
const (
	metaLimit = 10 * time.Second
	metaAgain = 30 * time.Second
)

func newOCF(root string) *ocf { return &ocf{root: root, meta: map[string]metaOf{}} }

// path is where the agent PROVIDER:TYPE is.
func (o *ocf) path(agent string) string {
	provider, typ, _ := strings.Cut(agent, ":")
	return filepath.Join(o.root, "resource.d", provider, typ)
}

func (o *ocf) call(_ context.Context, r spec.Resource, env Env, op string, every time.Duration) (call, error) {
	path := o.path(r.Agent)
	if why := executable(path); why != "" {
		return call{}, errors.New(why)
	}
	limit := cmp.Or(map[string]time.Duration{
		opStart: r.StartTimeout, opStop: r.StopTimeout, opMonitor: r.MonitorTimeout,
	}[op], r.Timeout, o.timeout(r, op), defaultTimeout)
	return call{op: op, argv: []string{path, op}, env: o.environment(r, env.Group, op, every, limit)}, nil
}

func (o *ocf) timeout(r spec.Resource, op string) time.Duration {
	t := o.Timeouts(r)
	return map[string]time.Duration{opStart: t.Start, opStop: t.Stop, opMonitor: t.Monitor}[op]
}

// environment is what the OCF resource agent API 1.1 promises an agent, and what
// those of resource-agents read beside it: Pacemaker's names for the operation, its
// interval and its time-out. An interval of 0 makes a monitor a probe.
func (o *ocf) environment(r spec.Resource, group, op string, every, limit time.Duration) []string {
	provider, typ, _ := strings.Cut(r.Agent, ":")
	env := []string{
		"OCF_ROOT=" + o.root, "OCF_FUNCTIONS_DIR=" + filepath.Join(o.root, "lib", "heartbeat"),
		"OCF_RA_VERSION_MAJOR=1", "OCF_RA_VERSION_MINOR=1",
		"OCF_RESOURCE_INSTANCE=" + instance(group, r), "OCF_RESOURCE_TYPE=" + typ, "OCF_RESOURCE_PROVIDER=" + provider,
		"OCF_RESKEY_CRM_meta_name=" + op,
		"OCF_RESKEY_CRM_meta_interval=" + strconv.FormatInt(every.Milliseconds(), 10),
		"OCF_RESKEY_CRM_meta_timeout=" + strconv.FormatInt(limit.Milliseconds(), 10),
		"HA_LOGTAG=hanode", "HA_debug=0",
	}
	level := "0"
	for _, name := range slices.Sorted(maps.Keys(r.Params)) {
		if name == checkLevel {
			level = r.Params[name]
			continue
		}
		env = append(env, "OCF_RESKEY_"+name+"="+r.Params[name])
	}
	if every == 0 {
		level = "0" // a probe does not look deep
	}
	return append(env, checkLevel+"="+level)
}

// instance is the name under which an agent keeps its state files: unique on the
// host, and the same in every version of hanode.
func instance(group string, r spec.Resource) string {
	return strings.Map(func(c rune) rune {
		if c == '-' || c == '.' || c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' {
			return c
		}
		return '_'
	}, group+"-"+r.Name)
}

func (*ocf) forgives() bool  { return false } // they must be idempotent
func (*ocf) asksFirst() bool { return false }

// refused: what an agent says is wrong with this host ends the group here; what it
// says is wrong with the configuration ends it everywhere.
func (*ocf) refused(_ spec.Resource, op string, err error) error {
	if op != opStart {
		return err
	}
	switch exitCode(err) {
	case ocfArguments, ocfUnimplemented, ocfPrivilege, ocfNotInstalled:
		return &Failure{NotHere, err}
	case ocfNotConfigured:
		return &Failure{Nowhere, err}
	}
	return err
}

// state: 7 alone is a clean stop. A resource that nobody promoted and that says it
// is promoted runs, and not as it should.
func (*ocf) state(r spec.Resource, err error, printed string) error {
	switch exitCode(err) {
	case 0, ocfDegraded:
		return nil
	case ocfNotRunning:
		return stopped(r, cmp.Or(lastLine(printed), "so says its monitor"))
	case ocfPromoted, ocfFailedPromo, ocfDegradedPromo:
		return fmt.Errorf("%w: it says that it is promoted, which nobody asked for: %w", errRunsBadly, err)
	case ocfArguments, ocfUnimplemented, ocfPrivilege, ocfNotInstalled:
		return &Failure{NotHere, err}
	case ocfNotConfigured:
		return &Failure{Nowhere, err}
	}
	return err
}

// Timeouts are those of the metadata.
func (o *ocf) Timeouts(r spec.Resource) Timeouts {
	ctx, cancel := context.WithTimeout(context.Background(), metaLimit)
	defer cancel()
	m, err := o.metadata(ctx, r.Agent)
	if err != nil {
		return Timeouts{}
	}
	return Timeouts{Start: m.start, Stop: m.stop, Monitor: m.monitor}
}

// metadata asks the agent, once for each version of its file.
func (o *ocf) metadata(ctx context.Context, agent string) (*ocfMeta, error) {
	path := o.path(agent)
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	o.mu.Lock()
	m, ok := o.meta[path]
	o.mu.Unlock()
	if ok && m.size == st.Size() && m.mod.Equal(st.ModTime()) && (m.err == nil || time.Since(m.asked) < metaAgain) {
		return m.meta, m.err
	}
	m = metaOf{size: st.Size(), mod: st.ModTime(), asked: time.Now()}
	text, err := o.describe(ctx, path)
	if err == nil {
		m.meta, err = parseMeta(text)
	}
	if err != nil {
		m.err = fmt.Errorf("%s: %w", path, err)
	}
	if ctx.Err() == nil || m.err == nil {
		o.mu.Lock()
		o.meta[path] = m
		o.mu.Unlock()
	}
	return m.meta, m.err
}

// describe runs meta-data. It belongs to no resource: what it prints beside the
// metadata is of no interest.
func (o *ocf) describe(ctx context.Context, path string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, metaLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "meta-data")
	cmd.Env = append(os.Environ(), "OCF_ROOT="+o.root, "OCF_FUNCTIONS_DIR="+filepath.Join(o.root, "lib", "heartbeat"), "OCF_RESOURCE_INSTANCE=metadata")
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	out := &head{}
	cmd.Stdout = out
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("meta-data: %w", err)
	}
	return out.Bytes(), nil
}

// head keeps the first maxMeta bytes written to it.
type head struct{ bytes.Buffer }

func (h *head) Write(p []byte) (int, error) {
	if room := maxMeta - h.Len(); room > 0 {
		h.Buffer.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

func (o *ocf) Check(ctx context.Context, r spec.Resource) []Finding {
	path := o.path(r.Agent)
	if why := executable(path); why != "" {
		if _, err := os.Stat(filepath.Join(o.root, "resource.d")); err != nil {
			why += "; install resource-agents"
		}
		return lacks("%s", why)
	}
	m, err := o.metadata(ctx, r.Agent)
	if ctx.Err() != nil {
		return unsure("%s was not asked in time", path)
	}
	if err != nil {
		return lacks("%v", err)
	}
	if m.promotable() {
		return []Finding{{Meaning: Nowhere, Text: fmt.Sprintf(
			"ocf:%s is a promotable agent: it runs on several nodes, one of them promoted, which hanode cannot do yet; use the service's systemd unit", r.Agent)}}
	}
	var out []Finding
	for _, w := range m.wrong(r.Params) {
		out = append(out, Finding{Meaning: Nowhere, Text: fmt.Sprintf("ocf:%s: %s", r.Agent, w)})
	}
	return out
}

// Validate asks the agent itself whether it can run with these parameters here.
func (d agentDriver) Validate(ctx context.Context, r spec.Resource, env Env) []Finding {
	o, r := d.validates(r)
	if o == nil {
		return nil
	}
	m, err := o.metadata(ctx, r.Agent)
	if err != nil || !m.known[opValidate] {
		return nil // Check has said it
	}
	limit := cmp.Or(m.validate, defaultTimeout)
	c := call{op: opValidate, argv: []string{o.path(r.Agent), opValidate}, env: o.environment(r, env.Group, opValidate, 0, limit)}
	printed := &tail{}
	env.Output = printed
	err = bounded(ctx, limit, func(ctx context.Context) error { return d.run(ctx, r, c, env) })
	switch code := exitCode(err); {
	case err == nil, code == ocfUnimplemented, code == ocfNotRunning:
		return nil
	case ctx.Err() != nil || code < 0:
		return unsure("%v", err)
	case code == ocfNotConfigured:
		return []Finding{{Meaning: Nowhere, Text: reasons(printed.String())}}
	}
	return lacks("%s", reasons(printed.String()))
}

// exitReason begins a line in which an agent says why it fails.
const exitReason = "ocf-exit-reason:"

// reasons are what the agent says was wrong, or the last that it said.
func reasons(printed string) string {
	var out []string
	for l := range strings.Lines(printed) {
		if _, why, ok := strings.Cut(l, exitReason); ok && !slices.Contains(out, strings.TrimSpace(why)) {
			out = append(out, strings.TrimSpace(why))
		}
	}
	return cmp.Or(lastLine(strings.Join(out, "; ")), lastLine(printed), "validate-all fails and does not say why")
}

const opValidate = "validate-all"

func (o *ocf) validates(r spec.Resource) (*ocf, spec.Resource) { return o, r }
