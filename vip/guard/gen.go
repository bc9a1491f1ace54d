package guard

// The objects and the Go code made from guard.bpf.c are committed: building
// hanode needs no clang, changing the guard does.
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -cflags "-O2 -g -Wall -Werror" prog guard.bpf.c
