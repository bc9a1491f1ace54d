package api

import (
	"errors"
	"fmt"
	"io"
	"time"
)

// The requests as they travel. What must be said is a pointer, so that a key
// left out is refused and never read as "remove everything" or "off".
type (
	planBody struct {
		Groups *List[Group] `json:"groups"`
	}
	applyBody struct {
		Groups  *List[Group] `json:"groups"`
		WaitMS  float64      `json:"wait_ms"`
		NoProbe bool         `json:"no_probe,omitempty"`
		Adopt   bool         `json:"adopt,omitempty"`
	}
	moveBody struct {
		Group  string  `json:"group"`
		To     *string `json:"to"`
		Unpin  bool    `json:"unpin"`
		WaitMS float64 `json:"wait_ms"`
	}
	nodeBody struct {
		Node   string  `json:"node"`
		On     *bool   `json:"on"`
		WaitMS float64 `json:"wait_ms"`
	}
	clearBody struct {
		Group *string `json:"group"`
		Node  *string `json:"node"`
	}
	confirmOffBody struct {
		Node    string `json:"node"`
		Confirm string `json:"confirm"`
	}
	removeBody struct {
		Node    string  `json:"node"`
		Confirm string  `json:"confirm"`
		WaitMS  float64 `json:"wait_ms"`
	}
	tokenBody struct {
		TTLMS *float64 `json:"ttl_ms"`
	}
	rotateKeyBody struct {
		Without List[string] `json:"without"`
		Undo    *bool        `json:"undo"`
		WaitMS  float64      `json:"wait_ms"`
	}
	idBody struct {
		ID string `json:"id"`
	}
	switchBody struct {
		On *bool `json:"on"`
	}
	resetBody struct {
		Reset *bool `json:"reset"`
	}
)

// nodeRequest is what Standby takes.
type nodeRequest struct {
	node string
	on   bool
	wait time.Duration
}

var errNoGroups = errors.New("groups is missing; an empty list, and only that, removes every group")

func decodePlan(r io.Reader) (ApplyRequest, error) {
	var b planBody
	if err := readStrict(r, &b); err != nil {
		return ApplyRequest{}, err
	}
	return applyRequest(applyBody{Groups: b.Groups})
}

func decodeApply(r io.Reader) (ApplyRequest, error) {
	var b applyBody
	if err := readStrict(r, &b); err != nil {
		return ApplyRequest{}, err
	}
	return applyRequest(b)
}

func applyRequest(b applyBody) (req ApplyRequest, err error) {
	if b.Groups == nil {
		return req, errNoGroups
	}
	if req.Groups, err = Specs(*b.Groups); err != nil {
		return req, err
	}
	req.NoProbe, req.Adopt = b.NoProbe, b.Adopt
	req.Wait, err = duration("wait_ms", b.WaitMS)
	return req, err
}

func decodeMove(r io.Reader) (req MoveRequest, err error) {
	var b moveBody
	if err := readStrict(r, &b); err != nil {
		return req, err
	}
	if err := checkName("group", b.Group); err != nil {
		return req, err
	}
	req.Group, req.Unpin = b.Group, b.Unpin
	if b.To != nil {
		if err := checkName("to", *b.To); err != nil {
			return req, err
		}
		req.To = *b.To
	}
	if req.Unpin && req.To != "" {
		return req, fmt.Errorf("unpin and to = %q exclude each other", req.To)
	}
	req.Wait, err = duration("wait_ms", b.WaitMS)
	return req, err
}

func decodeNode(r io.Reader) (req nodeRequest, err error) {
	var b nodeBody
	if err := readStrict(r, &b); err != nil {
		return req, err
	}
	if err := checkName("node", b.Node); err != nil {
		return req, err
	}
	if b.On == nil {
		return req, errors.New("on is missing; true is standby, false is online")
	}
	req.node, req.on = b.Node, *b.On
	req.wait, err = duration("wait_ms", b.WaitMS)
	return req, err
}

func decodeClear(r io.Reader) (req ClearRequest, err error) {
	var b clearBody
	if err := readStrict(r, &b); err != nil {
		return req, err
	}
	for _, f := range []struct {
		to   *string
		name string
		from *string
	}{{&req.Group, "group", b.Group}, {&req.Node, "node", b.Node}} {
		if f.from == nil {
			continue
		}
		if err := checkName(f.name, *f.from); err != nil {
			return ClearRequest{}, err
		}
		*f.to = *f.from
	}
	return req, nil
}

func decodeConfirmOff(r io.Reader) (req ConfirmOffRequest, err error) {
	var b confirmOffBody
	if err := readStrict(r, &b); err != nil {
		return req, err
	}
	return ConfirmOffRequest(b), checkName("node", b.Node)
}

func decodeRemove(r io.Reader) (req RemoveRequest, err error) {
	var b removeBody
	if err := readStrict(r, &b); err != nil {
		return req, err
	}
	if err := checkName("node", b.Node); err != nil {
		return req, err
	}
	req.Node, req.Confirm = b.Node, b.Confirm
	req.Wait, err = duration("wait_ms", b.WaitMS)
	return req, err
}

func decodeToken(r io.Reader) (req TokenRequest, err error) {
	var b tokenBody
	if err := readStrict(r, &b); err != nil {
		return req, err
	}
	if b.TTLMS == nil || *b.TTLMS <= 0 {
		return req, errors.New("ttl_ms is missing; it is how long the token may be used, above 0")
	}
	req.TTL, err = duration("ttl_ms", *b.TTLMS)
	return req, err
}

func decodeRotateKey(r io.Reader) (req RotateKeyRequest, err error) {
	var b rotateKeyBody
	if err := readStrict(r, &b); err != nil {
		return req, err
	}
	if b.Undo == nil {
		return req, errors.New("undo is missing; false begins a change of the key, true takes one back")
	}
	for _, name := range b.Without {
		if err := checkName("node", name); err != nil {
			return req, err
		}
	}
	req.Without, req.Undo = b.Without, *b.Undo
	req.Wait, err = duration("wait_ms", b.WaitMS)
	return req, err
}

func decodeID(r io.Reader) (string, error) {
	var b idBody
	if err := readStrict(r, &b); err != nil {
		return "", err
	}
	return b.ID, checkName("id", b.ID)
}

func decodeSwitch(r io.Reader) (bool, error) {
	var b switchBody
	if err := readStrict(r, &b); err != nil {
		return false, err
	}
	if b.On == nil {
		return false, errors.New("on is missing; it is true or false")
	}
	return *b.On, nil
}

func decodeReset(r io.Reader) (bool, error) {
	var b resetBody
	if err := readStrict(r, &b); err != nil {
		return false, err
	}
	if b.Reset == nil {
		return false, errors.New("reset is missing; true starts measuring anew, false only reports")
	}
	return *b.Reset, nil
}

func decodeEmpty(r io.Reader) (struct{}, error) {
	var b struct{}
	return b, readStrict(r, &b)
}
