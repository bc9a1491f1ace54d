package supervise

import (
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestSystemd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", "1000000")
	s := Open()
	if s == nil {
		t.Fatal("nobody supervises")
	}
	for _, name := range []string{"NOTIFY_SOCKET", "WATCHDOG_USEC"} {
		if v, ok := os.LookupEnv(name); ok {
			t.Errorf("programs that this one starts find %s=%s", name, v)
		}
	}
	s.Ready()
	s.Alive()
	s.Status("web\nruns")
	s.Stopping(2 * time.Second)
	for _, want := range []string{"READY=1", "WATCHDOG=1", "STATUS=web runs", "STOPPING=1\nEXTEND_TIMEOUT_USEC=2000000"} {
		b := make([]byte, 200)
		n, err := l.Read(b)
		if err != nil || string(b[:n]) != want {
			t.Errorf("%q, %v, want %q", b[:n], err, want)
		}
	}
	// A supervisor that is gone costs nothing.
	_ = l.Close()
	s.Alive()
}

func TestNobody(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	if Open() != nil {
		t.Error("somebody supervises")
	}
}
