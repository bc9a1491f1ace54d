package resource

import (
	"cmp"
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
// dropped after the verified stop. Safe for concurrent use. Addresses are not in
// it: package vip has a list of its own.
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
	// Cgroup is the control group of its processes; "" = none.
	Cgroup string `json:"cgroup,omitempty"`
}

func openJournal(path string) (*Journal, error) {
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

func (j *Journal) note(group string, r spec.Resource, cgroup string) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.seq++
	j.m[key(group, r)] = entry{group, r, j.seq, cgroup}
	return j.save()
}

func (j *Journal) drop(group string, r spec.Resource) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if _, ok := j.m[key(group, r)]; !ok {
		return nil
	}
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

// byGroup lists the entries of each group, the last started first.
func (j *Journal) byGroup() [][]entry {
	j.mu.Lock()
	defer j.mu.Unlock()
	groups := map[string][]entry{}
	for _, e := range j.m {
		groups[e.Group] = append(groups[e.Group], e)
	}
	var out [][]entry
	for _, name := range slices.Sorted(maps.Keys(groups)) {
		slices.SortFunc(groups[name], func(a, b entry) int { return cmp.Compare(b.Seq, a.Seq) })
		out = append(out, groups[name])
	}
	return out
}
