/*
 * One group, its address, and who may answer for it: lease/DESIGN.md as a machine
 * that is small enough to look at every state. README.md says what stands for what,
 * and why the shortcuts taken here hide nothing.
 *
 * Time is ages. An instant that matters is kept as "how many steps ago", and counts
 * no further than D, the length of a lease. A holder's lease lasts until its age is D,
 * the longest that its clock allows; a voter's wait is over as soon as the age is BOUND,
 * the shortest that its clock allows. Clocks that run fast or slow are in that: all
 * that the protocol asks of them is that a bound takes longer than a lease.
 *
 * What was said once may be heard at any later time, often, or never. So a token, an
 * EXPIRED and a committed entry are simply there, and who reads one chooses when.
 *
 * -DBREAK_... breaks one rule; check.sh lists them all.
 */

#ifndef HOSTS
#define HOSTS 3		/* 0 is node A, 1 is node B, 2 a clone that says it is A */
#endif
#ifndef REGS
#define REGS 3		/* registrations, of all nodes together; at most 4 */
#endif
#ifndef EPOCHS
#define EPOCHS 3	/* at most 4 */
#endif
#ifndef RESTARTS
#define RESTARTS 1	/* of voters */
#endif
#ifndef D
#define D 2
#endif
#ifdef BREAK_BOUND
#define BOUND (D - 1)
#else
#define BOUND D
#endif

#define NONE 7		/* no registration */
#define BIT(i) (1 << (i))
#define MAX(a, b) ((a) > (b) -> (a) : (b))
#define SAME_NAME(i, j) (((i) & 1) == ((j) & 1))

/* --- replicated: changed by committed entries only -------------------------------- */

byte regs;			/* registrations, numbered in the order of their commit */
byte host[4];			/* who registered */
byte over;			/* registrations that are fenced or superseded */
byte epoch;
byte owner[5];			/* of each epoch: a registration */
byte waits;			/* epochs whose owner is not known to have let go */
bit ownerReleased;

/* --- said: may be heard by anybody from now on -------------------------------------- */

byte tokens;			/* epochs whose owner said that it let go */
bit holding;			/* the owner of epoch said that it holds */

/* --- voters -------------------------------------------------------------------------- */

typedef Voter {
	bit ready;
	byte refuses;		/* registrations that it knows to be over, from the log or a REVOKE */
	byte expired;		/* ... that it said EXPIRED of; the word outlives the process */
	byte acked[4];		/* age of its newest promise to each */
};
Voter v[3];
byte restarts;

/* --- hosts: an agent's process, and the kernel that outlives it --------------------- */

typedef Host {
	byte reg;		/* that the agent speaks for */
	byte ack[3];		/* age of the newest beat that each voter acked: E, and the guard's */
	byte rEpoch, rWaits;	/* the record as it knows it */
	byte held;		/* the epoch that it opens or opened; 0 = none */
	byte released;		/* the newest epoch that it let go of */
	bit open;		/* kernel: the address is there, and open until E */
#ifdef SLOW
	byte flight[3];		/* age of a beat whose ack is under way */
#endif
#ifdef BREAK_R1_RECORD
	bit command;		/* what it knows is a command that names it */
#endif
#ifdef BREAK_R8_CAS
	bit copy;		/* a copy of its proposal is still under way */
#endif
#ifdef BREAK_GUARD_PINNED
	bit bare;		/* the guard died with its process */
#endif
};
Host h[HOSTS];

hidden byte e, n;
hidden int key[3], swap;

/* --- predicates ----------------------------------------------------------------------- */

#define current(r) ((r) < regs && !(over & BIT(r)))
#define before(r, i) (i < (r) && SAME_NAME(host[i], host[r]) -> BIT(i) : 0)
#define older(r) (before(r, 0) | before(r, 1) | before(r, 2))	/* of the same name */
#define awaitedAt(e, r) ((waits & BIT(e)) && owner[e] == (r))
#define inUse(r) (owner[epoch] == (r) || awaitedAt(1, r) || awaitedAt(2, r) || awaitedAt(3, r))

