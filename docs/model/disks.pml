/*
 * A voter loses its disk: R12. Raft itself, as small as it can be: terms, votes, a log
 * of entries known by the term that wrote them, commit by a majority. Raft is safe as
 * long as a server remembers what it voted for and what it stored; a server that comes
 * back with an empty disk under its old identity does not.
 *
 * -DBREAK_... breaks a rule.
 */

#ifndef TERMS
#define TERMS 3
#endif
#define ENTRIES 2
#ifndef LOSSES
#define LOSSES 1	/* of disks */
#endif
#define NOBODY 3
#define BIT(i) (1 << (i))

typedef Server {
	byte term;
	byte voted;		/* for whom in that term */
	byte entries;
	byte wrote[ENTRIES];	/* the term of each entry */
	bit leads;
};
Server s[3];
byte voting;			/* servers whose identity is in raft's configuration, and on their disk */
byte size;			/* of the configuration: an identity whose disk is gone still counts */
byte committed;			/* entries */
byte wroteCommitted[ENTRIES];
byte losses;

hidden byte n;

#define isVoting(i) ((voting & BIT(i)) != 0)
#define lastTerm(i) (s[i].entries == 0 -> 0 : s[i].wrote[s[i].entries - 1])
/* Raft's paper, 5.4.1 */
#define upToDate(c, i) (lastTerm(c) > lastTerm(i) || lastTerm(c) == lastTerm(i) && s[c].entries >= s[i].entries)
#define stores(i, c) (isVoting(i) && s[i].term == s[c].term && s[i].entries >= s[c].entries && lastTerm(i) == lastTerm(c))
#define allStored(c) (stores(0, c) + stores(1, c) + stores(2, c))
#define majority (size / 2 + 1)

/* Everything acknowledged is in the log of whoever leads. */
#define COMPLETE(c) assert(s[c].entries >= committed && \
	(committed < 1 || s[c].wrote[0] == wroteCommitted[0]) && (committed < 2 || s[c].wrote[1] == wroteCommitted[1]))

#define votesFor(c, i) (isVoting(i) && s[i].term == s[c].term && s[i].voted == c)
#define votes(c) (votesFor(c, 0) + votesFor(c, 1) + votesFor(c, 2))

inline forget(i) {
	s[i].term = 0; s[i].voted = NOBODY; s[i].entries = 0; s[i].wrote[0] = 0; s[i].wrote[1] = 0; s[i].leads = 0
}
inline copy(i, c) {
	s[i].entries = s[c].entries; s[i].wrote[0] = s[c].wrote[0]; s[i].wrote[1] = s[c].wrote[1]
}

inline lose(i) {
	printf("server %d: comes back with an empty disk\n", i);
	losses++;
	forget(i);
#ifndef BREAK_R12_IDENTITY
	voting = voting & ~BIT(i)	/* its next identity is no member yet */
#endif
}

/* The members change one identity at a time: the old one goes, which the two that are
   left must both store; the new one comes without a vote, and gets one when it has the
   log. The entries of these changes are not counted here, what they demand is. */
#ifdef BREAK_R12_CATCH_UP
#define caughtUp(i, c) true
#else
#define caughtUp(i, c) (s[i].term == s[c].term && s[i].entries >= s[c].entries && lastTerm(i) == lastTerm(c))
#endif
#ifdef BREAK_R12_REMOVE
#define othersStore(c) true
#else
#define othersStore(c) (allStored(c) == 2 && committed == s[c].entries && lastTerm(c) == s[c].term)
#endif

#define EACH(x) x(0) x(1) x(2)
#define PAIRS(x) x(0, 1) x(0, 2) x(1, 0) x(1, 2) x(2, 0) x(2, 1)
/* A vote is kept by the candidate's name and not by its identity (raft compares the
   addresses, and ours are names), and one that is asked for again is given again. So a
   new identity that stood in a term in which its old one stood would have its votes. */
#define STAND(c) :: d_step { isVoting(c) && s[c].term < TERMS && !s[c].leads -> printf("server %d: stands in term %d\n", c, s[c].term + 1); \
	s[c].term++; s[c].voted = c }
#define VOTE(c, i) :: d_step { isVoting(c) && isVoting(i) && s[c].voted == c && !s[c].leads && upToDate(c, i) && \
	(s[i].term < s[c].term || s[i].term == s[c].term && s[i].voted == NOBODY) -> \
	printf("server %d: votes for %d in term %d\n", i, c, s[c].term); s[i].term = s[c].term; s[i].voted = c; s[i].leads = 0 }
#define LEAD(c) :: d_step { isVoting(c) && s[c].voted == c && !s[c].leads && votes(c) >= majority -> printf("server %d: leads term %d\n", c, s[c].term); \
	s[c].leads = 1; COMPLETE(c) }
#define WRITE(c) :: d_step { s[c].leads && s[c].entries < ENTRIES && lastTerm(c) < s[c].term -> printf("server %d: writes entry %d\n", c, s[c].entries + 1); \
	s[c].wrote[s[c].entries] = s[c].term; s[c].entries++ }
/* Also to a server without a vote. */
#define STORE(c, i) :: d_step { s[c].leads && s[i].term <= s[c].term && !s[i].leads && \
	(s[i].term != s[c].term || s[i].entries != s[c].entries || lastTerm(i) != lastTerm(c)) -> \
	printf("server %d: stores what %d sends\n", i, c); \
	s[i].voted = (s[i].term < s[c].term -> NOBODY : s[i].voted); s[i].term = s[c].term; copy(i, c) }
#define COMMIT(c) :: d_step { s[c].leads && lastTerm(c) == s[c].term && s[c].entries > committed && allStored(c) >= majority -> \
	printf("server %d: %d entries are committed\n", c, s[c].entries); COMPLETE(c); \
	committed = s[c].entries; wroteCommitted[0] = s[c].wrote[0]; wroteCommitted[1] = (committed == 2 -> s[c].wrote[1] : 0) }
#define RESTART(i) :: d_step { s[i].leads -> printf("server %d: leads no more\n", i); s[i].leads = 0 }
#define LOSE(i) :: d_step { losses < LOSSES && voting == 7 -> lose(i) }
#define READMIT(c, i) :: d_step { s[c].leads && isVoting(c) && !isVoting(i) && caughtUp(i, c) && othersStore(c) -> \
	printf("server %d: gives %d its vote under a new identity\n", c, i); voting = voting | BIT(i) }

init {
	d_step {
		voting = 7; size = 3;
		forget(0); forget(1); forget(2)
	};
	do
	EACH(STAND)
	PAIRS(VOTE)
	EACH(LEAD)
	EACH(WRITE)
	PAIRS(STORE)
	EACH(COMMIT)
	EACH(RESTART)
	EACH(LOSE)
	PAIRS(READMIT)
	:: d_step { true -> skip }
	od
}
