/* Lets User-mode Linux run on processors with AMX. The host's kernel takes a process's extended registers
 * (NT_X86_XSTATE, arch/x86/kernel/fpu/regset.c) only in their full size, which AMX made larger than the
 * buffer that Linux 6.1 has for them as a guest: every process would end at its first instruction. What
 * the guest does not know it does not use, so that zeros stand for it.
 *
 * tests/vm/run builds this and has it loaded (LD_PRELOAD) with linux.uml. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>

long ptrace(enum __ptrace_request request, ...)
{
    static long (*next)(enum __ptrace_request, ...);
    static char whole[1 << 16] __attribute__((aligned(64)));
    static size_t size;

    va_list rest;
    va_start(rest, request);
    pid_t pid = va_arg(rest, pid_t);
    void *address = va_arg(rest, void *);
    void *data = va_arg(rest, void *);
    va_end(rest);

    if (!next)
        next = (long (*)(enum __ptrace_request, ...))dlsym(RTLD_NEXT, "ptrace");
    if (request != PTRACE_SETREGSET || (long)address != NT_X86_XSTATE)
        return next(request, pid, address, data);

    const struct iovec *known = data;
    struct iovec all = { whole, sizeof(whole) };
    if (!size) {
        if (next(PTRACE_GETREGSET, pid, address, &all) != 0)
            return -1;
        size = all.iov_len;
    }
    if (known->iov_len >= size)
        return next(request, pid, address, data);
    memcpy(whole, known->iov_base, known->iov_len);
    memset(whole + known->iov_len, 0, size - known->iov_len);
    all.iov_len = size;
    return next(request, pid, address, &all);
}
