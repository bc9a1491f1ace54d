/*
 * The lease voters change while a registration holds: R7, the list's version in R2,
 * and "the list as of the fence" in R3. lease.pml has the rest, with one list for ever.
 *
 * Registration A owns the group and beats. The log holds three entries that matter,
 * in any order that the rules allow: two changes of the list, and A's fence. B was or
 * will be assigned the group and waits for A; its own lease is taken for granted, so
 * that it holds as soon as EXPIRED is evidence. Voters apply the log in order, each at
 * its own time. Time is ages, as in lease.pml.
 *
 * -DLISTS_... chooses which three lists follow each other; -DBREAK_... breaks a rule.
 */

#ifndef D
#define D 2
#endif
#define BOUND D
#define VOTERS 4

/* Voters 0 to 3 as bits, and how many of a list are a majority. */
#if defined(LISTS_SHRINK)		/* a voter goes, then another comes */
#define LIST(x) ((x) == 1 -> 7 : ((x) == 2 -> 6 : 14))
#define MAJORITY(x) 2
#elif defined(LISTS_TO_ONE)		/* from three to one */
#define LIST(x) ((x) == 1 -> 7 : ((x) == 2 -> 6 : 4))
#define MAJORITY(x) ((x) == 3 -> 1 : 2)
#elif defined(LISTS_FROM_ONE)		/* and back */
#define LIST(x) ((x) == 1 -> 4 : ((x) == 2 -> 6 : 14))
#define MAJORITY(x) ((x) == 1 -> 1 : 2)
#else					/* one is replaced: first it comes, then the old one goes */
#define LIST(x) ((x) == 1 -> 7 : ((x) == 2 -> 15 : 14))
#define MAJORITY(x) ((x) == 2 -> 3 : 2)
#endif
#define LAST 3				/* version */

#define BIT(i) (1 << (i))
#define in(j, x) ((LIST(x) & BIT(j)) != 0)

/* --- replicated ----------------------------------------------------------------------- */

byte entries;		/* committed: changes of the list, and the fence */
byte fenceAt;		/* which of them is the fence of A; 0 = none yet */
bit assigned;		/* B is the owner, A is a wait of the record */
byte list;		/* the version that the record goes by */

/* --- the leader's own ------------------------------------------------------------------ */

byte settled;		/* age of "a majority of the previous list has applied this one" */
#define UNSETTLED (D + 1)

/* --- voters ----------------------------------------------------------------------------- */

byte applied[VOTERS];	/* entries */
byte acked[VOTERS];	/* age of the newest promise to A */
byte refuses;		/* voters that took a REVOKE; the log says it to the others */
byte expired;		/* voters that said EXPIRED */

/* --- hosts ------------------------------------------------------------------------------ */

byte version;		/* of the list that A counts by */
byte ack[VOTERS];	/* age of the newest beat of A that each voter acked */
byte end;		/* age of the beat that E counts from: A is leased until it is D */
byte known;		/* the list in the record that B adopted last; 0 = none it may go by */

hidden byte age, acks;

#define committedVersion (1 + entries - (fenceAt > 0))
#define knowsFence(j) (fenceAt > 0 && applied[j] >= fenceAt)
#define appliedVersion(j) (1 + applied[j] - knowsFence(j))
#define appliedCurrent(j, x) (in(j, x) && appliedVersion(j) == committedVersion)
#define ofPrevious(x) (appliedCurrent(0, x) + appliedCurrent(1, x) + appliedCurrent(2, x) + appliedCurrent(3, x))

#define leased (end < D)
#define said(j, x) (in(j, x) && (expired & BIT(j)))
#define evidence(x) (said(0, x) + said(1, x) + said(2, x) + said(3, x) >= MAJORITY(x))
#define I3 assert(!(leased && known > 0 && evidence(known)))

/* R2: the version must be the one that the voter has applied. */
#ifdef BREAK_R2_LIST
#define sameList(j) true
#else
#define sameList(j) (appliedVersion(j) == version)
#endif
#define willAck(j) (in(j, version) && sameList(j) && !knowsFence(j) && !(refuses & BIT(j)))

