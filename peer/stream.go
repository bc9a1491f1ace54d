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

// Follower is what an agent gives to those that follow it.
type Follower interface {
	// Follow sends what comes after that entry, until ctx ends or this node should not be
	// followed any more, which the error says. Term 0: the asker does not know it. send
	// waits until the frames are on their way.
	Follow(ctx context.Context, index, term uint64, send func(...Frame) error) error
}

const (
	streamType = "application/x-hanode-stream"
	// maxFrame is a snapshot of a very large cluster.
	maxFrame = 256 << 20
	// sendLimit is how long a follower may take nothing.
	sendLimit = 10 * time.Second
	// QuietLimit is how long a stream may bring nothing: whoever sends it says each second
	// who leads.
	QuietLimit = 4 * time.Second
)

const frameHead = 1 + 8 + 8 + 4

func follow(mux *http.ServeMux, svc Follower) {
	mux.HandleFunc("POST /peer/follow", func(w http.ResponseWriter, r *http.Request) {
		index, err := strconv.ParseUint(r.URL.Query().Get("after"), 10, 64)
		term, err2 := strconv.ParseUint(r.URL.Query().Get("term"), 10, 64)
		if err = errors.Join(err, err2); err != nil {
			answer(w, nil, fmt.Errorf("which entry to go on from: %w", err))
			return
		}
		out := http.NewResponseController(w)
		began := false
		send := func(frames ...Frame) error {
			if !began {
				w.Header().Set("Content-Type", streamType)
				began = true
			}
			if err := out.SetWriteDeadline(time.Now().Add(sendLimit)); err != nil {
				return err
			}
			for _, f := range frames {
				head := make([]byte, frameHead)
				head[0] = byte(f.Kind)
				binary.BigEndian.PutUint64(head[1:], f.Index)
				binary.BigEndian.PutUint64(head[9:], f.Term)
				binary.BigEndian.PutUint32(head[17:], uint32(len(f.Data)))
				if _, err := w.Write(head); err != nil {
					return err
				}
				if _, err := w.Write(f.Data); err != nil {
					return err
				}
			}
			return out.Flush()
		}
		err = svc.Follow(r.Context(), index, term, send)
		if !began {
			answer(w, nil, err)
		}
	})
}

// Follow has node send what it applies after that entry, and calls take for each
// frame, until ctx ends, node ends the stream, or nothing came for QuietLimit. The error
// is never nil.
func (c *Client) Follow(ctx context.Context, node string, index, term uint64, take func(Frame) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	quiet := time.AfterFunc(QuietLimit, func() { cancel(fmt.Errorf("%s sent nothing for %v", node, QuietLimit)) })
	defer quiet.Stop()
	err := c.followOnce(ctx, node, index, term, func(f Frame) error {
		quiet.Reset(QuietLimit)
		return take(f)
	})
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return err
}

func (c *Client) followOnce(ctx context.Context, node string, index, term uint64, take func(Frame) error) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, fmt.Sprintf("http://%s/peer/follow?after=%d&term=%d", node, index, term), nil)
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
		f, err := readFrame(in)
		if err != nil {
			return fmt.Errorf("follow %s: %w", node, err)
		}
		if err := take(f); err != nil {
			return err
		}
	}
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
