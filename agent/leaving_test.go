package agent

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"hanode/api"
	"hanode/vip"
)

func parsed(t *testing.T, text string) vip.Address {
	t.Helper()
	a, err := vip.Parse(text, "")
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// What was closed is taken off once, by its own group, unless it is wanted here again;
// who wants it while it is being taken off waits for that.
func TestLeaving(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, c := parsed(t, "10.0.0.1/24"), parsed(t, "10.0.0.2/24"), parsed(t, "10.0.0.3/24")
		var l leaving
		var off []vip.Address
		failed := errors.New("the kernel says no")
		del := func(as ...vip.Address) error {
			time.Sleep(time.Second)
			off = append(off, as...)
			return failed
		}
		l.add("web", []vip.Address{c, a, b})
		l.add("db", []vip.Address{parsed(t, "10.0.0.4/24")})
		l.stay([]vip.Address{b})
		begin := time.Now()
		go func() {
			time.Sleep(100 * time.Millisecond)
			l.stay([]vip.Address{a, b})
			if took := time.Since(begin); took != time.Second {
				t.Errorf("wanted again after %v, while it was being taken off", took)
			}
		}()
		if err := l.off("web", del); !errors.Is(err, failed) {
			t.Errorf("%v", err)
		}
		if want := []vip.Address{a, c}; !slices.Equal(off, want) {
			t.Errorf("off: %v, want %v", off, want)
		}
		if err := l.off("web", del); err != nil || len(off) != 2 {
			t.Errorf("again: %v, %v", err, off)
		}
		synctest.Wait()
	})
}

// The next owner does not wait until the address is off the device of the one before:
// it is closed. A group that comes back waits for that.
func TestRemovalDelaysNobody(t *testing.T) {
	story(t, func(t *testing.T, l *lab) {
		_, sys := l.hosts["primary"].running()
		sys.hang("del", 3*time.Second)
		move := func(to string) time.Duration {
			begin := time.Now()
			if _, err := l.on("arbiter").Move(t.Context(), api.MoveRequest{Group: "web", To: to, Wait: 20 * time.Second}); err != nil {
				t.Fatal(err)
			}
			return time.Since(begin)
		}
		if took := move("secondary"); took > 500*time.Millisecond {
			t.Errorf("the switchover took %v", took)
		}
		if by := l.answers(vipA); !slices.Equal(by, []string{"secondary"}) || !l.hosts["primary"].kernel.Has(l.vips[0]) {
			t.Fatalf("answers: %v", by)
		}
		if took := move("primary"); took < 2*time.Second || took > 4*time.Second {
			t.Errorf("back after %v", took)
		}
		if by := l.answers(vipA); !slices.Equal(by, []string{"primary"}) {
			t.Fatalf("answers: %v", by)
		}
	})
}
