package peer

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"
)

// Nodes that are no servers of raft follow one that is, by a stream that does not end.

// FrameKind says what a Frame is.
type FrameKind byte

// The kinds. Numbers are part of the wire format.
const (
	FrameEntry    FrameKind = 1 // Data is the command at Index
	FrameSnapshot FrameKind = 2 // Data is all of the state, Index and Term of its newest entry
	FrameLeader   FrameKind = 3 // Data is the name of who leads, in Term; also a sign of life
)

// Frame is one message of a stream.
type Frame struct {
	Kind        FrameKind
	Index, Term uint64
	Data        []byte
}

// Place is where the one who follows stands.
type Place struct {
	Index, Term uint64 // its newest entry; Term 0 = not known
	Generation  uint64 // of the cluster, as it knows it
}

// Followed is an agent that lets others follow it.
type Followed interface {
	// Follow sends what comes after that place, until ctx ends or asker should not follow
	// this node any more, which the error says. send waits until the frames are on their
	// way.
	Follow(ctx context.Context, asker string, from Place, send func(...Frame) error) error
}

const (
	streamType = "application/x-hanode-stream"
	// maxFrame is a snapshot of a very large cluster.
	maxFrame = 256 << 20
	// piece is how many bytes are sent at a time, and sendLimit how long one may take to
	// be on its way: then the follower is given up.
	piece     = 256 << 10
	sendLimit = 10 * time.Second
	// QuietLimit is how long a stream may bring nothing: whoever sends it says each second
	// who leads.
	QuietLimit = 4 * time.Second
)

const frameHead = 1 + 8 + 8 + 4

func follow(mux *http.ServeMux, svc Followed) {
	mux.HandleFunc("POST /peer/follow", func(w http.ResponseWriter, r *http.Request) {
		from, err := parsePlace(r.URL.Query())
		if err != nil {
			answer(w, nil, err)
			return
		}
		out := &stream{w: w, c: http.NewResponseController(w)}
		err = svc.Follow(r.Context(), asker(r), from, out.send)
		if !out.began {
			answer(w, nil, err)
		}
	})
}

func (p Place) query() string {
	return url.Values{
		"after": {strconv.FormatUint(p.Index, 10)}, "term": {strconv.FormatUint(p.Term, 10)},
		"generation": {strconv.FormatUint(p.Generation, 10)},
	}.Encode()
}

func parsePlace(q url.Values) (p Place, err error) {
	for _, x := range []struct {
		key string
		v   *uint64
	}{{"after", &p.Index}, {"term", &p.Term}, {"generation", &p.Generation}} {
		if *x.v, err = strconv.ParseUint(q.Get(x.key), 10, 64); err != nil {
			return p, fmt.Errorf("the place to follow from: %s: %w", x.key, err)
		}
	}
	return p, nil
}

// stream is the sending end.
type stream struct {
	w     http.ResponseWriter
	c     *http.ResponseController
	began bool
}

func (s *stream) send(frames ...Frame) error {
	if !s.began {
		s.w.Header().Set("Content-Type", streamType)
		s.w.Header().Set("Connection", "close") // its deadlines are for nobody else
		s.began = true
	}
	for _, f := range frames {
		if len(f.Data) > maxFrame {
			return fmt.Errorf("a frame of %d bytes, and at most %d are taken", len(f.Data), maxFrame)
		}
		if err := s.write(f.head()); err != nil {
			return err
		}
		for part := range slices.Chunk(f.Data, piece) {
			if err := s.write(part); err != nil {
				return err
			}
		}
	}
	return s.c.Flush()
}

func (s *stream) write(b []byte) error {
	if err := s.c.SetWriteDeadline(time.Now().Add(sendLimit)); err != nil {
		return err
	}
	_, err := s.w.Write(b)
	return err
}

func (f Frame) head() []byte {
	head := make([]byte, frameHead)
	head[0] = byte(f.Kind)
	binary.BigEndian.PutUint64(head[1:], f.Index)
	binary.BigEndian.PutUint64(head[9:], f.Term)
	binary.BigEndian.PutUint32(head[17:], uint32(len(f.Data)))
	return head
}

// Follow has node send what it applies after that place, and calls take for each
// frame, until ctx ends, node ends the stream, or nothing came for QuietLimit. The error
// is never nil.
func (c *Client) Follow(ctx context.Context, node string, from Place, take func(Frame) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	quiet := time.AfterFunc(QuietLimit, func() { cancel(fmt.Errorf("%s sent nothing for %v", node, QuietLimit)) })
	defer quiet.Stop()
	err := c.followOnce(ctx, node, from, func() { quiet.Reset(QuietLimit) }, take)
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return err
}

func (c *Client) followOnce(ctx context.Context, node string, from Place, alive func(), take func(Frame) error) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+node+"/peer/follow?"+from.query(), nil)
	if err != nil {
		return err
	}
	resp, err := c.of(node).Do(req)
	if err != nil {
		return fmt.Errorf("follow %s: %w", node, err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("follow %s: %s", node, resp.Status) // another version?
	}
	if resp.Header.Get("Content-Type") != streamType {
		var r reply
		if err := json.NewDecoder(io.LimitReader(resp.Body, maxBody)).Decode(&r); err != nil {
			return fmt.Errorf("follow %s: %w", node, err)
		}
		return Refusal{Node: node, Why: r.Err}
	}
	in := bufio.NewReaderSize(resp.Body, 64<<10)
	for {
		f, err := readFrame(noisy{in, alive})
		if err != nil {
			return fmt.Errorf("follow %s: %w", node, err)
		}
		if err := take(f); err != nil {
			return err
		}
		alive() // a large state takes its time
	}
}

// noisy tells of each read that brought something: a large frame comes in pieces.
type noisy struct {
	io.Reader
	alive func()
}

func (r noisy) Read(b []byte) (int, error) {
	n, err := r.Reader.Read(b)
	if n > 0 {
		r.alive()
	}
	return n, err
}

// errFrame is a frame that no node sends.
var errFrame = errors.New("malformed frame")

func readFrame(in io.Reader) (Frame, error) {
	var head [frameHead]byte
	if _, err := io.ReadFull(in, head[:]); err != nil {
		return Frame{}, err
	}
	f := Frame{Kind: FrameKind(head[0]), Index: binary.BigEndian.Uint64(head[1:]), Term: binary.BigEndian.Uint64(head[9:])}
	n := binary.BigEndian.Uint32(head[17:])
	if f.Kind < FrameEntry || f.Kind > FrameLeader || n > maxFrame {
		return Frame{}, errFrame
	}
	// Memory is taken as bytes come, not as they are announced.
	b, err := io.ReadAll(io.LimitReader(in, int64(n)))
	if err == nil && len(b) < int(n) {
		err = io.ErrUnexpectedEOF
	}
	f.Data = b
	return f, err
}
