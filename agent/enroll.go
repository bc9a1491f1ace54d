package agent

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"hanode/config"
	"hanode/fsm"
	"hanode/internal/atomicfile"
	"hanode/internal/spec"
	"hanode/internal/trust"
	"hanode/peer"
)

// Making a host a member, while no agent runs on it: init begins a cluster, join asks
// one to let it in. Both leave a key file and a data_dir from which the agent then
// starts. What they write, they write so that they can be killed at any instant and run
// again: the number in identity.json is written last, and makes it true.

// JoinOptions are what a host joins with.
type JoinOptions struct {
	Addrs []string // of members, with or without a port, asked in turn
	Token trust.Token
	Role  spec.Role // "" = node
	// Fresh sets aside what data_dir holds of an earlier membership.
	Fresh   bool
	Version string
	Speaks  int // as in Options
	Log     *slog.Logger
	// Dial opens a connection; nil = the host's own.
	Dial func(ctx context.Context, addr string) (net.Conn, error)
}

// Joined is what came of it.
type Joined struct {
	Self    spec.Node
	Cluster string
	By      string        // the member that let it in; "" = it was one before
	Clock   time.Duration // how far this host's wall clock is ahead of By's
	Aside   string        // where the old data_dir is; "" = there was none to set aside
	Members []spec.Node
}

// ClockApart reports that the clocks are so far apart that people will be confused.
func (j Joined) ClockApart() bool { return j.Clock.Abs() >= clockApart }

