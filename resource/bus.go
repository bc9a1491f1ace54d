package resource

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"
)

// bus is the connection to systemd: made when it is first needed, made again when
// it broke, and fanned out to those who wait for a unit to change. The system bus
// is tried first, then systemd's own socket, which is there while dbus-daemon
// restarts. Safe for concurrent use.
type bus struct {
	// dial opens one connection, authenticated; nil = this host's. For tests.
	dial func(context.Context) (*godbus.Conn, error)

	ctx    context.Context
	cancel func()
	wg     sync.WaitGroup

	dialing chan struct{} // one slot: who dials

	mu      sync.Mutex
	conn    *dbus.Conn
	raw     *godbus.Conn  // for what the library does not offer
	broken  chan struct{} // closed when conn is gone
	waiting map[*listener]bool
	ids     map[string]string // name or alias -> the unit's own name
}

type listener struct {
	unit string
	look func()
}

func newBus() *bus {
	b := &bus{waiting: map[*listener]bool{}, ids: map[string]string{}, dialing: make(chan struct{}, 1)}
	b.ctx, b.cancel = context.WithCancel(context.Background())
	return b
}

func (b *bus) close() {
	b.cancel() // ends the connections too
	b.wg.Wait()
}

// dialLimit bounds a dial: a bus that accepts and says nothing.
const dialLimit = 5 * time.Second

// get returns a connection that lives, as far as anybody knows.
func (b *bus) get(ctx context.Context) (*dbus.Conn, error) {
	if c := b.current(); c != nil {
		return c, nil
	}
	select {
	case b.dialing <- struct{}{}:
		defer func() { <-b.dialing }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if c := b.current(); c != nil {
		return c, nil // somebody else was faster
	}
	if b.ctx.Err() != nil {
		return nil, errors.New("the agent is stopping")
	}
	// The connections live as long as their context: that of the bus, not of the
	// caller, who may be gone sooner.
	life, end := context.WithCancel(b.ctx)
	type result struct {
		s   *session
		err error
	}
	done := make(chan result, 1)
	b.wg.Go(func() {
		s, err := b.open(life)
		done <- result{s, err}
	})
	limit := time.NewTimer(dialLimit)
	defer limit.Stop()
	var err error
	select {
	case r := <-done:
		if r.err == nil {
			return b.use(r.s, end), nil
		}
		err = r.err
	case <-limit.C:
		err = fmt.Errorf("no answer within %v", dialLimit)
	case <-ctx.Done():
		err = ctx.Err()
	}
	end()
	return nil, err
}

func (b *bus) current() *dbus.Conn {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.conn
}

// session is one connection, subscribed.
type session struct {
	conn    *dbus.Conn
	raw     []*godbus.Conn
	changes chan *dbus.PropertiesUpdate
	errs    chan error
}

func (b *bus) open(ctx context.Context) (*session, error) {
	if b.dial != nil {
		return subscribe(ctx, b.dial)
	}
	s, err := subscribe(ctx, dialSystem)
	if err == nil {
		return s, nil
	}
	s, direct := subscribe(ctx, dialSystemd)
	if direct != nil {
		return nil, errors.Join(err, direct)
	}
	return s, nil
}

// subscribe opens the library's two connections and asks for signals.
func subscribe(ctx context.Context, dial func(context.Context) (*godbus.Conn, error)) (*session, error) {
	s := &session{changes: make(chan *dbus.PropertiesUpdate, 1024), errs: make(chan error, 1)}
	var err error
	s.conn, err = dbus.NewConnection(func() (*godbus.Conn, error) {
		c, err := dial(ctx)
		if err == nil {
			s.raw = append(s.raw, c)
		}
		return c, err
	})
	if err != nil {
		return nil, err
	}
	s.conn.SetPropertiesSubscriber(s.changes, s.errs)
	if err := s.conn.Subscribe(); err != nil {
		s.conn.Close()
		return nil, fmt.Errorf("subscribe to systemd's signals: %w", err)
	}
	return s, nil
}

func dialSystem(ctx context.Context) (*godbus.Conn, error) {
	return greet(godbus.SystemBusPrivate(godbus.WithContext(ctx)))(true)
}

func dialSystemd(ctx context.Context) (*godbus.Conn, error) {
	return greet(godbus.Dial("unix:path=/run/systemd/private", godbus.WithContext(ctx)))(false)
}

// greet authenticates; a bus, unlike systemd's own socket, wants a hello too.
func greet(c *godbus.Conn, err error) func(hello bool) (*godbus.Conn, error) {
	return func(hello bool) (*godbus.Conn, error) {
		if err != nil {
			return nil, err
		}
		err := c.Auth([]godbus.Auth{godbus.AuthExternal(strconv.Itoa(os.Getuid()))})
		if err == nil && hello {
			err = c.Hello()
		}
		if err != nil {
			_ = c.Close()
			return nil, err
		}
		return c, nil
	}
}

// use makes s the connection of all, and looks after it until it breaks.
func (b *bus) use(s *session, end func()) *dbus.Conn {
	broken := make(chan struct{})
	b.mu.Lock()
	b.conn, b.raw, b.broken = s.conn, s.raw[0], broken
	b.mu.Unlock()
	b.wg.Go(func() {
		b.pump(s)
		b.mu.Lock()
		b.conn, b.raw = nil, nil
		close(broken)
		b.mu.Unlock()
		end()
		s.conn.Close()
		b.again()
	})
	b.lookAll()
	return s.conn
}

// pump hands changes on until either connection is gone.
func (b *bus) pump(s *session) {
	gone := make(chan struct{})
	for _, c := range s.raw {
		context.AfterFunc(c.Context(), func() {
			select {
			case gone <- struct{}{}:
			case <-b.ctx.Done():
			case <-time.After(time.Second): // the other one was first
			}
		})
	}
	for {
		select {
		case <-gone:
			return
		case <-b.ctx.Done():
			return
		case c := <-s.changes:
			b.mu.Lock()
			for l := range b.waiting {
				if c.UnitName == l.unit || c.UnitName == b.ids[l.unit] {
					l.look()
				}
			}
			b.mu.Unlock()
		case err := <-s.errs:
			if err != nil { // some were lost
				b.lookAll()
			}
		}
	}
}

// again dials until there is a connection, as long as somebody waits for signals.
func (b *bus) again() {
	b.lookAll()
	b.wg.Go(func() {
		for wait := 50 * time.Millisecond; b.ctx.Err() == nil; wait = min(2*wait, 2*time.Second) {
			b.mu.Lock()
			wanted := len(b.waiting) > 0
			b.mu.Unlock()
			if !wanted {
				return
			}
			if _, err := b.get(b.ctx); err == nil {
				return
			}
			sleep(b.ctx, wait)
		}
	})
}

func (b *bus) lookAll() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for l := range b.waiting {
		l.look()
	}
}

