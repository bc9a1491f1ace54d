package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"hanode/internal/spec"
)

const (
	answerTime = 10 * time.Second // a Client's patience
	// leaveTime bounds Leave, which hands over and then leaves.
	leaveTime = 2 * time.Minute
	// adoptTime bounds what an Apply with Adopt stops before it begins.
	adoptTime = 2 * time.Minute
	// maxAnswer is the longest answer the client reads, and the longest event.
	maxAnswer = 64 << 20
)

// Client talks to one agent. Safe for concurrent use. Its methods are those of
// Backend; errors are *Error unless the caller's own context or function ended
// the call, and one of Exit 4 says that the agent could not be reached.
type Client struct {
	http   *http.Client
	where  string // for people
	socket string // its path; "" = reached in another way
	// patience is how long to wait for an answer beyond what the call itself was
	// told to wait: an agent that needs longer hangs.
	patience time.Duration
}

// Dial returns a client for the agent behind a unix socket. It connects with the
// first call.
func Dial(socket string) *Client {
	var d net.Dialer
	c := New("the agent at "+socket, func(ctx context.Context) (net.Conn, error) {
		return d.DialContext(ctx, "unix", socket)
	})
	c.socket = socket
	return c
}

// New returns a client that reaches an agent through dial, such as the mutual
// TLS between agents. where names the agent in errors.
func New(where string, dial func(context.Context) (net.Conn, error)) *Client {
	return &Client{
		where: where, patience: answerTime,
		http: &http.Client{Transport: &http.Transport{
			DialContext:            func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
			MaxIdleConns:           1,
			IdleConnTimeout:        10 * time.Second,
			MaxResponseHeaderBytes: 16 << 10,
			DisableCompression:     true,
		}},
	}
}

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Members lists every node.
func (c *Client) Members(ctx context.Context) ([]Member, error) {
	v, err := call[List[Member]](ctx, c, "members", nil, nil, 0)
	return value(v), err
}

// Status reports on one group, or on all of them if group is "".
func (c *Client) Status(ctx context.Context, group string) (*Status, error) {
	q := url.Values{}
	if group != "" {
		q.Set("group", group)
	}
	return call[Status](ctx, c, "status", q, nil, 0)
}

// Plan says what Apply of the same groups would do.
func (c *Client) Plan(ctx context.Context, groups []spec.Group) (*Plan, error) {
	return call[Plan](ctx, c, "plan", nil, planBody{Groups: wire(groups)}, 0)
}

// Apply makes req.Groups the whole wanted set.
func (c *Client) Apply(ctx context.Context, req ApplyRequest) (*ApplyResult, error) {
	b := applyBody{Groups: wire(req.Groups), WaitMS: MS(req.Wait), NoProbe: req.NoProbe, Adopt: req.Adopt}
	wait := req.Wait
	if req.Adopt {
		wait += adoptTime
	}
	return call[ApplyResult](ctx, c, "apply", nil, b, wait)
}

// Export returns the wanted set.
func (c *Client) Export(ctx context.Context) ([]spec.Group, error) {
	v, err := call[Exported](ctx, c, "export", nil, nil, 0)
	groups, bad := Specs(value(v).Groups)
	if err == nil && bad != nil {
		err = c.nonsense(bad)
	}
	return groups, err
}

// Move asks for a switchover.
func (c *Client) Move(ctx context.Context, req MoveRequest) (*MoveResult, error) {
	body := moveBody{Group: req.Group, To: Known(req.To), Unpin: req.Unpin, WaitMS: MS(req.Wait)}
	return call[MoveResult](ctx, c, "move", nil, body, req.Wait)
}

// Standby makes a node give up its groups, or lets it own groups again.
func (c *Client) Standby(ctx context.Context, node string, on bool, wait time.Duration) (*NodeResult, error) {
	return call[NodeResult](ctx, c, "standby", nil, nodeBody{Node: node, On: &on, WaitMS: MS(wait)}, wait)
}

// Maintenance stops or resumes everything automatic.
func (c *Client) Maintenance(ctx context.Context, on bool) error {
	_, err := call[switchBody](ctx, c, "maintenance", nil, switchBody{On: &on}, 0)
	return err
}

// Clear forgets failures.
func (c *Client) Clear(ctx context.Context, req ClearRequest) (*ClearResult, error) {
	return call[ClearResult](ctx, c, "clear", nil, clearBody{Group: Known(req.Group), Node: Known(req.Node)}, 0)
}

// ConfirmOff says that a node's host is off.
func (c *Client) ConfirmOff(ctx context.Context, req ConfirmOffRequest) (*ConfirmOffResult, error) {
	return call[ConfirmOffResult](ctx, c, "confirm-off", nil, confirmOffBody(req), 0)
}

// Remove ends the membership of a node that is dead.
func (c *Client) Remove(ctx context.Context, req RemoveRequest) (*RemoveResult, error) {
	return call[RemoveResult](ctx, c, "remove", nil, removeBody{Node: req.Node, Confirm: req.Confirm, WaitMS: MS(req.Wait)}, req.Wait)
}

// CreateToken makes a token that lets one node in.
func (c *Client) CreateToken(ctx context.Context, ttl time.Duration) (*Token, error) {
	ms := MS(ttl)
	return call[Token](ctx, c, "token", nil, tokenBody{TTLMS: &ms}, 0)
}

// Tokens lists the tokens.
func (c *Client) Tokens(ctx context.Context) ([]Token, error) {
	v, err := call[List[Token]](ctx, c, "tokens", nil, nil, 0)
	return value(v), err
}

