package peer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"testing"
	"time"
)

// Follow answers with frames that tell what was asked, then with as many as it is told to.
func (a *agent) Follow(ctx context.Context, asker string, from Place, send func(...Frame) error) error {
	index, term := from.Index, from.Term
	a.asked("follower")
	if asker != "a" || from.Generation != 5 {
		return fmt.Errorf("%s of generation %d follows", asker, from.Generation)
	}
	if a.err != nil {
		return a.err
	}
	if err := send(Frame{Kind: FrameLeader, Term: term, Data: []byte("b")}, Frame{Kind: FrameSnapshot, Index: index, Term: 3, Data: bytes.Repeat([]byte("s"), 1<<20)}); err != nil {
		return err
	}
	for i := range uint64(3) {
		if err := send(Frame{Kind: FrameEntry, Index: index + i + 1, Term: 3, Data: []byte{byte(i)}}); err != nil {
			return err
		}
	}
	if index == 99 { // silent from here on
		<-ctx.Done()
	}
	return errors.New("b does not vote any more")
}

func TestFollow(t *testing.T) {
	l := newLab(t, nil)
	c := l.client("a")
	var got []Frame
	take := func(f Frame) error { got = append(got, f); return nil }
	if err := c.Follow(t.Context(), "b", Place{7, 2, 5}, take); err == nil || !errors.Is(err, io.EOF) {
		t.Errorf("the stream ended with %v", err)
	}
	if len(got) != 5 || got[0].Term != 2 || string(got[0].Data) != "b" || got[1].Index != 7 || len(got[1].Data) != 1<<20 || got[4].Index != 10 || got[4].Data[0] != 2 {
		t.Errorf("%d frames came", len(got))
	}
	stop := errors.New("enough")
	if err := c.Follow(t.Context(), "b", Place{7, 2, 5}, func(Frame) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("the taker's own error came back as %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := c.Follow(ctx, "b", Place{99, 2, 5}, take); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a stream that brings nothing ended with %v", err)
	}
	l.svc.err = errors.New("b does not vote")
	if err := c.Follow(t.Context(), "b", Place{7, 2, 5}, take); err == nil || !strings.Contains(err.Error(), "b does not vote") {
		t.Errorf("a refusal came as %v", err)
	}
}

// FuzzReadFrame: whatever comes, memory is taken for what came only.
func FuzzReadFrame(f *testing.F) {
	f.Add([]byte{1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 1, 'x'})
	f.Add([]byte{2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 15, 255, 255, 255, 'x'})
	f.Fuzz(func(t *testing.T, b []byte) {
		frame, err := readFrame(bytes.NewReader(b))
		if err == nil && (len(frame.Data) > len(b) || frame.Kind < FrameEntry || frame.Kind > FrameLeader) {
			t.Errorf("%+v of %x", frame, b)
		}
	})
}

// FuzzPlace: what is taken for a place is written as it was read.
func FuzzPlace(f *testing.F) {
	f.Add("after=7&term=2&generation=0")
	f.Add("after=18446744073709551615&term=-1&generation=1")
	f.Add("after=7&after=8&term=2&generation=1&x=%zz")
	f.Fuzz(func(t *testing.T, s string) {
		q, err := url.ParseQuery(s)
		if err != nil {
			return
		}
		p, err := parsePlace(q)
		if err != nil {
			return
		}
		q, err = url.ParseQuery(p.query())
		if again, err2 := parsePlace(q); err != nil || err2 != nil || again != p {
			t.Errorf("%q is %+v, and again %+v (%v, %v)", s, p, again, err, err2)
		}
	})
}