/* A majority of voters acked a beat sent less than D ago. */
#define fresh(i, j) (h[i].ack[j] < D)
#ifdef BREAK_R1_MAJORITY
#define leased(i) (fresh(i, 0) || fresh(i, 1) || fresh(i, 2))
#else
#define leased(i) (fresh(i, 0) + fresh(i, 1) + fresh(i, 2) >= 2)
#endif

#if defined(BREAK_GUARD) || defined(EXCLUSIVE)
#define answers(i) h[i].open		/* nothing stops it at E: the agent hangs, or it is a writer (R4) */
#elif defined(BREAK_GUARD_PINNED)
#define answers(i) (h[i].open && (h[i].bare || leased(i)))
#else
#define answers(i) (h[i].open && leased(i))
#endif
#define holds(i) (h[i].held > 0 && leased(i))
#if HOSTS == 2
#define answering (answers(0) + answers(1))
#define othersHold(i) holds(1 - (i))
#else
#define answering (answers(0) + answers(1) + answers(2))
#define othersHold(i) (holds(((i) + 1) % 3) || holds(((i) + 2) % 3))
#endif

#ifdef BREAK_R3_MAJORITY
#define EVIDENCE 1
#else
#define EVIDENCE 2
#endif
#define said(j, r) ((v[j].expired & BIT(r)) != 0)
#define majorityExpired(r) (said(0, r) + said(1, r) + said(2, r) >= EVIDENCE)

#ifdef BREAK_R3_TOKEN
#define sameOwner(e, i) (owner[i] == owner[e] -> BIT(i) : 0)
#define token(e) (tokens & (sameOwner(e, 1) | sameOwner(e, 2) | sameOwner(e, 3) | sameOwner(e, 4)))
#else
#define token(e) (tokens & BIT(e))
#endif
#if defined(EXCLUSIVE) && !defined(BREAK_R4)
#define expiredAt(e) false
#else
#define expiredAt(e) majorityExpired(owner[e])
#endif
#define ours(i, e) (owner[e] == h[i].reg)
#ifdef BREAK_R1_RECORD
#define recordOurs(i) (h[i].command || ours(i, h[i].rEpoch))
#else
#define recordOurs(i) ours(i, h[i].rEpoch)
#endif
#ifdef BREAK_R1_LETGO
#define newer(i) (h[i].rEpoch > 0)
#else
#define newer(i) (h[i].rEpoch > h[i].released)
#endif
/* lease: Holder.satisfied, Holder.May, Holder.Due, Holder.Owed */
#define satisfied(i, e) (!(h[i].rWaits & BIT(e)) || ours(i, e) && (e) <= h[i].released || token(e) || expiredAt(e))
#define may(i) (newer(i) && recordOurs(i) && satisfied(i, 1) && satisfied(i, 2) && satisfied(i, 3) && leased(i))
#define dueAt(i, e) ((h[i].rWaits & BIT(e)) && ours(i, e) && (e) > h[i].released)
#define due(i) (dueAt(i, 1) || dueAt(i, 2) || dueAt(i, 3))
#define owedAt(i, e) ((e) <= h[i].released && ours(i, e) && ((h[i].rWaits & BIT(e)) || (e) == h[i].rEpoch) -> BIT(e) : 0)
#define owed(i) (owedAt(i, 1) | owedAt(i, 2) | owedAt(i, 3) | owedAt(i, 4))

#define I3 assert(answering <= 1)
#ifdef ONLY_I3
#define ALSO(x)
#else
#define ALSO(x) assert(x)
#endif

/* --- the log ---------------------------------------------------------------------------- */

