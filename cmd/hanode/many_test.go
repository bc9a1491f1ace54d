package main

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hanode/api"
)

func TestManyAreCounted(t *testing.T) {
	p := func(s string) *string { return &s }
	res := func(typ, name, state string) api.ResourceStatus {
		s := api.GroupState(state)
		return api.ResourceStatus{Type: typ, Name: name, State: &s}
	}
	var rs []api.ResourceStatus
	for i := range 1000 {
		rs = append(rs, res("ip", fmt.Sprintf("10.0.%d.%d", i/250, i%250), "running"))
	}
	rs[500] = res("ip", "10.0.2.0", "failed")
	rs = append(rs, res("exec", "app", "running"))
	want := []resourceRow{
		{"500 ip, 10.0.0.0 to 10.0.1.249", "running"},
		{"ip 10.0.2.0", "failed"},
		{"499 ip, 10.0.2.1 to 10.0.3.249", "running"},
		{"exec app", "running"},
	}
	if diff := cmp.Diff(want, resourceRows(rs, false), cmp.AllowUnexported(resourceRow{})); diff != "" {
		t.Error(diff)
	}
	if n := len(resourceRows(rs, true)); n != len(rs) {
		t.Errorf("asked for by name: %d rows, want %d", n, len(rs))
	}
	running, failed := api.GroupRunning, api.GroupFailed
	var gs []api.GroupStatus
	for i := range 1000 {
		gs = append(gs, api.GroupStatus{Name: fmt.Sprintf("g%d", i), Owner: p("primary"), State: &running})
	}
	gs[7].State = &failed
	list, order, n := countGroups(gs)
	if len(list) != 1 || list[0].Name != "g7" || len(order) != 1 || n[order[0]] != 999 {
		t.Errorf("listed %v, counted %v", list, n)
	}
}
