"""Where things lie in the zygote's memory, so that a shim has few pages of its own.

A process that calls a function writes to it: its reference count goes up and down again, that of its code, of its
class, of each constant. After a fork the first such write to a page makes a copy of it for ever, and objects lie where
there was room when they were made, so that nearly each of them costs a shim 4 KiB. Hence, before the zygote freezes:

    fill_gaps()    what is made from now on comes from memory that nothing else is in
    gather...()    what a shim will call, name and have objects of is made anew, and lies together
    fill_gaps()    what a shim makes itself lies together too

The zygote has all its memory from malloc(3) (`runtime.launcher`): what is made one after the other lies side by side.
Python's own allocator puts each size elsewhere, and what a shim touches has many sizes.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any, Final

# malloc.c: what it gives comes in steps of 16 bytes, of which it keeps 8 for itself.
_STEP: Final = 16
_OWN: Final = 8
_FUNCTION: Final = 176  # no function and no code is smaller; the other parts of code are, and nobody touches those
_CLASS: Final = 900  # the same of classes
_CACHED: Final = 1040  # up to here malloc keeps what is freed for the next who asks, wherever it lies
_LARGE: Final = 16 * 1024
_END: Final = 100 * 1024  # less than malloc(3) would map
_MOST: Final = 64 * 1024 * 1024  # no gaps of one size are that much; a heap that does not grow upwards is
_NEAR: Final = 3 * _END  # between what was the end of the heap just now and its end


def gather(used: set[CodeType]) -> None:
    """Replace the functions of our modules that have this code by equal ones, one made after the other."""
    functions = list(dict.fromkeys(function for _, _, function in _functions() if function.__code__ in used))
    for function in functions:
        _ = function.__code__.co_code  # made when it is asked for, and not to lie between those that follow
    fill_gaps(_FUNCTION)
    moved = {function: _copy(function) for function in functions}
    for copy in moved.values():
        copy.__code__ = copy.__code__.replace()
    for owner, name, function in list(_functions()):
        if function in moved:
            setattr(owner, name, _rewrapped(vars(owner)[name], moved[function]))


def gather_constants(used: set[CodeType]) -> None:
    """The same with the numbers and bytes that our modules have under names in this code."""
    names = {name for code in used for name in code.co_names}
    found = [
        (module, name, value)
        for module in _modules()
        for name, value in vars(module).items()
        if name in names and type(value) in (int, float, bytes)
    ]
    fill_gaps()
    fresh = [bytes(bytearray(value)) if isinstance(value, bytes) else value + 0 for _, _, value in found]
    for (module, name, _), value in zip(found, fresh, strict=True):
        setattr(module, name, value)


def gather_classes(used: set[CodeType]) -> None:
    """The same with the classes that this code names, as dataclass(slots=True) does it.

    What has been made of a class already stays of the old one, which has the same functions. So the zygote's own
    objects serve as before; but a class that others are derived from is left as it is.
    """
    names = {name for code in used for name in code.co_names}
    found = [kind for module in _modules() for kind in classes_of(module) if kind.__name__ in names]
    fill_gaps(_CLASS)
    moved = {kind: _remade(kind) for kind in found if "__slots__" in vars(kind) and not kind.__subclasses__()}
    for module in _modules():
        for name, value in list(vars(module).items()):
            if isinstance(value, type) and value in moved:
                setattr(module, name, moved[value])


def _remade(kind: type) -> type:
    slots = vars(kind)["__slots__"]
    body = {name: value for name, value in vars(kind).items() if name not in slots}
    return type(kind)(kind.__name__, kind.__bases__, body | {"__qualname__": kind.__qualname__})


def _functions() -> Iterator[tuple[ModuleType | type, str, FunctionType]]:
    """Those of our modules and their classes: where they are, their name there, and they themselves."""
    owners: list[ModuleType | type] = [*_modules()]
    owners += [kind for module in _modules() for kind in classes_of(module)]
    for owner in owners:
        for name, value in vars(owner).items():
            function = _function_in(value)
            if function is not None:
                yield owner, name, function


def _modules() -> list[ModuleType]:
    return [module for name, module in sys.modules.items() if name.partition(".")[0] == "runtime"]


def classes_of(module: ModuleType) -> Iterator[type]:
    """The classes that a module itself has made."""
    return (kind for kind in vars(module).values() if isinstance(kind, type) and kind.__module__ == module.__name__)


def _function_in(value: Any) -> FunctionType | None:
    match value:
        case classmethod() | staticmethod():
            value = value.__func__
        case property():
            value = value.fget
    return value if isinstance(value, FunctionType) else None


def _rewrapped(value: Any, function: FunctionType) -> Any:
    """The same kind of thing as `value`, around the function."""
    match value:
        case classmethod() | staticmethod():
            return type(value)(function)
        case property():
            return value.getter(function)
    return function


def _copy(function: FunctionType) -> FunctionType:
    code = function.__code__
    copy = FunctionType(code, function.__globals__, function.__name__, function.__defaults__, function.__closure__)
    copy.__kwdefaults__, copy.__qualname__ = function.__kwdefaults__, function.__qualname__
    copy.__module__, copy.__doc__ = function.__module__, function.__doc__
    return copy


def fill_gaps(smallest: int = 2 * _STEP) -> None:
    """Take all memory that is free between things in pieces of `smallest` bytes and more.

    Afterwards what is that large comes from the end of the heap, where nothing was before.
    """
    gc.collect()  # also empties the free lists of tuples, lists, dicts and floats
    malloc, free = ctypes.pythonapi.PyMem_RawMalloc, ctypes.pythonapi.PyMem_RawFree
    malloc.argtypes, malloc.restype, free.argtypes = [ctypes.c_size_t], ctypes.c_void_p, [ctypes.c_void_p]
    sbrk = ctypes.pythonapi.sbrk
    sbrk.restype = ctypes.c_void_p
    for _ in range(_MOST // _END):
        end = malloc(_END)
        if end + _NEAR >= sbrk(0):  # else it is a gap that large: importing what has no .pyc leaves some
            break
    for size in range(_LARGE, smallest - 1, -_STEP):
        for _ in range(_MOST // size):
            block = malloc(size - _OWN)
            if block >= end:
                break
        if size > _CACHED:
            free(block)
    free(end)