// Join makes this host a member of the token's cluster, or finds that it is one.
func Join(ctx context.Context, cfg *config.Node, opts JoinOptions) (j Joined, err error) {
	if err := joinable(cfg, opts); err != nil {
		return j, err
	}
	j.Cluster = cfg.Cluster
	if opts.Fresh {
		if j.Aside, err = setAsideOld(cfg, opts.Token); err != nil {
			return j, err
		}
	}
	d, err := openDisk(cfg)
	if err != nil {
		return j, err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	m, err := readMembership(cfg.DataDir)
	if err != nil {
		return j, err
	}
	if d.number() > 0 || m != nil && m.Founder {
		if m == nil {
			return j, fmt.Errorf("data_dir %s holds a node that founded its cluster by the node blocks of a node file; to join another: hanode join --fresh, which sets it aside", cfg.DataDir)
		}
		j.Self, _ = m.self(cfg.Name)
		j.Members = m.Nodes
		return j, nil
	}
	if err := keyFits(cfg.KeyFile, opts.Token); err != nil {
		return j, err
	}
	request, err := d.asking()
	if err != nil {
		return j, err
	}
	if err := d.joinsWith(opts.Token.ID); err != nil {
		return j, err
	}
	adm, self, err := knockAll(ctx, cfg, opts, request)
	if err != nil {
		return j, err
	}
	j.Self, j.By, j.Members = self, adm.By, adm.Nodes
	j.Clock = time.Since(adm.Wall)
	if err := writeKey(cfg.KeyFile, adm.Key); err != nil {
		return j, err
	}
	if err := (&membership{Cluster: cfg.Cluster, Timing: adm.Timing, Nodes: adm.Nodes}).write(cfg.DataDir); err != nil {
		return j, err
	}
	if err := d.reaches(adm.Generation); err != nil {
		return j, err
	}
	return j, d.setNumber(adm.Disk)
}

// Outside reports that a node is in no cluster yet, as far as its data_dir says.
func Outside(cfg *config.Node) bool {
	m, err := readMembership(cfg.DataDir)
	return err == nil && m == nil && len(cfg.Nodes) == 0
}

// joinable says what in the node file keeps the host from joining.
func joinable(cfg *config.Node, opts JoinOptions) error {
	switch {
	case len(cfg.Nodes) > 0:
		return fmt.Errorf("%s lists founders in node blocks: such a node needs no token, it founds the cluster with the others or joins it by itself; to join another cluster, remove the node blocks", cfg.File)
	case cfg.Cluster != opts.Token.Cluster:
		return fmt.Errorf("cluster: %s says %q, the token is for %q; set cluster = %q, or take a token of the other", cfg.File, cfg.Cluster, opts.Token.Cluster, opts.Token.Cluster)
	case len(opts.Addrs) == 0:
		return errors.New("no address of a member to ask")
	}
	return trust.CheckName(cfg.Name)
}

// setAsideOld renames a data_dir that is not in use; "" = there was none, or it is that
// of the very join that goes on.
func setAsideOld(cfg *config.Node, tok trust.Token) (string, error) {
	var id identity
	switch b, err := os.ReadFile(filepath.Join(cfg.DataDir, identityFile)); {
	case errors.Is(err, fs.ErrNotExist):
		return "", nil
	case err == nil && json.Unmarshal(b, &id) == nil && id.Token == tok.ID:
		return "", nil
	}
	f, err := lockDir(cfg.DataDir)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	to := fmt.Sprintf("%s.old-%s", cfg.DataDir, time.Now().UTC().Format("20060102T150405.000000000"))
	if err := os.Rename(cfg.DataDir, to); err != nil {
		return "", fmt.Errorf("set the old data_dir aside: %w", err)
	}
	return to, nil
}

// knockAll asks one member after the other. What the cluster refuses, the next one would
// refuse too.
func knockAll(ctx context.Context, cfg *config.Node, opts JoinOptions, request string) (adm peer.Admission, self spec.Node, err error) {
	var errs []error
	for _, addr := range opts.Addrs {
		adm, self, err = knock(ctx, cfg, opts, withPort(addr, cfg.Port+1), request)
		if err == nil {
			return adm, self, nil
		}
		if _, said := errors.AsType[peer.Refusal](err); said {
			return adm, self, err
		}
		errs = append(errs, err)
	}
	return adm, self, errors.Join(errs...)
}

func withPort(addr string, port int) string {
	if _, _, err := net.SplitHostPort(addr); err == nil {
		return addr
	}
	return net.JoinHostPort(addr, strconv.Itoa(port))
}

func knock(ctx context.Context, cfg *config.Node, opts JoinOptions, addr, request string) (adm peer.Admission, self spec.Node, err error) {
	dial := opts.Dial
	if dial == nil {
		d := net.Dialer{Timeout: 5 * time.Second}
		dial = func(ctx context.Context, addr string) (net.Conn, error) { return d.DialContext(ctx, "tcp", addr) }
	}
	c, err := dial(ctx, addr)
	if err != nil {
		return adm, self, fmt.Errorf("ask %s: %w; is an agent running there, and its port open?", addr, err)
	}
	defer func() { _ = c.Close() }()
	shake, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	t := tls.Client(c, trust.JoinConfig(opts.Token.Fingerprint, opts.Token.Cluster))
	switch err := t.HandshakeContext(shake); {
	case errors.Is(err, trust.ErrOtherKey), errors.Is(err, trust.ErrOtherCluster):
		return adm, self, fmt.Errorf("%s is not a member of the token's cluster: %w; ask another address, or make a token there", addr, err)
	case err != nil:
		return adm, self, fmt.Errorf("ask %s: %w; does hanode answer there?", addr, err)
	}
	self = spec.Node{Name: cfg.Name, Address: cfg.Address, Role: roleOr(opts.Role), Zone: cfg.Zone}
	if self.Address == "" {
		if local, err := netip.ParseAddrPort(c.LocalAddr().String()); err == nil {
			self.Address = local.Addr().Unmap().String() // the one from which members are reached
		}
	}
	adm, err = peer.Knock(ctx, t, peer.JoinRequest{
		Protocol: speaks(opts.Speaks), Oldest: fsm.Oldest(speaks(opts.Speaks)), Version: opts.Version, Cluster: cfg.Cluster, Node: self, Port: cfg.Port,
		Token: opts.Token.ID, Secret: opts.Token.Secret, Request: request,
	})
	if err == nil && (adm.Disk == 0 || len(adm.Nodes) == 0 || len(adm.Timing.Validate()) > 0) {
		err = fmt.Errorf("%s let this host in with an answer that is not whole; it may run another version of hanode", addr)
	}
	return adm, self, err
}

// keyFits refuses a key file that is another cluster's, or that an earlier try brought before
// the key was changed, before a token is used up.
func keyFits(path string, tok trust.Token) error {
	k, err := trust.Load(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case k.Fingerprint() != tok.Fingerprint:
		return fmt.Errorf("%s holds another key than the one that the token is for: another cluster's, or this one's before it was changed; move it away if it is not needed any more, then join again", path)
	}
	return nil
}

func writeKey(path string, text []byte) error {
	if _, err := trust.Parse("the key that was sent", text); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("make the key file's folder: %w", err)
	}
	if err := atomicfile.Write(path, text); err != nil {
		return fmt.Errorf("write the key file: %w", err)
	}
	return nil
}

