package resource

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"

	"hanode/internal/atomicfile"
	"hanode/internal/spec"
)

// Journal remembers on disk what may be running, so that an agent that was killed
// can stop it at its next start (R8). An entry is written before the start and
// dropped after the verified stop. Safe for concurrent use.
type Journal struct {
	path string
	mu   sync.Mutex
	m    map[string]entry
	seq  uint64 // of the newest entry
}

type entry struct {
	Group    string        `json:"group"`
	Resource spec.Resource `json:"resource"`
	// Seq orders the entries by their starts; they are stopped the other way round.
	Seq uint64 `json:"seq"`
}

// OpenJournal reads the journal at path. An unreadable one is an error: what it
// listed may still run.
func OpenJournal(path string) (*Journal, error) {
	j := &Journal{path: path, m: map[string]entry{}}
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return j, nil
	}
	if err != nil {
		return nil, err
	}
	err = json.Unmarshal(b, &j.m)
	if err == nil && j.m == nil {
		err = errors.New("it holds no entries, not even none")
	}
	if err != nil {
		return nil, fmt.Errorf("%s is damaged (%w): it lists services that may be running; stop them by hand, then remove the file", path, err)
	}
	for _, e := range j.m {
		j.seq = max(j.seq, e.Seq)
	}
	return j, nil
}

func key(group string, r spec.Resource) string { return group + "/" + r.Type + "/" + r.Name }

func (j *Journal) note(group string, r spec.Resource) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.seq++
	j.m[key(group, r)] = entry{group, r, j.seq}
	return j.save()
}

func (j *Journal) drop(group string, r spec.Resource) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	delete(j.m, key(group, r))
	return j.save()
}

func (j *Journal) save() error {
	b, err := json.Marshal(j.m)
	if err != nil {
		return err
	}
	return atomicfile.Write(j.path, b)
}

// CleanUp stops everything that an earlier agent may have left running, the last
// started first, and verifies it. What does not stop stays in the journal and is in the error.
func (j *Journal) CleanUp(ctx context.Context, node string) (stopped []string, err error) {
	j.mu.Lock()
	left := slices.Collect(maps.Values(j.m))
	j.mu.Unlock()
	slices.SortFunc(left, func(a, b entry) int { return cmp.Compare(b.Seq, a.Seq) })
	d := execDriver{j}
	for _, e := range left {
		env := Env{Group: e.Group, Node: node, Reason: "clean-up"}
		if stopErr := d.Stop(ctx, e.Resource, env); stopErr != nil {
			err = errors.Join(err, stopErr)
			continue
		}
		stopped = append(stopped, key(e.Group, e.Resource))
	}
	return stopped, err
}
