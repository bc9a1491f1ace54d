package main

import (
	"bytes"
	"strings"
	"testing"

	"hanode/api"
)

// Who follows a voter is told, and not why it has no vote as well; who is dead follows
// nobody.
func TestMembersSayWhoFollows(t *testing.T) {
	var out bytes.Buffer
	a := newApp(nil, &out, nil)
	why := "no vote: it has no log"
	a.membersText(&api.List[api.Member]{
		{Name: "n1", State: api.MemberAlive, Voter: true, Log: new(api.LogVoter), VoterWhy: new("one of 5 votes")},
		{Name: "n8", State: api.MemberAlive, Log: new(api.LogFollows), Follows: new("n1"), VoterWhy: &why},
		{Name: "n9", State: api.MemberLate, Log: new(api.LogFollows), VoterWhy: &why},
		{Name: "n10", State: api.MemberDead, Log: new(api.LogFollows), VoterWhy: &why},
	})
	_, below, _ := strings.Cut(out.String(), "\nn10 ")
	_, below, _ = strings.Cut(below, "\n")
	if want := "n8: follows n1\nn9: follows a voter\nn10: no vote: it has no log\n"; below != want {
		t.Errorf("below the table stands\n%s\nand not\n%s", below, want)
	}
}
