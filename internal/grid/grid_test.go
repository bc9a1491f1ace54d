package grid

import (
	"testing"
	"testing/synctest"
	"time"
)

// Tickers of one grid tick together, whenever they were made, and in step after one
// that was late.
func TestTickersOfOneGrid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New()
		begin := time.Now()
		a := g.Ticker(50 * time.Millisecond)
		defer a.Stop()
		time.Sleep(33 * time.Millisecond)
		b := g.Ticker(100 * time.Millisecond)
		defer b.Stop()
		for i := 1; i <= 4; i++ {
			<-a.C
			if d := time.Since(begin); d != time.Duration(i)*50*time.Millisecond {
				t.Errorf("tick %d after %v", i, d)
			}
			a.Next()
			if i%2 == 0 {
				<-b.C
				if d := time.Since(begin); d != time.Duration(i)*50*time.Millisecond {
					t.Errorf("the slower one ticks after %v", d)
				}
				b.Next()
			}
		}
		time.Sleep(130 * time.Millisecond) // 330 ms: one tick waits, two were left out
		<-a.C
		a.Next()
		<-a.C
		if d := time.Since(begin); d != 350*time.Millisecond {
			t.Errorf("after a late one it ticks at %v", d)
		}
	})
}

// Two grids are not made to agree.
func TestTwoGrids(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := New().Ticker(time.Second)
		defer a.Stop()
		time.Sleep(300 * time.Millisecond)
		b := New().Ticker(time.Second)
		defer b.Stop()
		begin := time.Now()
		<-b.C
		if d := time.Since(begin); d != time.Second {
			t.Errorf("the second grid ticks after %v", d)
		}
	})
}