// FirstTokens is how many tokens a new cluster begins with: a second node and a third,
// or a witness.
const FirstTokens = 2

// TokenTTL is how long a token may be used if nothing else is said.
const TokenTTL = 24 * time.Hour

// Founded is what init made.
type Founded struct {
	Self   spec.Node
	Tokens []trust.Token // none if the cluster was there before
	Again  bool          // it was
}

// Init makes this host the first node of a new cluster, which is founded when its agent
// starts. self is the node as it will be known.
func Init(cfg *config.Node, self spec.Node) (f Founded, err error) {
	f.Self = self
	if err := foundable(cfg, self); err != nil {
		return f, err
	}
	d, err := openDisk(cfg)
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	m, err := readMembership(cfg.DataDir)
	switch {
	case err != nil:
		return f, err
	case d.number() > 0 && m != nil && m.Founder:
		f.Self, _ = m.self(cfg.Name)
		f.Again = true
		return f, nil
	case d.number() > 0 || m != nil && !m.Founder:
		return f, fmt.Errorf("data_dir %s belongs to a node that is in a cluster already; to begin another one here, `hanode leave` that first, or move data_dir and %s aside if it is lost", cfg.DataDir, cfg.KeyFile)
	}
	keys, err := foundingKey(cfg.KeyFile, m != nil)
	if err != nil {
		return f, err
	}
	begin := &membership{Cluster: cfg.Cluster, Founder: true, Timing: cfg.Timing, Nodes: []spec.Node{self}}
	now := time.Now()
	for range FirstTokens {
		t := keys.NewToken(cfg.Cluster)
		f.Tokens = append(f.Tokens, t)
		begin.Tokens = append(begin.Tokens, fsm.Token{ID: t.ID, Hash: t.Hash(), Made: now, Expires: now.Add(TokenTTL)})
	}
	// First this, then the key: who finds a key without it knows that the key is not from
	// a founding that was cut short.
	if err := begin.write(cfg.DataDir); err != nil {
		return f, err
	}
	return f, writeKey(cfg.KeyFile, keys.Text())
}

// foundable says why a cluster cannot begin with this node.
func foundable(cfg *config.Node, self spec.Node) error {
	addr, err := netip.ParseAddr(self.Address)
	switch {
	case len(cfg.Nodes) > 0:
		return fmt.Errorf("%s lists founders in node blocks: their cluster forms when a majority of their agents runs, without init; to begin with one node instead, remove the node blocks", cfg.File)
	case len(cfg.RetryJoin) > 0:
		return fmt.Errorf("%s has retry_join: this node is to join a cluster, not to begin one; remove retry_join and token_file, or start the agent", cfg.File)
	case self.Role == spec.RoleWitness:
		return errors.New("a cluster cannot begin with a witness, which owns nothing; init on a node, then on this host: hanode join ADDRESS --token T --role witness")
	case err != nil || addr.IsLoopback() || addr.IsUnspecified() || addr.IsMulticast():
		return fmt.Errorf("%q is no address at which other hosts reach this one; give one: hanode init --address IP", self.Address)
	}
	return trust.CheckName(cfg.Name)
}

// foundingKey makes the secret of a new cluster. One that is there is another cluster's,
// unless a founding was cut short: two clusters with one key and one name would take
// each other's nodes for their own.
func foundingKey(path string, again bool) (*trust.Keys, error) {
	switch k, err := trust.Load(path); {
	case errors.Is(err, fs.ErrNotExist):
		return trust.Parse("a new key", []byte(trust.Generate()+"\n"))
	case err != nil:
		return nil, err
	case again:
		return k, nil
	}
	return nil, fmt.Errorf("%s exists: it is the secret of a cluster. If this host is to join that one: hanode join ADDRESS --token T. "+
		"If it was the only node of it and lost its data, or to begin a new one: move the file away, and run init again", path)
}
