package api

import (
	"bytes"
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// The keys of every form, as the contract names them. Changing one breaks
// scripts that people wrote.
var contract = []struct {
	v    any
	keys string
}{
	{Member{}, "address follows last_beat_ms leader lease_ms links log name role state voter voter_why"},
	{RemoveResult{}, "confirm node removed voters"},
	{Token{}, "expires id join made state token used_by"},
	{Snapshot{}, "data"},
	{KeyStatus{}, "nodes retired rotation"},
	{Rotation{}, "from phase since to waits_for why without"},
	{NodeKeys{}, "active keys node problem"},
	{RetiredKey{}, "at key undone"},
	{MemberLink{}, "address last_beat_ms name state"},
	{Status{}, "cluster groups leader problems quorum"},
	{GroupStatus{}, "epoch failures name nodes owner resources since state"},
	{GroupFailure{}, "count node retry_ms text"},
	{ClearResult{}, "cleared"},
	{Cleared{}, "group node"},
	{ResourceStatus{}, "name state type"},
	{NodeReport{}, "error node resources"},
	{ResourceReport{}, "error name operations state type"},
	{OperationReport{}, "at error ms name output running"},
	{StatusProblem{}, "code fix severity since text"},
	{Plan{}, "changes"},
	{Change{}, "action group moves stops text"},
	{ApplyResult{}, "adopted changes groups"},
	{Adoption{}, "group node stopped what"},
	{MoveResult{}, "epoch from group silent_ms to"},
	{NodeResult{}, "moves node standby"},
	{ConfirmOffResult{}, "confirm groups incarnations node"},
	{Event{}, "cause epoch group index kind ms node output text time"},
	{Why{}, "epoch group if_owner_dies owner reasons"},
	{Reason{}, "because eligible node score"},
	{Tuning{}, "fits for_ms heard node profile recommended since stall_ms stalls timing verdict why"},
	{Timing{}, "deadtime_ms initdead_ms keepalive_ms warntime_ms"},
	{BeatGaps{}, "beats longest_at longest_ms node outage_ms outages p99_ms"},
	{Version{}, "cluster go node version"},
	{Heartbeat{}, "clients nodes parameters ping"},
	{PingNode{}, "name up"},
	{Exported{}, "groups"},
	{Group{}, "after apart checks exclusive failback max_per_node name on_acquire on_problem on_release prefer resources retry_after_ms weight with"},
	{Check{}, "after command fall grace_ms interval_ms rise target timeout_ms type"},
	{Failback{}, "after_ms on"},
	{Route{}, "metric table to via"},
	{Rule{}, "priority table to"},
	{Resource{}, "agent broadcast concurrent dev every_ms label monitor monitor_timeout_ms name network on_acquire params restarts routes rules source start start_timeout_ms stop stop_timeout_ms timeout_ms type within_ms"},
	{Error{}, "code exit fix message"},
}

func TestNoKeyIsLeftOut(t *testing.T) {
	for _, c := range contract {
		typ := reflect.TypeOf(c.v)
		full := reflect.New(typ).Elem()
		fillValue(full)
		for name, v := range map[string]any{"empty": c.v, "full": full.Interface()} {
			var buf bytes.Buffer
			if err := WriteJSON(&buf, v, false); err != nil {
				t.Fatalf("%s %s: %v", name, typ, err)
			}
			var m map[string]json.RawMessage
			if err := json.Unmarshal(buf.Bytes(), &m); err != nil {
				t.Fatalf("%s %s: %v", name, typ, err)
			}
			var keys []string
			for k, raw := range m {
				keys = append(keys, k)
				if name == "full" && string(raw) == "null" {
					t.Errorf("%s: %s is null though it is known", typ, k)
				}
			}
			slices.Sort(keys)
			if got := strings.Join(keys, " "); got != c.keys {
				t.Errorf("%s %s has keys\n  %s, want\n  %s", name, typ, got, c.keys)
			}
		}
	}
}

// Unknown is null, an empty list is [], and only that: a pointer is what may be
// unknown, a List what may be empty.
func TestUnknownIsNullAndEmptyIsAList(t *testing.T) {
	for _, c := range contract {
		typ := reflect.TypeOf(c.v)
		var buf bytes.Buffer
		if err := WriteJSON(&buf, c.v, false); err != nil {
			t.Fatal(err)
		}
		var m map[string]json.RawMessage
		if err := json.Unmarshal(buf.Bytes(), &m); err != nil {
			t.Fatal(err)
		}
		for i := range typ.NumField() {
			f := typ.Field(i)
			raw := string(m[f.Tag.Get("json")])
			switch f.Type.Kind() {
			case reflect.Pointer:
				if raw != "null" {
					t.Errorf("%s.%s: unknown is %s, want null", typ, f.Name, raw)
				}
			case reflect.Slice:
				if raw != "[]" {
					t.Errorf("%s.%s: empty is %s, want []", typ, f.Name, raw)
				}
			default:
				if raw == "null" {
					t.Errorf("%s.%s is null", typ, f.Name)
				}
			}
		}
	}
}

func TestDurationsEndInMS(t *testing.T) {
	for _, c := range contract {
		typ := reflect.TypeOf(c.v)
		for i := range typ.NumField() {
			f := typ.Field(i)
			if f.Type == reflect.TypeFor[time.Duration]() || f.Type == reflect.TypeFor[*time.Duration]() {
				t.Errorf("%s.%s is a time.Duration; JSON has numbers of milliseconds", typ, f.Name)
			}
		}
	}
}

// Arrows in texts stay arrows: people read the JSON too.
func TestTextIsNotEscaped(t *testing.T) {
	var buf bytes.Buffer
	p := Plan{Changes: []Change{{Text: "moves: a -> b"}}}
	if err := WriteJSON(&buf, p, false); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(buf.String(), "a -> b") {
		t.Errorf("got %s", buf.String())
	}
}

// fillValue sets v and all in it to something that is not zero.
func fillValue(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fillValue(v.Elem())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range v.Len() {
			fillValue(v.Index(i))
		}
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(time.Unix(1, 0)))
			return
		}
		for i := range v.NumField() {
			fillValue(v.Field(i))
		}
	case reflect.Map:
		v.Set(reflect.ValueOf(map[string]string{"x": "x"}).Convert(v.Type()))
	case reflect.String:
		v.SetString("x")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(3)
	case reflect.Uint64:
		v.SetUint(3)
	case reflect.Float64:
		v.SetFloat(3)
	default:
		panic("fillValue knows no " + v.Kind().String())
	}
}
