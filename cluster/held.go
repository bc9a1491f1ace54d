package cluster

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/hashicorp/raft"
)

// Held is what a disk has promised not to forget: the newest term in which it voted
// or followed, and how far its log reaches. It is told only of what is on the disk.
type Held struct {
	Disk     uint64   `json:"d"` // which of the node's data directories
	Term     uint64   `json:"t"`
	Position Position `json:"p"`
}

// Encode renders it behind dst.
func (h Held) Encode(dst []byte) []byte {
	b, err := json.Marshal(h)
	if err != nil {
		panic("hanode: encode held: " + err.Error()) // plain integers: cannot fail
	}
	return append(dst, b...)
}

// ParseHeld decodes it.
func ParseHeld(b []byte) (h Held, err error) {
	if err := json.Unmarshal(b, &h); err != nil {
		return Held{}, fmt.Errorf("held: %w", err)
	}
	return h, nil
}

// Behind reports whether a disk that holds h is an older state of the node than
// known, which others heard of it: it may have forgotten a vote or an entry. Logs
// grow by term first: a follower that drops entries of a lost leader gets others of a
// newer term at once. If it crashes just in between it looks older than it is, and
// joins anew without need.
func (h Held) Behind(known Held) bool {
	if h.Disk != known.Disk {
		return h.Disk < known.Disk
	}
	return h.Term < known.Term || h.Position.Before(known.Position)
}

// Furthest is the most of both that was ever true of the newer disk.
func (h Held) Furthest(o Held) Held {
	if h.Disk != o.Disk {
		if h.Disk < o.Disk {
			return o
		}
		return h
	}
	h.Term = max(h.Term, o.Term)
	if h.Position.Before(o.Position) {
		h.Position = o.Position
	}
	return h
}

// Before reports whether a log at p is older than one at o: by term first, as raft
// compares them.
func (p Position) Before(o Position) bool {
	return p.LastTerm < o.LastTerm || p.LastTerm == o.LastTerm && p.LastIndex < o.LastIndex
}

// Held is what this node's disk holds now. Raft writes a term and an entry before it
// counts them.
func (n *Node) Held() Held {
	return Held{Disk: n.cfg.Disk, Term: n.raft.CurrentTerm(), Position: n.Position()}
}

// Progress changes whenever what the disk holds gets further; where entries of a lost
// leader are replaced by as many others, a moment later. Much cheaper to ask than Held.
type Progress struct{ Term, Index, Commit uint64 }

// Progress is where raft is now.
func (n *Node) Progress() Progress {
	return Progress{n.raft.CurrentTerm(), n.raft.LastIndex(), n.raft.CommitIndex()}
}

// Remembered reads what stores hold before raft is started on them (Disk is the
// caller's to fill in), and who votes by the newest configuration there; nobody if
// there is none.
func Remembered(s Stores) (h Held, voters []string, err error) {
	h.Term, err = s.Stable.GetUint64([]byte("CurrentTerm"))
	if err != nil && err.Error() != "not found" { // as raft tells it
		return Held{}, nil, fmt.Errorf("read raft's term: %w", err)
	}
	var c raft.Configuration
	snaps, err := s.Snapshots.List()
	if err != nil {
		return Held{}, nil, fmt.Errorf("list snapshots: %w", err)
	}
	if len(snaps) > 0 {
		h.Position, c = Position{snaps[0].Term, snaps[0].Index}, snaps[0].Configuration
	}
	first, err1 := s.Log.FirstIndex()
	last, err2 := s.Log.LastIndex()
	if err := errors.Join(err1, err2); err != nil {
		return Held{}, nil, fmt.Errorf("read raft's log: %w", err)
	}
	for i := last; i > 0 && i >= first; i-- {
		var l raft.Log
		if err := s.Log.GetLog(i, &l); err != nil {
			return Held{}, nil, fmt.Errorf("read entry %d of raft's log: %w", i, err)
		}
		if p := (Position{l.Term, l.Index}); i == last && h.Position.Before(p) {
			h.Position = p
		}
		if l.Type == raft.LogConfiguration {
			c = raft.DecodeConfiguration(l.Data)
			break
		}
	}
	for _, x := range c.Servers {
		if x.Suffrage == raft.Voter {
			voters = append(voters, string(x.Address))
		}
	}
	return h, voters, nil
}
