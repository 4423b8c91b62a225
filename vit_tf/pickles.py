"""Pickles that cost more than they hold, which all readers of pickles refuse before they unpickle."""

import pickletools

MOST_LEAVES = 1_000_000  # of a value that may be hashed
UNHASHABLE = (pickletools.pydict, pickletools.pylist, pickletools.pyset)


def check_pickle(file):
    """Reads a pickle's opcodes to its end, and raises a ValueError where they cost more than they take.

    An index of the memo may be huge. A tuple may hold another one twice, which holds a third one twice, and
    so on: as the key of a dictionary it is hashed in as many steps as there are leaves.

    Args:
        file: a binary file at the beginning of the pickle.
    """
    stack, memo = [], {}  # of how many leaves values have; None is a mark
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
    """Takes what an opcode takes off the stack of `check_pickle`; returns its leaves, 1 at least."""
    leaves, kinds = 0, list(kinds)
    if pickletools.markobject in kinds:
        while (top := stack.pop()) is not None:
            leaves += top
        kinds = kinds[: kinds.index(pickletools.markobject)]
    for _ in kinds:
        leaves += stack.pop() or 0
    return max(leaves, 1)
