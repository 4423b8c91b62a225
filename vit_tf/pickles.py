"""Detects pickles whose cost exceeds their size, before any reader unpickles them."""

import pickletools

MOST_LEAVES = 1_000_000  # of a hashable value
UNHASHABLE = (pickletools.pydict, pickletools.pylist, pickletools.pyset)


def check_pickle(file):
    """Reads a pickle's opcodes to the end; raises a ValueError if unpickling would cost much more.

    A memo index may be huge. A tuple may contain another tuple twice, which contains a third tuple twice, and
    so on: hashing such a key of a dictionary takes as many steps as there are leaves.
    """
    stack, memo = [], {}  # the numbers of leaves of values; None is a mark
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name.endswith("PUT"):
            if argument > file.tell():
                raise ValueError("the pickle has a memo bomb")
            memo[argument] = stack[-1]
        elif opcode.name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif opcode.name.endswith("GET"):
            stack.append(memo[argument])
        elif opcode.name == "MARK":
            stack.append(None)
        else:
            leaves = pop_leaves(stack, opcode.stack_before)
            if leaves > MOST_LEAVES:
                raise ValueError("the pickle has the same tuples too often")
            stack += [1 if kind in UNHASHABLE else leaves for kind in opcode.stack_after]


def pop_leaves(stack, kinds):
    """Pops an opcode's arguments off the stack of `check_pickle`; returns their leaves, at least 1."""
    leaves, kinds = 0, list(kinds)
    if pickletools.markobject in kinds:
        while (top := stack.pop()) is not None:
            leaves += top
        kinds = kinds[: kinds.index(pickletools.markobject)]
    for _ in kinds:
        leaves += stack.pop() or 0
    return max(leaves, 1)
