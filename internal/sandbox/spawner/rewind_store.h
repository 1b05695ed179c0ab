/* Pages of all snapshots, each content once. Processes of one runtime hold
 * mostly the same pages: forked from one zygote, or booted the same way. */
#ifndef BRASA_REWIND_STORE_H
#define BRASA_REWIND_STORE_H

#include "rewind.h"

#define ZERO_PAGE 0u /* the id of the page of zeros, which is never counted */
#define NO_PAGE 0xffffffffu
#define STORE_BUCKETS (1u << 18)
/* How many pages with one hash are looked at before a content is kept twice. A
 * function that knows the hash could else make us walk for ever. */
#define STORE_CHAIN 32

static u8 *store;        /* page i at store + i * PAGE; untouched ones take no memory */
static u32 *store_refs;
static u32 *store_next;  /* in a bucket, or in the list of free ids */
static u64 *store_hash;
static u32 store_size, store_top = 1, store_free, store_used;
static u32 store_heads[STORE_BUCKETS];
static u64 store_seed;

static void *reserve(u64 bytes)
{
	/* private, anonymous, no reservation of swap */
	long p = sys(__NR_mmap, 0, bytes, 3, 0x4022, -1, 0);
	return p < 0 && p > -4096 ? 0 : (void *)p;
}

static int store_open(void)
{
	for (u64 pages = 1ull << 24; pages >= 1ull << 16; pages >>= 2) {
		store = reserve(pages * PAGE);
		store_refs = reserve(pages * 4);
		store_next = reserve(pages * 4);
		store_hash = reserve(pages * 8);
		if (store && store_refs && store_next && store_hash) {
			store_size = (u32)pages;
			sys(__NR_getrandom, &store_seed, sizeof store_seed, 1);
			return 0;
		}
		/* With overcommit off, address space counts as memory: try less. */
		if (store) sys(__NR_munmap, store, pages * PAGE);
		if (store_refs) sys(__NR_munmap, store_refs, pages * 4);
		if (store_next) sys(__NR_munmap, store_next, pages * 4);
		if (store_hash) sys(__NR_munmap, store_hash, pages * 8);
	}
	return -1;
}

static inline u8 *page_at(u32 id) { return store + (u64)id * PAGE; }

static inline void copy_page(void *to, const void *from)
{
	u64 *t = to;
	const u64 *f = from;
	for (u32 i = 0; i < PAGE / 8; i += 4) {
		t[i] = f[i];
		t[i + 1] = f[i + 1];
		t[i + 2] = f[i + 2];
		t[i + 3] = f[i + 3];
	}
}

static inline int same_bytes(const void *a, const void *b, u64 n)
{
	const u8 *x = a, *y = b;
	for (; n >= 8; n -= 8, x += 8, y += 8)
		if (*(const u64 *)x != *(const u64 *)y)
			return 0;
	while (n--)
		if (*x++ != *y++)
			return 0;
	return 1;
}

/* page_hash returns 0 for a page of zeros, and hardly ever for another. */
static u64 page_hash(const u8 *page)
{
	const u64 *w = (const u64 *)page;
	u64 a = store_seed | 1, b = a * 3, c = a * 5, d = a * 7, any = 0;
	for (u32 i = 0; i < PAGE / 8; i += 4) {
		any |= w[i] | w[i + 1] | w[i + 2] | w[i + 3];
		a = (a ^ w[i]) * 0x9e3779b97f4a7c15ull;
		b = (b ^ w[i + 1]) * 0xc2b2ae3d27d4eb4full;
		c = (c ^ w[i + 2]) * 0x165667b19e3779f9ull;
		d = (d ^ w[i + 3]) * 0xff51afd7ed558ccdull;
		a ^= a >> 29;
		b ^= b >> 31;
		c ^= c >> 30;
		d ^= d >> 28;
	}
	if (!any)
		return 0;
	a ^= (b << 13 | b >> 51) ^ (c << 29 | c >> 35) ^ (d << 43 | d >> 21);
	a *= 0x9e3779b97f4a7c15ull;
	return a ^ a >> 32 ?: 1;
}

/* store_put keeps a content and returns its id, or NO_PAGE when the store is full. */
static u32 store_put(const u8 *page)
{
	u64 hash = page_hash(page);
	if (!hash)
		return ZERO_PAGE;
	u32 *head = &store_heads[hash % STORE_BUCKETS], looked = 0;
	for (u32 id = *head; id && looked < STORE_CHAIN; id = store_next[id], looked++)
		if (store_hash[id] == hash && same_bytes(page_at(id), page, PAGE)) {
			store_refs[id]++;
			return id;
		}
	u32 id = store_free;
	if (id)
		store_free = store_next[id];
	else if (store_top < store_size)
		id = store_top++;
	else
		return NO_PAGE;
	copy_page(page_at(id), page);
	store_hash[id] = hash;
	store_refs[id] = 1;
	store_next[id] = *head;
	*head = id;
	store_used++;
	return id;
}

static void store_drop(u32 id)
{
	if (id == ZERO_PAGE || --store_refs[id])
		return;
	u32 *at = &store_heads[store_hash[id] % STORE_BUCKETS];
	while (*at != id)
		at = &store_next[*at];
	*at = store_next[id];
	store_next[id] = store_free;
	store_free = id;
	store_used--;
	sys(__NR_madvise, page_at(id), PAGE, MADV_DONTNEED_);
}

#endif