// listen calls look when the unit may have changed, until the returned function is
// called. look must not block.
func (b *bus) listen(unit string, look func()) (forget func()) {
	l := &listener{unit, look}
	b.mu.Lock()
	b.waiting[l] = true
	b.mu.Unlock()
	return func() {
		b.mu.Lock()
		delete(b.waiting, l)
		b.mu.Unlock()
	}
}

// alias notes that signals about name come under id.
func (b *bus) alias(name, id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if id != "" {
		b.ids[name] = id
	}
}

// lost is closed when the present connection breaks.
func (b *bus) lost() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.broken
}

// processes names what runs in the unit's control group, as systemd lists it.
func (b *bus) processes(ctx context.Context, unit string) ([]string, error) {
	if _, err := b.get(ctx); err != nil {
		return nil, err
	}
	b.mu.Lock()
	raw := b.raw
	b.mu.Unlock()
	if raw == nil {
		return nil, errors.New("the connection to systemd broke")
	}
	var procs []struct {
		Cgroup  string
		PID     uint32
		Command string
	}
	manager := raw.Object("org.freedesktop.systemd1", "/org/freedesktop/systemd1")
	err := manager.CallWithContext(ctx, "org.freedesktop.systemd1.Manager.GetUnitProcesses", 0, unit).Store(&procs)
	if e, ok := errors.AsType[godbus.Error](err); ok && e.Name == "org.freedesktop.systemd1.NoSuchUnit" {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []string
	for _, p := range procs {
		out = append(out, fmt.Sprintf("%s (pid %d)", p.Command, p.PID))
	}
	return out, nil
}
