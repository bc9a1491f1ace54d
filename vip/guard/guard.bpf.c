// SPDX-License-Identifier: MIT OR GPL-2.0
//go:build ignore

// A VIP passes a device only while its group is open here and the node's lease
// runs. vip/DESIGN.md says why; the rules are:
//
//   in : drop what is addressed TO a closed VIP  (IP destination, ARP and NS target)
//   out: drop what speaks AS a closed VIP        (IP source, ARP sender, NA target, DAD)
//
// The other direction passes, so a host with a closed VIP is an ordinary client
// of its holder. What is not dropped is left to the next program.
//
// The few kernel definitions needed are spelled out, so that generating needs
// clang and no header package.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define SEC(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))
#define __uint(name, val) int(*name)[val]
#define __type(name, val) typeof(val) *name

enum { MAP_HASH = 1, MAP_ARRAY = 2, MAP_PERCPU_ARRAY = 6, MMAPABLE = 1 << 10 };

struct __sk_buff;

static void *(*map_lookup)(void *map, const void *key) = (void *)1;
static long (*load_bytes)(const struct __sk_buff *skb, u32 off, void *to, u32 len) = (void *)26;
static u64 (*boot_ns)(void) = (void *)125;

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define BE16(x) ((u16)__builtin_bswap16(x))
#define BE32(x) ((u32)__builtin_bswap32(x))
#else
#define BE16(x) ((u16)(x))
#define BE32(x) ((u32)(x))
#endif

#define NEXT (-1)	/* TCX_NEXT and TC_ACT_UNSPEC: the next program decides; 0 would end the chain */
#define DROP 2		/* TCX_DROP and TC_ACT_SHOT */
#define ETH_HLEN 14
#define TOO_FAR 60000000000ULL	/* an end further ahead is a mistake (a unit, a clock): closed */
#define MAX_VIPS 4096

struct addr { u32 w[4]; };	/* IPv6, or IPv4 as ::ffff:a.b.c.d */

/* Every address of the cluster; its value is its slot in `opened`. Absent: not ours. */
struct {
	__uint(type, MAP_HASH);
	__uint(max_entries, MAX_VIPS);
	__type(key, struct addr);
	__type(value, u32);
} vips SEC(".maps");

/* One word per slot, 1 = open. Mapped by the agent: closing is one store, it cannot fail. */
struct {
	__uint(type, MAP_ARRAY);
	__uint(map_flags, MMAPABLE);
	__uint(max_entries, MAX_VIPS);
	__type(key, u32);
	__type(value, u64);
} opened SEC(".maps");

/* The end of the node's lease, CLOCK_BOOTTIME ns. One store renews every VIP. */
struct {
	__uint(type, MAP_ARRAY);
	__uint(map_flags, MMAPABLE);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u64);
} lease SEC(".maps");

enum kind { ARP, ND, IP };

struct {
	__uint(type, MAP_PERCPU_ARRAY);
	__uint(max_entries, 6);	/* 2 * kind + (0 in, 1 out) */
	__type(key, u32);
	__type(value, u64);
} drops SEC(".maps");

INLINE int closed(struct addr *a, int in, enum kind kind)
{
	u32 zero = 0, n = 2 * kind + !in;
	u32 *slot = map_lookup(&vips, a);
	if (!slot)
		return 0;
	u64 *bit = map_lookup(&opened, slot), *end = map_lookup(&lease, &zero);
	if (bit && end) {
		u64 now = boot_ns(), e = *(volatile u64 *)end;
		if (*(volatile u64 *)bit == 1 && now < e && e - now < TOO_FAR)
			return 0;
	}
	u64 *count = map_lookup(&drops, &n);
	if (count)
		++*count;
	return 1;
}

INLINE int arp(struct __sk_buff *skb, u32 off, int in)
{
	struct addr a = {};
	u32 spa;

	if (load_bytes(skb, off + 14, &spa, 4) || load_bytes(skb, off + 24, &a.w[3], 4))
		return NEXT;
	if (in && spa == a.w[3])	/* the holder's announcement: our neighbour table must learn it */
		return NEXT;
	if (!in)
		a.w[3] = spa;
	a.w[2] = BE32(0xffff);
	return closed(&a, in, ARP) ? DROP : NEXT;
}

INLINE int ip4(struct __sk_buff *skb, u32 off, int in)
{
	struct addr a = {};

	if (load_bytes(skb, off + (in ? 16 : 12), &a.w[3], 4))
		return NEXT;
	a.w[2] = BE32(0xffff);
	return closed(&a, in, IP) ? DROP : NEXT;
}

INLINE int ip6(struct __sk_buff *skb, u32 off, int in)
{
	enum { ICMPV6 = 58, NS = 135, NA = 136 };
	struct addr src, dst, target;
	u8 next, type;

	if (load_bytes(skb, off + 6, &next, 1) || load_bytes(skb, off + 8, &src, 16) ||
	    load_bytes(skb, off + 24, &dst, 16))
		return NEXT;
	if (closed(in ? &dst : &src, in, IP))
		return DROP;
	if (next != ICMPV6 || load_bytes(skb, off + 40, &type, 1))
		return NEXT;
	if (type == NS) {
		/* Our own question as a client passes; from :: it is DAD, which claims the target. */
		if (!in && (src.w[0] | src.w[1] | src.w[2] | src.w[3]))
			return NEXT;
	} else if (type == NA) {
		if (in)	/* the holder's answer */
			return NEXT;
	} else {
		return NEXT;
	}
	if (load_bytes(skb, off + 48, &target, 16))
		return NEXT;
	return closed(&target, in, ND) ? DROP : NEXT;
}

INLINE int guard(struct __sk_buff *skb, int in)
{
	u32 off = ETH_HLEN;
	u16 proto;

	/* The frame is read, not skb->protocol, about which a packet socket may lie. A
	 * tag that the device took off is not in the frame; others are stepped over. */
	if (load_bytes(skb, 12, &proto, 2))
		return NEXT;
	for (int i = 0; i < 2; i++) {
		if (proto != BE16(0x8100) && proto != BE16(0x88a8))
			break;
		if (load_bytes(skb, off + 2, &proto, 2))
			return NEXT;
		off += 4;
	}
	if (proto == BE16(0x0806))
		return arp(skb, off, in);
	if (proto == BE16(0x0800))
		return ip4(skb, off, in);
	if (proto == BE16(0x86dd))
		return ip6(skb, off, in);
	return NEXT;
}

SEC("tc") int guard_in(struct __sk_buff *skb) { return guard(skb, 1); }
SEC("tc") int guard_out(struct __sk_buff *skb) { return guard(skb, 0); }

char _license[] SEC("license") = "Dual MIT/GPL";