/* R1: E counts from the m-th newest beat that voters of the list acked. An ack counts
   for its voter under whichever list A goes by. E only grows. */
inline beat(j) {
	printf("voter %d acks a beat of list %d\n", j, version);
	acked[j] = 0; ack[j] = 0;
	age = 0;
	do
	:: age < D ->
		acks = (in(0, version) && ack[0] <= age) + (in(1, version) && ack[1] <= age) +
			(in(2, version) && ack[2] <= age) + (in(3, version) && ack[3] <= age);
		if
		:: acks >= MAJORITY(version) -> end = (age < end -> age : end); break
		:: else
		fi;
		age++
	:: else -> break
	od;
	age = 0; acks = 0;
	I3
}

/* R7, by the leader. It looks again and again; a new leader starts to count anew, which
   only takes longer. */
#ifdef BREAK_R7_APPLIED
#define settles true
#else
#define settles (ofPrevious(committedVersion - 1) >= MAJORITY(committedVersion - 1))
#endif
#ifdef BREAK_R7_BOUND
#define settledLong (settled <= D)
#else
#define settledLong (settled == D)
#endif
#ifdef BREAK_R7
#define mayChange true
#else
#define mayChange (committedVersion == 1 || settledLong)
#endif

inline change() {
	printf("log: list %d\n", committedVersion + 1);
	entries++;
	settled = UNSETTLED
}

inline fence() {
	printf("log: fence A\n");
	entries++;
	fenceAt = entries;
#ifndef BREAK_R3_LIST
	list = (assigned -> committedVersion : 0);
#endif
}

#define OLDER(x) x = (x < D -> x + 1 : x)
inline tick() {
	printf("--- time passes\n");
	OLDER(acked[0]); OLDER(acked[1]); OLDER(acked[2]); OLDER(acked[3]);
	OLDER(ack[0]); OLDER(ack[1]); OLDER(ack[2]); OLDER(ack[3]);
	OLDER(end);
	OLDER(settled)
}

#define EACH_VOTER(x) x(0) x(1) x(2) x(3)
#define BEAT(j) :: d_step { willAck(j) && (ack[j] > 0 || acked[j] > 0 || end > 0) -> beat(j) }
#define APPLY(j) :: d_step { applied[j] < entries -> printf("voter %d: applies entry %d\n", j, applied[j] + 1); applied[j]++ }
/* A REVOKE follows the commit of the fence. It is received when its EXPIRED is due. */
#define EXPIRE(j) :: d_step { fenceAt > 0 && !(expired & BIT(j)) && acked[j] >= BOUND -> \
	printf("voter %d: EXPIRED\n", j); refuses = refuses | BIT(j); expired = expired | BIT(j); I3 }

init {
	d_step {
		version = 1; end = D; settled = UNSETTLED;
		acked[0] = D; acked[1] = D; acked[2] = D; acked[3] = D;
		ack[0] = D; ack[1] = D; ack[2] = D; ack[3] = D
	};
	do
	EACH_VOTER(BEAT)
	EACH_VOTER(APPLY)
	EACH_VOTER(EXPIRE)
	:: d_step { committedVersion < LAST && mayChange -> change() }
	:: d_step { committedVersion > 1 && committedVersion < LAST && settled == UNSETTLED && settles -> settled = 0 }
	:: d_step { fenceAt == 0 -> fence() }
	/* A switchover while A is registered, a takeover, or one more assignment later. */
	:: d_step { !assigned || list != committedVersion -> printf("log: B is the owner\n"); assigned = 1; list = committedVersion }
	/* A record whose wait is live is none to go by. */
	:: d_step { assigned && fenceAt > 0 && known != list -> printf("B: goes by list %d\n", list); known = list; I3 }
	:: d_step { version < committedVersion -> printf("A: counts by list %d\n", version + 1); version++ }
	:: d_step { true -> tick() }
	od
}