/* fsm: Group.advance and State.assign. */
inline assign(r) {
	printf("log: epoch %d is of registration %d\n", epoch + 1, r);
#ifdef BREAK_R3_ALL_WAITS
	waits = 0;
#endif
#ifndef BREAK_R3_WAIT
	waits = waits | (ownerReleased -> 0 : BIT(epoch));
#endif
	epoch++;
	owner[epoch] = r;
	ownerReleased = 0; holding = 0
}

/* fsm: State.register. */
inline register(i) {
	printf("log: host %d registers as %d\n", i, regs);
	host[regs] = i;
	over = over | older(regs);
	n = 0;
	do
	:: n < regs ->
		if
#ifdef BREAK_R8_HOSTID
		:: SAME_NAME(host[n], i) ->
#else
		:: host[n] == i ->
#endif
			waits = waits & ~((owner[1] == n -> 2 : 0) | (owner[2] == n -> 4 : 0) | (owner[3] == n -> 8 : 0));
			ownerReleased = ownerReleased || owner[epoch] == n
		:: else
		fi;
		n++
	:: else -> break
	od;
	regs++
}

/* --- hosts ------------------------------------------------------------------------------- */

#if defined(SLOW) && HOSTS == 3
#error "SLOW has two hosts"
#endif
#ifdef SLOW
#define NOACK (D + 1)
#endif

/* R8: a new process closes and removes everything, then registers. What the old one
   knew is lost; until now the kernel kept what it had, and a process that is dead
   is like one that takes no step. A new guard has no lease yet. */
inline boot(i) {
	h[i].rEpoch = 0; h[i].rWaits = 0; h[i].held = 0; h[i].released = 0;
#ifdef SLOW
	h[i].flight[0] = NOACK; h[i].flight[1] = NOACK; h[i].flight[2] = NOACK;
#endif
#ifdef BREAK_R1_RECORD
	h[i].command = 0;
#endif
#ifndef BREAK_R8_CLEANUP
	h[i].open = 0;
#endif
#ifndef BREAK_R9
	h[i].ack[0] = D; h[i].ack[1] = D; h[i].ack[2] = D;
#endif
#ifdef BREAK_GUARD_PINNED
	h[i].bare = 0;
#endif
#ifdef BREAK_R8_CAS
	h[i].copy = 1;
#endif
	h[i].reg = regs;
	register(i)
}

/* A beat reaches voter j, which acks it (lease: Grantor.Beat); it acks a new
   registration only if it knows that this one ended the older ones. */
#ifdef BREAK_R2_OVER
#define willAck(i, j) v[j].ready
#else
#define willAck(i, j) (v[j].ready && !(v[j].refuses & BIT(h[i].reg)))
#endif
inline beat(i, j) {
	printf("host %d: voter %d acks registration %d\n", i, j, h[i].reg);
#ifdef BREAK_R2_CLOCK
	v[j].acked[h[i].reg] = D;
#else
	v[j].acked[h[i].reg] = 0;
#endif
	v[j].refuses = v[j].refuses | older(h[i].reg);
#ifdef SLOW
	h[i].flight[j] = 0
#else
	acks(i, j, 0)
#endif
}

/* An ack of a beat of that age comes back: E moves, in the Holder and in the kernel. */
inline acks(i, j, age) {
#ifdef BREAK_R1_SENDTIME
	h[i].ack[j] = 0;
#else
	h[i].ack[j] = (age < h[i].ack[j] -> age : h[i].ack[j]);
#endif
	ALSO(!(leased(i) && majorityExpired(h[i].reg)));	/* I4 */
	I3
}

inline adopt(i) {
	printf("host %d: knows epoch %d\n", i, epoch);
	h[i].rEpoch = epoch; h[i].rWaits = waits;
#ifdef BREAK_R1_RECORD
	h[i].command = 0;
#endif
	tell(i)
}

/* Tokens that are owed, sent again and again; and the leader commits that it has them. */
inline tell(i) {
	tokens = tokens | owed(i);
	waits = waits & ~tokens;
	ownerReleased = ownerReleased || (tokens & BIT(epoch))
}

