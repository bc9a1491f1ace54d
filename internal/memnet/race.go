//go:build race

package memnet

import "runtime"

// Whole clusters in a bubble of testing/synctest crash the race detector itself when
// two of their goroutines look at expired tickers at the same instant: Go gives both
// the one race context of the bubble (maybeRunChan in runtime/time.go), and two threads
// must not use one at a time ("ThreadSanitizer: CHECK failed: tsan_rtl.cpp:346";
// golang.org/issue/78156, Go 1.26). On one processor they never do. Races are still
// found: the detector goes by what happens before what, not by what overlaps.
func init() { runtime.GOMAXPROCS(1) }
