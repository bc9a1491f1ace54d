package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"time"
)

// List is a slice whose JSON is never null: an empty list is [].
// A plain []T can be assigned to it.
type List[T any] []T

// MarshalJSON implements json.Marshaler.
func (l List[T]) MarshalJSON() ([]byte, error) {
	if len(l) == 0 {
		return []byte("[]"), nil
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false) // the outer encoder escapes if it wants to
	if err := enc.Encode([]T(l)); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

// Known returns nil for the zero value, which in a field of this package means
// unknown or nobody, and else a pointer to a copy of v.
func Known[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}
	return &v
}

// MS is d as a number of milliseconds, the form of every _ms field.
func MS(d time.Duration) float64 { return float64(d) / 1e6 }

const (
	// maxMS bounds every duration a request may hold: ten years.
	maxMS = 10 * 365 * 24 * 3600 * 1000
	// exactMS is where a float64 of milliseconds stops telling nanoseconds apart
	// safely: ten days. Beyond it durations are whole microseconds.
	exactMS = 10 * 24 * 3600 * 1000
)

// duration is the inverse of MS, for durations from 0 to maxMS.
func duration(field string, ms float64) (time.Duration, error) {
	if !(ms >= 0 && ms <= maxMS) {
		return 0, fmt.Errorf("%s is %v; it must be from 0 to %d", field, ms, int64(maxMS))
	}
	if ms > exactMS {
		return time.Duration(math.Round(ms*1e3)) * time.Microsecond, nil
	}
	return time.Duration(math.Round(ms * 1e6)), nil
}

// WriteJSON writes v and a newline, indented for people if indent.
func WriteJSON(w io.Writer, v any, indent bool) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	if indent {
		enc.SetIndent("", "  ")
	}
	return enc.Encode(v)
}

// readStrict reads exactly one JSON value and refuses keys that v does not have.
func readStrict(r io.Reader, v any) error {
	dec := json.NewDecoder(r)
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		if errors.Is(err, io.EOF) {
			return errors.New("the body is empty; it must be a JSON object")
		}
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("there is more after the JSON object")
	}
	return nil
}