inline decide(i) {
	printf("host %d: may hold epoch %d\n", i, h[i].rEpoch);
	ALSO(ours(i, h[i].rEpoch));	/* I2 */
	ALSO(!othersHold(i));		/* I5 */
	h[i].held = h[i].rEpoch;
#ifndef SLOW
	openUp(i)
#endif
}

inline openUp(i) {
	printf("host %d: opens\n", i);
	h[i].open = 1;
	holding = holding || h[i].held == epoch;
	I3
}

inline remember(i) {
	h[i].released = MAX(h[i].released, h[i].held);
	e = 1;
	do
	:: e < h[i].rEpoch ->
		if
		:: dueAt(i, e) -> h[i].released = e
		:: else
		fi;
		e++
	:: else -> break
	od;
	h[i].held = 0
}

/* --- voters -------------------------------------------------------------------------------- */

#define atStart(j, r) v[j].acked[r] = ((r) < regs && !said(j, r) -> START : D)
#ifdef BREAK_R5_QUARANTINE
#define START D
#else
#define START 0
#endif
inline restart(j) {
	printf("voter %d: restarts\n", j);
	restarts++;
	v[j].refuses = 0;
#ifdef BREAK_R5_BARRIER
	v[j].ready = 1;		/* with an older log */
#else
	v[j].ready = 0;
#endif
	atStart(j, 0); atStart(j, 1); atStart(j, 2); atStart(j, 3)
}

/* Voters differ by what they know and not by name: which of them is which is
   forgotten after each step, or every state would be looked at six times. */
#ifdef SORT
#ifdef SLOW
#define FLIGHTS(j) (h[0].flight[j] * 16 + h[1].flight[j] * 4 + h[HOSTS - 1].flight[j])
#else
#define FLIGHTS(j) 0
#endif
#define VOTER_KEY(j) key[j] = (((((((v[j].ready * 16 + v[j].refuses) * 16 + v[j].expired) * 4 + v[j].acked[0]) * 4 + \
	v[j].acked[1]) * 4 + v[j].acked[2]) * 4 + v[j].acked[3]) * 64 + h[0].ack[j] * 16 + h[1].ack[j] * 4 + h[HOSTS - 1].ack[j]) * 64 + FLIGHTS(j)
#define SWAP(a, b) swap = a; a = b; b = swap
inline order(i, j) {
	if
	:: key[i] > key[j] ->
		SWAP(key[i], key[j]);
		SWAP(v[i].ready, v[j].ready); SWAP(v[i].refuses, v[j].refuses); SWAP(v[i].expired, v[j].expired);
		SWAP(v[i].acked[0], v[j].acked[0]); SWAP(v[i].acked[1], v[j].acked[1]);
		SWAP(v[i].acked[2], v[j].acked[2]); SWAP(v[i].acked[3], v[j].acked[3]);
		SWAP(h[0].ack[i], h[0].ack[j]); SWAP(h[1].ack[i], h[1].ack[j]);
#ifdef SLOW
		SWAP(h[0].flight[i], h[0].flight[j]); SWAP(h[1].flight[i], h[1].flight[j]);
#endif
#if HOSTS == 3
		SWAP(h[2].ack[i], h[2].ack[j]);
#endif
	:: else
	fi
}
inline sort() {
	VOTER_KEY(0); VOTER_KEY(1); VOTER_KEY(2);
	order(0, 1); order(1, 2); order(0, 1);
	swap = 0
}
#else
#define sort() skip
#endif

/* --- time ---------------------------------------------------------------------------------- */

