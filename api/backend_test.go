package api

import (
	"context"
	"time"

	"hanode/internal/spec"
)

// countingBackend is an agent without groups and nodes, which counts how often
// it is asked. Where a test needs a cluster it takes apitest's.
type countingBackend struct{ calls int }

func (b *countingBackend) Members(context.Context) ([]Member, error) {
	b.calls++
	return nil, nil
}

func (b *countingBackend) Status(context.Context, string) (*Status, error) {
	b.calls++
	return &Status{}, nil
}

func (b *countingBackend) Plan(context.Context, []spec.Group) (*Plan, error) {
	b.calls++
	return &Plan{}, nil
}

func (b *countingBackend) Apply(context.Context, ApplyRequest) (*ApplyResult, error) {
	b.calls++
	return &ApplyResult{}, nil
}

func (b *countingBackend) Export(context.Context) ([]spec.Group, error) {
	b.calls++
	return nil, nil
}

func (b *countingBackend) Move(_ context.Context, r MoveRequest) (*MoveResult, error) {
	b.calls++
	return &MoveResult{Group: r.Group, To: r.To}, nil
}

func (b *countingBackend) Standby(_ context.Context, node string, on bool, _ time.Duration) (*NodeResult, error) {
	b.calls++
	return &NodeResult{Node: node, Standby: on}, nil
}

func (b *countingBackend) Maintenance(context.Context, bool) error {
	b.calls++
	return nil
}

func (b *countingBackend) Clear(context.Context, ClearRequest) (*ClearResult, error) {
	b.calls++
	return &ClearResult{}, nil
}

func (b *countingBackend) ConfirmOff(_ context.Context, r ConfirmOffRequest) (*ConfirmOffResult, error) {
	b.calls++
	return &ConfirmOffResult{Node: r.Node}, nil
}

func (b *countingBackend) Remove(_ context.Context, r RemoveRequest) (*RemoveResult, error) {
	b.calls++
	return &RemoveResult{Node: r.Node}, nil
}

func (b *countingBackend) CreateToken(context.Context, time.Duration) (*Token, error) {
	b.calls++
	return &Token{}, nil
}

func (b *countingBackend) Tokens(context.Context) ([]Token, error) {
	b.calls++
	return nil, nil
}

func (b *countingBackend) RevokeToken(context.Context, string) error {
	b.calls++
	return nil
}

func (b *countingBackend) RotateKey(context.Context, RotateKeyRequest) (*KeyStatus, error) {
	b.calls++
	return &KeyStatus{}, nil
}

func (b *countingBackend) Snapshot(context.Context) (*Snapshot, error) {
	b.calls++
	return &Snapshot{}, nil
}

func (b *countingBackend) KeyStatus(context.Context) (*KeyStatus, error) {
	b.calls++
	return &KeyStatus{}, nil
}

func (b *countingBackend) Leave(context.Context) error {
	b.calls++
	return nil
}

func (b *countingBackend) Events(context.Context, uint64, bool, func(Event) error) error {
	b.calls++
	return nil
}

func (b *countingBackend) Why(_ context.Context, group string) (*Why, error) {
	b.calls++
	return &Why{Group: group}, nil
}

func (b *countingBackend) Tune(context.Context, bool) (*Tuning, error) {
	b.calls++
	return &Tuning{}, nil
}

func (b *countingBackend) Version() Version {
	b.calls++
	return Version{}
}

func (b *countingBackend) Heartbeat() Heartbeat {
	b.calls++
	return Heartbeat{}
}
