"""What threads that stay in compiled code tell one another: numbers in an array, stored atomically.

A thread that waits tries for some microseconds, since most answers come soon; then it lets others run, and
at last it sleeps between two looks, so that a long wait costs nothing.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from dasknn.engine.compiled.arithmetic import compiled

_TRIES, _YIELDS, _SLEEP_MICROSECONDS = 4_000, 1_000, 50

# Functions of the C library of all systems but Windows.
_yield = types.ExternalFunction("sched_yield", types.intc())
_sleep = types.ExternalFunction("usleep", types.intc(types.uintc))


def _place(context, builder, signature, args):
    """Return a pointer to the item of the array args[0] at args[1]."""
    array = context.make_array(signature.args[0])(context, builder, args[0])
    return builder.gep(array.data, [args[1]])


@intrinsic
def load(typingctx, array, at):
    """Return array[at], and see what was written before the number was stored there."""

    def codegen(context, builder, signature, args):
        return builder.load_atomic(_place(context, builder, signature, args), "acquire", 8)

    return types.int64(array, types.intp), codegen


@intrinsic
def store(typingctx, array, at, number):
    """Set array[at]; threads that `load` it see all that was written before."""

    def codegen(context, builder, signature, args):
        builder.store_atomic(args[2], _place(context, builder, signature, args), "release", 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.int64), codegen


@intrinsic
def pointer(typingctx, address):
    """Return a pointer for `numba.carray`, given an address."""

    def codegen(context, builder, signature, args):
        return builder.inttoptr(args[0], ir.IntType(8).as_pointer())

    return types.voidptr(types.int64), codegen


@compiled
def wait_until_other(array, at, number):
    """Return array[at] as soon as it is not this number."""
    tries = 0
    while True:
        found = load(array, at)
        if found != number:
            return found
        tries += 1
        if tries > _TRIES + _YIELDS:
            _sleep(_SLEEP_MICROSECONDS)
        elif tries > _TRIES:
            _yield()


@compiled
def wait_for(array, at, number):
    """Return True as soon as array[at] is this number, or False when it is negative."""
    found = load(array, at)
    while found != number:
        if found < 0:
            return False
        found = wait_until_other(array, at, found)
    return True