#define OLDER(x) x = (x < D -> x + 1 : x)
inline tick() {
	printf("--- time passes\n");
	n = 0;
	do
	:: n < 3 ->
		OLDER(v[n].acked[0]); OLDER(v[n].acked[1]); OLDER(v[n].acked[2]); OLDER(v[n].acked[3]);
		n++
	:: else -> break
	od;
	n = 0;
	do
	:: n < HOSTS ->
		OLDER(h[n].ack[0]); OLDER(h[n].ack[1]); OLDER(h[n].ack[2]);
#ifdef SLOW
		OLDER(h[n].flight[0]); OLDER(h[n].flight[1]); OLDER(h[n].flight[2]);
#endif
		n++
	:: else -> break
	od;
	sort()
}

/* --- everything that can happen --------------------------------------------------------- */

#define VOTERS_OF(x, i) x(i, 0) x(i, 1) x(i, 2)
#if HOSTS == 2
#define EACH_HOST(x) x(0) x(1)
#define EACH_HOST_VOTER(x) VOTERS_OF(x, 0) VOTERS_OF(x, 1)
#else
#define EACH_HOST(x) x(0) x(1) x(2)
#define EACH_HOST_VOTER(x) VOTERS_OF(x, 0) VOTERS_OF(x, 1) VOTERS_OF(x, 2)
#endif
#define EACH_VOTER(x) x(0) x(1) x(2)
#if REGS == 2
#define EACH_REG(x) x(0) x(1)
#define EACH_REG_VOTER(x) VOTERS_OF(x, 0) VOTERS_OF(x, 1)
#elif REGS == 3
#define EACH_REG(x) x(0) x(1) x(2)
#define EACH_REG_VOTER(x) VOTERS_OF(x, 0) VOTERS_OF(x, 1) VOTERS_OF(x, 2)
#else
#define EACH_REG(x) x(0) x(1) x(2) x(3)
#define EACH_REG_VOTER(x) VOTERS_OF(x, 0) VOTERS_OF(x, 1) VOTERS_OF(x, 2) VOTERS_OF(x, 3)
#endif

/* Committed entries. Whoever leads may propose anything at any time; what does not fit
   is rejected, and is not a step here. */
#define SWITCHOVER(r) :: d_step { epoch < EPOCHS && current(r) -> assign(r) }
#define TAKEOVER(r) :: d_step { epoch < EPOCHS && current(r) && current(owner[epoch]) && owner[epoch] != r -> \
	printf("log: fence %d\n", owner[epoch]); over = over | BIT(owner[epoch]); assign(r) }
#define FENCE(r) :: d_step { current(r) && inUse(r) -> printf("log: fence %d\n", r); over = over | BIT(r) }
#define HOLDING :: d_step { holding && !ownerReleased && waits -> printf("log: holding\n"); waits = 0 }

#define BOOT(i) :: d_step { regs < REGS -> boot(i); sort() }
#define BEAT(i, j) :: d_step { h[i].reg != NONE && willAck(i, j) && (h[i].ack[j] > 0 || v[j].acked[h[i].reg] > 0) -> beat(i, j); sort() }
#define ADOPT(i) :: d_step { h[i].reg != NONE && (h[i].rEpoch != epoch || h[i].rWaits != waits) -> adopt(i) }
#define DECIDE(i) :: d_step { h[i].reg != NONE && h[i].held == 0 && may(i) -> decide(i) }
#define LETGO(i) :: d_step { h[i].held > 0 && h[i].open || h[i].held == 0 && h[i].reg != NONE && due(i) -> \
	printf("host %d: lets go\n", i); h[i].open = 0; remember(i); tell(i) }

#define READY(j) :: d_step { !v[j].ready -> printf("voter %d: ready\n", j); v[j].refuses = over; v[j].ready = 1; sort() }
#ifdef BREAK_R3_REVOKE
#define revocable(r) ((r) < regs)
#else
#define revocable(r) (over & BIT(r))
#endif
#define EXPIRE(r, j) :: d_step { revocable(r) && inUse(r) && !said(j, r) && v[j].acked[r] >= BOUND -> \
	printf("voter %d: EXPIRED %d\n", j, r); v[j].refuses = v[j].refuses | BIT(r); v[j].expired = v[j].expired | BIT(r); sort() }
