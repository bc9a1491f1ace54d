/*
 * One address moves between two groups, and groups are deleted and added again: R11.
 * lease.pml has what makes a claim end; here a claim ends by its token alone, as if
 * no lease ever ran out, so that whatever goes wrong is R11's.
 *
 * A claim is one epoch of one group at one host. Claims are numbered in the order of
 * their commit. -DBREAK_... breaks a rule.
 */

#ifndef CLAIMS
#define CLAIMS 5	/* at most 8 */
#endif
#define NONE 15
#define BIT(i) (1 << (i))

/* --- replicated ------------------------------------------------------------------------- */

byte claims;
byte covers;		/* claims whose group had the address when they were made */
byte at;		/* claims of host 1; the others are host 0's */
byte group;		/* claims of group 1; the others are group 0's */
byte current[2];	/* of each group: its newest claim; NONE = it has no owner */
byte released;		/* claims that the log knows to be let go of */
byte waits[2];
bit has[2];		/* the address is in the spec of the group */
byte changes;		/* by operators */
#ifndef CHANGES
#define CHANGES 3
#endif

/* --- said, and done by hosts ------------------------------------------------------------ */

byte tokens;		/* claims that their holder closed, and remembers to have */
byte open;		/* claims that a kernel answers for */
byte known[2];		/* of each group: the claim in the record that its owner adopted */
byte knownWaits[2];

hidden byte n, old;

#define I3 assert(!((open & covers & at) && (open & covers & ~at)))
#define unreleased(c) ((c) != NONE && !(released & BIT(c)) -> BIT(c) : 0)

/* fsm: Group.advance, with the owner that the next epoch has. */
inline advance(g, to) {
	waits[g] = waits[g] | unreleased(current[g]);
	if
	:: to == NONE -> current[g] = NONE
	:: else ->
		printf("log: claim %d is group %d on host %d\n", claims, g, to);
		current[g] = claims;
		covers = covers | (has[g] -> BIT(claims) : 0);
		at = at | (to -> BIT(claims) : 0);
		group = group | (g -> BIT(claims) : 0);
		claims++
	fi
}

/* fsm: State.addressWaits. A claim covers what its group had when it was made. */
#if defined(BREAK_R11)
#define inherits(g) 0
#elif defined(BREAK_R11_NOW)	/* looks at the addresses that the other group has now */
#define inherits(g) (old -> waits[1 - g] | unreleased(current[1 - g]) : 0)
#else
#define inherits(g) ((waits[1 - g] | unreleased(current[1 - g])) & covers)
#endif

/* The owner of a group whose resources change keeps it, under the next epoch. */
#define ownerOf(g) (current[g] == NONE -> NONE : ((at & BIT(current[g])) != 0))

inline move(g) {		/* from the other group, in one apply */
	printf("log: the address goes from group %d to group %d\n", 1 - g, g);
	changes++;
	old = has[1 - g];
	waits[g] = waits[g] | inherits(g);
	has[1 - g] = 0; has[g] = 1;
	n = ownerOf(1 - g);
	advance(1 - g, n);
	n = ownerOf(g);
	advance(g, n);
	n = 0; old = 0
}
inline take(g) {
	printf("log: the address is taken from group %d\n", g);
	changes++;
	has[g] = 0;
	n = ownerOf(g);
	advance(g, n);
	n = 0
}
inline give(g) {
	printf("log: group %d gets the address\n", g);
	changes++;
	old = has[1 - g];
	waits[g] = waits[g] | inherits(g);
	has[g] = 1;
	n = ownerOf(g);
	advance(g, n);
	n = 0; old = 0
}
inline delete(g) {
	printf("log: group %d is deleted\n", g);
	changes++;
	has[g] = 0;
	advance(g, NONE);
#ifdef BREAK_R11_DELETED
	waits[g] = 0
#endif
}

#define satisfied(g) ((knownWaits[g] & ~tokens) == 0)
#define newest(g) (current[g] == NONE -> 0 : BIT(current[g]))

#define FREE(x) (claims + (x) <= CLAIMS && changes < CHANGES)
#define EACH_GROUP(x) x(0) x(1)
#define MOVE(g) :: d_step { FREE(2) && has[1 - g] && !has[g] -> move(g) }
#define TAKE(g) :: d_step { FREE(1) && has[g] -> take(g) }
#define GIVE(g) :: d_step { FREE(1) && !has[0] && !has[1] -> give(g) }
#define DELETE(g) :: d_step { changes < CHANGES && has[g] -> delete(g) }
#define ASSIGN(g) \
	:: d_step { claims < CLAIMS && ownerOf(g) != 0 -> advance(g, 0) } \
	:: d_step { claims < CLAIMS && ownerOf(g) != 1 -> advance(g, 1) }
#define COMMIT(g) :: d_step { (waits[g] & tokens) -> printf("log: tokens\n"); released = released | tokens; waits[g] = waits[g] & ~tokens }
/* The owner adopts the record as it stands; later it may act on it when it likes. */
#define ADOPT(g) :: d_step { current[g] != NONE && (known[g] != current[g] || knownWaits[g] != waits[g]) -> \
	printf("owner of group %d: adopts claim %d\n", g, current[g]); known[g] = current[g]; knownWaits[g] = waits[g] }
#define OPEN(g) :: d_step { known[g] != NONE && !((open | tokens) & BIT(known[g])) && satisfied(g) -> \
	printf("claim %d is open\n", known[g]); open = open | BIT(known[g]); I3 }
/* fsm: State.holding: the owner of record says that it holds, so nobody before it does. */
#define HOLDING(g) :: d_step { (open & newest(g)) && waits[g] -> printf("log: group %d is held\n", g); waits[g] = 0 }
#define LETGO(c) :: d_step { c < claims && !(tokens & BIT(c)) && ((open & BIT(c)) || current[(group & BIT(c)) != 0] != c) -> \
	printf("claim %d is let go of\n", c); open = open & ~BIT(c); tokens = tokens | BIT(c) }
#if CLAIMS > 6
#error "more LETGO"
#endif

init {
	d_step {
		has[0] = 1; covers = 1; claims = 1;	/* group 0 has the address, and is at host 0 */
		current[1] = NONE; known[0] = NONE; known[1] = NONE
	};
	do
	EACH_GROUP(MOVE)
	EACH_GROUP(TAKE)
	EACH_GROUP(GIVE)
	EACH_GROUP(DELETE)
	EACH_GROUP(ASSIGN)
	EACH_GROUP(COMMIT)
	EACH_GROUP(ADOPT)
	EACH_GROUP(OPEN)
	EACH_GROUP(HOLDING)
	LETGO(0) LETGO(1) LETGO(2) LETGO(3) LETGO(4) LETGO(5)
	:: d_step { true -> skip }	/* nothing happens any more */
	od
}
