/* Preloaded into linux.uml. Before 6.13 it keeps 2696 bytes of a process's extended processor state (HOST_FP_SIZE), but
   PTRACE_SETREGSET wants the whole state, which is 11 KiB on a processor with AMX: it fails with EFAULT, and the guest
   panics at its first process. This hands the kernel a buffer of the full size, with the AMX part cleared. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>

#define XSTATE_BV 512 /* offset of the mask of states that the buffer contains: Intel SDM 1, 13.4.2 */
#define AMX (3ull << 17)

static _Alignas(64) char state[65536];

long ptrace(enum __ptrace_request request, ...)
{
	static long (*real)(int, ...);
	static size_t size;

	va_list arguments;
	va_start(arguments, request);
	int pid = va_arg(arguments, int);
	void *address = va_arg(arguments, void *);
	void *data = va_arg(arguments, void *);
	va_end(arguments);

	if (!real)
		real = (long (*)(int, ...))dlsym(RTLD_NEXT, "ptrace");
	if (request != PTRACE_SETREGSET || address != (void *)NT_X86_XSTATE)
		return real(request, pid, address, data);

	if (!size) {
		struct iovec all = {state, sizeof state};
		if (real(PTRACE_GETREGSET, pid, address, &all) < 0)
			return -1;
		size = all.iov_len;
		memset(state, 0, sizeof state);
	}
	struct iovec *given = data, whole = {state, size};
	if (given->iov_len >= size)
		return real(request, pid, address, data);
	memcpy(state, given->iov_base, given->iov_len);
	*(uint64_t *)(state + XSTATE_BV) &= ~AMX;
	return real(request, pid, address, &whole);
}