#define RESTART(j) :: d_step { restarts < RESTARTS -> restart(j); sort() }

#ifdef SLOW
#define ACK(i, j) :: d_step { h[i].flight[j] <= D -> acks(i, j, h[i].flight[j]); h[i].flight[j] = NOACK; sort() }
#define OPEN(i) :: d_step { h[i].held > 0 && !h[i].open -> openUp(i) }
#endif

/* Steps that only a broken rule allows. */
#ifdef BREAK_R1_RECORD
#define COMMAND(i) :: d_step { h[i].reg != NONE && h[i].rEpoch < epoch -> printf("host %d: is pushed a command\n", i); \
	h[i].rEpoch = epoch; h[i].rWaits = waits; h[i].command = 1 }
#endif
#ifdef BREAK_R3_TOKEN_FIRST
#define TOKEN_FIRST(i) :: d_step { h[i].reg != NONE && due(i) -> printf("host %d: tokens first\n", i); \
	n = h[i].held; remember(i); h[i].held = n; tell(i) }
#endif
#ifdef BREAK_GUARD_PINNED
#define DIE(i) :: d_step { h[i].reg != NONE && !h[i].bare -> printf("host %d: the agent and its guard end\n", i); h[i].bare = 1; h[i].reg = NONE }
#endif
#ifdef BREAK_R8_CAS
#define COPY(i) :: d_step { h[i].copy && regs < REGS -> printf("a copy of the proposal is committed\n"); h[i].copy = 0; register(i) }
#endif
#ifdef BREAK_R10
#define missed(j) (v[j].acked[owner[epoch]] >= BOUND)
#define MUTED :: d_step { missed(0) + missed(1) + missed(2) >= 2 && !ownerReleased -> printf("log: a muted owner counts as gone\n"); ownerReleased = 1 }
#endif

init {
	d_step {
		/* Node A owns epoch 1; nobody has heard of it yet. */
		host[1] = 1; regs = 2;
		epoch = 1; owner[1] = 0;
		n = 0;
		do
		:: n < 3 ->
			v[n].ready = 1;
			v[n].acked[0] = D; v[n].acked[1] = D; v[n].acked[2] = D; v[n].acked[3] = D;
			n++
		:: else -> break
		od;
		n = 0;
		do
		:: n < HOSTS ->
			h[n].reg = (n < 2 -> n : NONE);
#ifdef BREAK_R8_CAS
			h[n].copy = n < 2;
#endif
			h[n].ack[0] = D; h[n].ack[1] = D; h[n].ack[2] = D;
#ifdef SLOW
			h[n].flight[0] = NOACK; h[n].flight[1] = NOACK; h[n].flight[2] = NOACK;
#endif
			n++
		:: else -> break
		od;
		n = 0
	};
	do
	EACH_REG(SWITCHOVER)
	EACH_REG(TAKEOVER)
	EACH_REG(FENCE)
	HOLDING
	EACH_HOST(BOOT)
	EACH_HOST_VOTER(BEAT)
	EACH_HOST(ADOPT)
	EACH_HOST(DECIDE)
	EACH_HOST(LETGO)
	EACH_VOTER(READY)
	EACH_REG_VOTER(EXPIRE)
	EACH_VOTER(RESTART)
#ifdef SLOW
	EACH_HOST_VOTER(ACK)
	EACH_HOST(OPEN)
#endif
#ifdef BREAK_R1_RECORD
	EACH_HOST(COMMAND)
#endif
#ifdef BREAK_R3_TOKEN_FIRST
	EACH_HOST(TOKEN_FIRST)
#endif
#ifdef BREAK_GUARD_PINNED
	EACH_HOST(DIE)
#endif
#ifdef BREAK_R8_CAS
	EACH_HOST(COPY)
#endif
#ifdef BREAK_R10
	MUTED
#endif
	:: d_step { true -> tick() }
	od
}