// RevokeToken ends a token.
func (c *Client) RevokeToken(ctx context.Context, id string) error {
	_, err := call[struct{}](ctx, c, "token/revoke", nil, idBody{ID: id}, 0)
	return err
}

// Snapshot gets the cluster's state.
func (c *Client) Snapshot(ctx context.Context) (*Snapshot, error) {
	return call[Snapshot](ctx, c, "snapshot", nil, nil, 0)
}

// RotateKey changes the cluster's key.
func (c *Client) RotateKey(ctx context.Context, req RotateKeyRequest) (*KeyStatus, error) {
	return call[KeyStatus](ctx, c, "key/rotate", nil, rotateKeyBody{Without: req.Without, Undo: &req.Undo, WaitMS: MS(req.Wait)}, req.Wait)
}

// KeyStatus says which keys the members have.
func (c *Client) KeyStatus(ctx context.Context) (*KeyStatus, error) {
	return call[KeyStatus](ctx, c, "key", nil, nil, 0)
}

// Leave ends the membership of the agent's node.
func (c *Client) Leave(ctx context.Context) error {
	_, err := call[struct{}](ctx, c, "leave", nil, struct{}{}, leaveTime)
	return err
}

// Why explains where a group is.
func (c *Client) Why(ctx context.Context, group string) (*Why, error) {
	return call[Why](ctx, c, "why", url.Values{"group": {group}}, nil, 0)
}

// Tune reports what the agent measured and recommends; with reset, after it has
// started measuring anew.
func (c *Client) Tune(ctx context.Context, reset bool) (*Tuning, error) {
	if reset {
		return call[Tuning](ctx, c, "tune", nil, resetBody{Reset: &reset}, 0)
	}
	return call[Tuning](ctx, c, "tune", nil, nil, 0)
}

// Version says what the agent runs.
func (c *Client) Version(ctx context.Context) (Version, error) {
	v, err := call[Version](ctx, c, "version", nil, nil, 0)
	return value(v), err
}

// Heartbeat says what cl_status asks for beside the rest.
func (c *Client) Heartbeat(ctx context.Context) (Heartbeat, error) {
	h, err := call[Heartbeat](ctx, c, "heartbeat", nil, nil, 0)
	return value(h), err
}

// Events calls fn for each event with an index above after; with follow, for
// ever. It returns fn's error as it is, and ctx's when that ended it.
func (c *Client) Events(ctx context.Context, after uint64, follow bool, fn func(Event) error) error {
	q := url.Values{"after": {strconv.FormatUint(after, 10)}, "follow": {strconv.FormatBool(follow)}}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	hangs := time.AfterFunc(c.patience, func() { cancel(errHangs) })
	defer hangs.Stop()
	resp, err := c.send(ctx, "events", q, nil)
	if err != nil {
		return c.unreachable(ctx, err)
	}
	defer func() { _ = resp.Body.Close() }()
	if follow {
		hangs.Stop() // from here on silence only means that nothing happens
	}
	if resp.StatusCode != http.StatusOK {
		_, err := readAnswer[struct{}](c, resp)
		return err
	}
	for dec := json.NewDecoder(resp.Body); ; {
		var line eventLine
		err := dec.Decode(&line)
		switch {
		case errors.Is(err, io.EOF) && !follow:
			return nil
		case err != nil:
			return c.unreachable(ctx, fmt.Errorf("the stream of events broke off: %w", err))
		case line.Error != nil:
			return line.Error
		}
		if err := fn(line.Event); err != nil {
			return err
		}
	}
}

// call sends one request and reads its answer; body = nil makes it a GET.
func call[T any](ctx context.Context, c *Client, name string, q url.Values, body any, wait time.Duration) (*T, error) {
	limited, cancel := context.WithTimeoutCause(ctx, wait+c.patience, errHangs)
	defer cancel()
	resp, err := c.send(limited, name, q, body)
	if err != nil {
		return nil, c.unreachable(limited, err)
	}
	defer func() { _ = resp.Body.Close() }()
	v, err := readAnswer[T](c, resp)
	if err != nil && limited.Err() != nil {
		return v, c.unreachable(limited, err)
	}
	return v, err
}

func (c *Client) send(ctx context.Context, name string, q url.Values, body any) (*http.Response, error) {
	u := url.URL{Scheme: "http", Host: "localhost", Path: "/v1/" + name, RawQuery: q.Encode()}
	method, payload := http.MethodGet, io.Reader(nil)
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("encode the request: %w", err)
		}
		method, payload = http.MethodPost, bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), payload)
	if err != nil {
		return nil, fmt.Errorf("make the request: %w", err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	return c.http.Do(req)
}

// readAnswer reads a value, or an error that may come with one.
func readAnswer[T any](c *Client, resp *http.Response) (*T, error) {
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return nil, c.nonsense(err)
	}
	if len(b) > maxAnswer {
		return nil, c.nonsense(fmt.Errorf("the answer is longer than %d bytes", maxAnswer))
	}
	if resp.StatusCode == http.StatusOK {
		v := new(T)
		if err := json.Unmarshal(b, v); err != nil {
			return nil, c.nonsense(err)
		}
		return v, nil
	}
	var f struct {
		Error  *Error `json:"error"`
		Result *T     `json:"result"`
	}
	if err := json.Unmarshal(b, &f); err != nil || f.Error == nil {
		return nil, c.nonsense(errors.Join(fmt.Errorf("HTTP status %s without a reason", resp.Status), err))
	}
	return f.Result, f.Error
}

// wire returns groups as a request holds them; never nil, so that no groups
// travels as an empty list.
func wire(groups []spec.Group) *List[Group] {
	l := List[Group](FromSpecs(groups))
	return &l
}

// value is what p points to, or nothing.
func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}
