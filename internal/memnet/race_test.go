package memnet

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// Crashes under the race detector without race.go.
func TestTickersReadAtOneInstant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() {
				tick := time.NewTicker(time.Millisecond)
				defer tick.Stop()
				for range 20000 {
					time.Sleep(time.Millisecond)
					select {
					case <-tick.C:
					default:
						t.Error("a ticker did not tick")
					}
				}
			})
		}
		wg.Wait()
	})
}
