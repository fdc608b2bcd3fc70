"""Where things lie in the zygote's memory, so that a shim has few pages of its own.

A process that calls a function writes to it: its reference count goes up and down again, that of its code, of its
class, of each constant. After a fork the first such write to a page makes a copy of it for ever, and objects lie where
there was room when they were made, so that nearly each of them costs a shim 4 KiB. Hence, before the zygote freezes:

    fill_gaps()   what is made from now on comes from memory that nothing else is in
    gather()      what a shim will call is made anew, and lies together
    fill_gaps()   what a shim makes itself lies together too
"""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any, Final

# obmalloc.c: blocks of up to 512 bytes in steps of 16 come from aligned pools, each with a header of 48 bytes.
_POOL: Final = 16 * 1024
_FIRST_BLOCK: Final = 48
_STEP: Final = 16
_SMALL: Final = 512
_LARGE: Final = 16 * 1024
_END: Final = 100 * 1024  # more than is free in one piece, less than malloc(3) would map
_BYTES_HEADER: Final = sys.getsizeof(b"")


def gather(used: set[CodeType]) -> None:
    """Replace the functions of our modules that have this code by equal ones, one made after the other."""
    moved: dict[FunctionType, FunctionType] = {}
    for owner in _owners():
        for name, value in list(vars(owner).items()):
            fresh = _moved(value, used, moved)
            if fresh is not value:
                setattr(owner, name, fresh)


def _owners() -> Iterator[ModuleType | type]:
    """Our modules and their classes."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "runtime":
            yield module
            yield from classes_of(module)


def classes_of(module: ModuleType) -> Iterator[type]:
    """The classes that a module itself has made."""
    return (kind for kind in vars(module).values() if isinstance(kind, type) and kind.__module__ == module.__name__)


def _moved(value: Any, used: set[CodeType], moved: dict[FunctionType, FunctionType]) -> Any:
    match value:
        case FunctionType() if value.__code__ in used:
            return moved.get(value) or moved.setdefault(value, _copy(value))
        case classmethod() | staticmethod():
            inner = _moved(value.__func__, used, moved)
            return value if inner is value.__func__ else type(value)(inner)
        case property():
            inner = _moved(value.fget, used, moved)
            return value if inner is value.fget else value.getter(inner)
    return value


def _copy(function: FunctionType) -> FunctionType:
    code, scope = function.__code__.replace(), function.__globals__
    copy = FunctionType(code, scope, function.__name__, function.__defaults__, function.__closure__)
    copy.__kwdefaults__, copy.__qualname__ = function.__kwdefaults__, function.__qualname__
    copy.__module__, copy.__doc__ = function.__module__, function.__doc__
    copy.__annotations__ = function.__annotations__
    return copy


def fill_gaps() -> list[bytes]:
    """Take all memory that is free between things; what is returned must be kept."""
    gc.collect()  # also empties the free lists of tuples, lists, dicts and floats
    filling: list[bytes] = []
    for size in range(_FIRST_BLOCK, _SMALL + 1, _STEP):
        while id(block := bytes(size - _BYTES_HEADER)) % _POOL != _FIRST_BLOCK:
            filling.append(block)
    _fill_heap()
    return filling


def _fill_heap() -> None:
    """The same for what malloc(3) serves: until it comes from the end of the heap, where nothing was before."""
    malloc, free = ctypes.pythonapi.PyMem_RawMalloc, ctypes.pythonapi.PyMem_RawFree
    malloc.argtypes, malloc.restype, free.argtypes = [ctypes.c_size_t], ctypes.c_void_p, [ctypes.c_void_p]
    end = malloc(_END)
    for size in range(_LARGE, 0, -_STEP):
        while (block := malloc(size)) < end:
            pass
        free(block)
    free(end)
