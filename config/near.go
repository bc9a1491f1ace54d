package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// nearest returns the known word that word was most likely meant to be, or ""
// if none is close: one is the beginning of the other, or at most a third of the
// letters, and never more than 3, differ. The first of equals wins.
func nearest(word string, known []string) string {
	if len(word) > 2*maxNameLen {
		return ""
	}
	for _, k := range known {
		if len(k) >= 3 && strings.HasPrefix(word, k) || len(word) >= 3 && strings.HasPrefix(k, word) {
			return k
		}
	}
	best, least := "", 4
	for _, k := range known {
		d := distance(strings.ToLower(word), strings.ToLower(k))
		if d < least && d <= max(1, max(len(word), len(k))/3) {
			best, least = k, d
		}
	}
	return best
}

// distance counts the single-letter changes, insertions, deletions and swaps
// of neighbours that make a into b.
func distance(a, b string) int {
	before, prev, cur := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], before[j-2]+1)
			}
		}
		before, prev, cur = prev, cur, before
	}
	return prev[len(b)]
}

// didYouMean is the remedy that names the nearest known word, or "".
func didYouMean(word string, known []string) string {
	if n := nearest(word, known); n != "" && n != word {
		return fmt.Sprintf("did you mean %s?", n)
	}
	return ""
}

// quote renders s for a diagnostic: in quotes, on one line, cut when long.
func quote(s string) string {
	const most = 80
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "..."
	}
	return fmt.Sprintf("%q", s)
}

// orNone lists words, or says that there are none.
func orNone(words []string) string {
	if len(words) == 0 {
		return "none"
	}
	return strings.Join(words, ", ")
}

// sortedKeys are the keys of a map, in order.
func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
