package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
)

// boltFile is a bbolt file as bytes, for checking every page before bbolt maps it:
// bbolt follows damaged pointers, and what that does to a process cannot always be
// caught.
type boltFile struct {
	b    []byte
	page int
	high uint64          // pages from here on are not in use
	seen map[uint64]bool // pages that something refers to
}

const (
	boltMagic     = 0xED0CDAED
	boltNoList    = ^uint64(0) // the free list is not stored
	boltPageHead  = 16
	boltBranch    = 0x01
	boltLeaf      = 0x02
	boltFreelist  = 0x10
	boltIsBucket  = 0x01
	boltMaxDepth  = 64
	boltMetaBytes = 64
)

// checkBoltFile walks the tree and the free list of a bbolt file; the error says
// what does not fit.
func checkBoltFile(b []byte) error {
	f := &boltFile{b: b, seen: map[uint64]bool{0: true, 1: true}}
	root, free, err := f.meta()
	if err != nil {
		return err
	}
	if free != boltNoList {
		if err := f.freelist(free); err != nil {
			return err
		}
	}
	if err := f.walk(root, 0); err != nil {
		return err
	}
	for id := range f.high {
		if !f.seen[id] {
			return fmt.Errorf("page %d is neither used nor free", id)
		}
	}
	return nil
}

// meta picks the newer of the two meta pages that is whole.
func (f *boltFile) meta() (root, free uint64, err error) {
	le := binary.LittleEndian
	var newest uint64
	found := false
	try := func(at int) (page int, ok bool) {
		if at < 0 || at+boltPageHead+boltMetaBytes > len(f.b) {
			return 0, false
		}
		m := f.b[at+boltPageHead:][:boltMetaBytes]
		sum := fnv.New64a()
		_, _ = sum.Write(m[:56])
		page = int(le.Uint32(m[8:]))
		if le.Uint32(m) != boltMagic || le.Uint32(m[4:]) != 2 || le.Uint64(m[56:]) != sum.Sum64() || page < 512 {
			return 0, false
		}
		if txid := le.Uint64(m[48:]); !found || txid > newest {
			newest, found = txid, true
			root, free, f.high, f.page = le.Uint64(m[16:]), le.Uint64(m[32:]), le.Uint64(m[40:]), page
		}
		return page, true
	}
	if page, ok := try(0); ok {
		_, ok = try(page)
		if !ok {
			return 0, 0, errors.New("the second meta page is damaged")
		}
	} else {
		return 0, 0, errors.New("the first meta page is damaged")
	}
	if f.high < 2 || f.high > uint64(len(f.b)/f.page) {
		return 0, 0, fmt.Errorf("the file ends at page %d, but %d are in use", len(f.b)/f.page, f.high)
	}
	return root, free, nil
}

// take returns a page with those that follow it, and marks them as referred to.
func (f *boltFile) take(id uint64, kinds uint16) (p []byte, kind uint16, count int, err error) {
	le := binary.LittleEndian
	if id < 2 || id >= f.high {
		return nil, 0, 0, fmt.Errorf("page %d is out of bounds (%d)", id, f.high)
	}
	p = f.b[id*uint64(f.page):]
	kind, count = le.Uint16(p[8:]), int(le.Uint16(p[10:]))
	more := uint64(le.Uint32(p[12:]))
	switch {
	case le.Uint64(p) != id:
		return nil, 0, 0, fmt.Errorf("page %d calls itself %d", id, le.Uint64(p))
	case kind&kinds == 0:
		return nil, 0, 0, fmt.Errorf("page %d is of kind %#x", id, kind)
	case id+more >= f.high:
		return nil, 0, 0, fmt.Errorf("page %d is longer than the file", id)
	}
	for i := id; i <= id+more; i++ {
		if f.seen[i] {
			return nil, 0, 0, fmt.Errorf("page %d is used twice", i)
		}
		f.seen[i] = true
	}
	return p[:(more+1)*uint64(f.page)], kind, count, nil
}

func (f *boltFile) freelist(id uint64) error {
	le := binary.LittleEndian
	p, _, count, err := f.take(id, boltFreelist)
	if err != nil {
		return fmt.Errorf("free list: %w", err)
	}
	list := p[boltPageHead:]
	if count == 0xFFFF {
		n := le.Uint64(list)
		list = list[8:]
		if n > uint64(len(list)/8) {
			return fmt.Errorf("the free list names %d pages", n)
		}
		count = int(n)
	}
	if count*8 > len(list) {
		return fmt.Errorf("the free list names %d pages", count)
	}
	for i := range count {
		free := le.Uint64(list[8*i:])
		if free < 2 || free >= f.high || f.seen[free] {
			return fmt.Errorf("the free list names page %d", free)
		}
		f.seen[free] = true
	}
	return nil
}

// walk checks the tree under a page.
func (f *boltFile) walk(id uint64, depth int) error {
	if depth > boltMaxDepth {
		return fmt.Errorf("page %d is too deep", id)
	}
	p, kind, count, err := f.take(id, boltBranch|boltLeaf)
	if err != nil {
		return err
	}
	return f.elements(p, id, kind, count, depth)
}

// elements checks what is on one page, real or inline.
func (f *boltFile) elements(p []byte, id uint64, kind uint16, count, depth int) error {
	le := binary.LittleEndian
	if boltPageHead*(count+1) > len(p) {
		return fmt.Errorf("page %d has %d elements", id, count)
	}
	for i := range count {
		at := boltPageHead * (i + 1)
		e := p[at:][:boltPageHead]
		if kind&boltBranch != 0 {
			if pos, size := uint64(le.Uint32(e)), uint64(le.Uint32(e[4:])); uint64(at)+pos+size > uint64(len(p)) {
				return fmt.Errorf("page %d, element %d is out of bounds", id, i)
			}
			if err := f.walk(le.Uint64(e[8:]), depth+1); err != nil {
				return err
			}
			continue
		}
		pos, ksize, vsize := uint64(le.Uint32(e[4:])), uint64(le.Uint32(e[8:])), uint64(le.Uint32(e[12:]))
		if uint64(at)+pos+ksize+vsize > uint64(len(p)) {
			return fmt.Errorf("page %d, element %d is out of bounds", id, i)
		}
		if le.Uint32(e)&boltIsBucket == 0 {
			continue
		}
		if err := f.bucket(p[uint64(at)+pos+ksize:][:vsize], id, depth); err != nil {
			return err
		}
	}
	return nil
}

// bucket checks a bucket's value: a root page, or the page itself inline.
func (f *boltFile) bucket(v []byte, id uint64, depth int) error {
	le := binary.LittleEndian
	if len(v) < 16 {
		return fmt.Errorf("page %d has a bucket of %d bytes", id, len(v))
	}
	if root := le.Uint64(v); root != 0 {
		return f.walk(root, depth+1)
	}
	in := v[16:]
	if len(in) < boltPageHead || depth > boltMaxDepth || le.Uint16(in[8:]) != boltLeaf {
		return fmt.Errorf("page %d has a damaged bucket", id)
	}
	return f.elements(in, id, boltLeaf, int(le.Uint16(in[10:])), depth+1)
}
