package fsm

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Backup is the replicated state in a file. It has no secret: keys and tokens are in it by
// fingerprint and hash.
type Backup struct {
	Node string    `json:"node"` // whose copy it is
	At   time.Time `json:"at"`
	// Of the state, so that they are seen without reading it.
	Cluster    string `json:"cluster"`
	Generation uint64 `json:"generation"`
	Index      uint64 `json:"index"`
	Size       int    `json:"size"` // of the state, in bytes

	State *State `json:"-"`
}

// backupWord is the first line of a backup; what follows is the Backup as JSON on one
// line, the state as in a snapshot of raft, and the SHA-256 of all that in hex.
const backupWord = "hanode-snapshot-1\n"

// Backup renders the state of the machine for a file.
func (m *Machine) Backup(node string, at time.Time) ([]byte, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	b, err := json.Marshal(m.st)
	if err != nil {
		return nil, fmt.Errorf("encode the state: %w", err)
	}
	body := append([]byte{encodingVersion}, b...)
	head, err := json.Marshal(Backup{Node: node, At: at, Cluster: m.st.Cluster, Generation: m.st.Generation, Index: m.st.Index, Size: len(body)})
	if err != nil {
		return nil, fmt.Errorf("encode the snapshot's head: %w", err)
	}
	out := append([]byte(backupWord), head...)
	out = append(append(out, '\n'), body...)
	return append(out, sumOf(out)...), nil
}

func sumOf(b []byte) []byte {
	sum := sha256.Sum256(b)
	return []byte("\n" + hex.EncodeToString(sum[:]) + "\n")
}

// ReadBackup is the inverse of Machine.Backup. Half of a file, or a changed one, is refused.
func ReadBackup(b []byte) (Backup, error) {
	var out Backup
	rest, ok := bytes.CutPrefix(b, []byte(backupWord))
	if !ok {
		return out, errors.New("it is no snapshot; one begins with hanode-snapshot-1")
	}
	sum := len(sumOf(nil))
	if len(b) < len(backupWord)+sum || !bytes.Equal(sumOf(b[:len(b)-sum]), b[len(b)-sum:]) {
		return out, errors.New("its checksum does not fit: it is damaged, or not whole")
	}
	head, body, _ := bytes.Cut(rest[:len(rest)-sum], []byte("\n"))
	if err := json.Unmarshal(head, &out); err != nil {
		return out, fmt.Errorf("read its head: %w", err)
	}
	if out.Size != len(body) {
		return out, fmt.Errorf("the state has %d bytes, not %d", len(body), out.Size)
	}
	m := NewMachine()
	if err := m.Restore(body); err != nil {
		return out, err
	}
	out.State = m.Copy()
	if s := out.State; !s.Founded() || s.Cluster != out.Cluster || s.Generation != out.Generation || s.Index != out.Index {
		return out, errors.New("its head is of another state")
	}
	return out, nil
}

// MachineOf returns a machine in a state that is nobody else's.
func MachineOf(s *State) *Machine { return &Machine{st: s} }
